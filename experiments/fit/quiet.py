"""Silence about nothing: Lightning's chatter, loader processes and their tracebacks."""

import logging
import multiprocessing
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning

from datamodules.sources.source import ClipError

CHATTER = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.distributed",
)
"""Where Lightning says what nobody asked for; the suite's own notes go there too."""

NEEDLESS = (
    # Old torch functions that Lightning itself uses.
    r"`isinstance\(treespec, LeafSpec\)",
    r"torch\.distributed\.nn\.functional\.all_gather is deprecated",
    # What is logged is equal on all ranks, or of rank 0 by intention.
    r"It is recommended to use `self\.log\('val/.*sync_dist=True",
    # Kernels of one pixel with channels last: the same order, under other numbers.
    r"Grad strides do not match bucket view strides",
    # A run is refused that would take another precision than it names.
    r"You passed `Trainer\(accelerator='cpu', precision='16-mixed'\)`",
)
"""Warnings about nothing that a user could mend."""


def quieten_lightning() -> None:
    """Drop Lightning's notes on hardware, tips and limits; warnings stay."""
    for message in NEEDLESS:
        warnings.filterwarnings("ignore", message=message)
    for name in CHATTER:
        logging.getLogger(name).addFilter(_no_chatter)


def show_notes_on_data() -> None:
    """Let the data say what it found, and how far the index of a large tree is."""
    notes = logging.getLogger("datamodules")
    notes.handlers = [logging.StreamHandler()]
    notes.setLevel(logging.INFO)


def _no_chatter(record: logging.LogRecord) -> bool:
    within = Path(record.pathname).is_relative_to(Path(lightning.__file__).parent)
    return record.levelno > logging.INFO or not within


@contextmanager
def loader_errors() -> Iterator[None]:
    """Tell what a loader process says about the data without its traceback."""
    try:
        yield
    except ClipError as error:
        name = f"{ClipError.__module__}.{ClipError.__qualname__}"
        raise ClipError(str(error).rpartition(f"\n{name}: ")[2]) from error


def end_loaders() -> None:
    """Kill the loader processes that a fit has left.

    They ignore SIGTERM, with which Python ends what is left before it waits for it:
    after an error, which keeps their loader alive, it would wait for ever.
    """
    # Torch's handler, where it comes before the join, raises that a worker was killed.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    signal.signal(signal.SIGCHLD, handler)
