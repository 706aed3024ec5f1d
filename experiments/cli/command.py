"""A command from its start to its exit code; the names and paths it is given."""

import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path

from datamodules.paths import reason_of
from experiments.cli.closed_pipe import (
    outliving_readers,
    reader_has_gone,
    with_reader,
)

OUT_OF_MEMORY = re.compile(
    r"(?:out of memory|can't allocate memory)(?:.*?(tried to allocate [\d.]+ \w+))?",
    re.I | re.S,
)
"""What torch says of a machine's or a GPU's memory."""


def called_as(command: str) -> str:
    """Return how the user calls a command: ``lvc NAME``, or with ``python -m``.

    Args:
        command: Its module below ``experiments``, without ``command``; ``lvc`` knows it
            by the last part of that.
    """
    if Path(sys.argv[0]).stem == "lvc":
        return f"lvc {command.rpartition('.')[2]}"
    return f"python -m experiments.{command}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question for the name that was meant, or nothing if none is near."""
    close = near_names(name, known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def near_names(name: str, known: Iterable[str], most: int) -> list[str]:
    """Return the names that are near to one, whatever its case, the nearest first."""
    by_lower = {each.lower(): each for each in known}
    return [by_lower[each] for each in get_close_matches(name.lower(), by_lower, most)]


def run_command(
    command: Callable[[], int | None],
    *,
    sigterm_ends: bool = True,
    outlives_reader: bool = False,
) -> int:
    """Run a command and return its exit code.

    Args:
        command: What to do.
        sigterm_ends: Whether SIGTERM, which a cluster sends, ends it as Ctrl-C does,
            so that it clears away what is half written.
        outlives_reader: Whether it goes on when nobody reads its output any more. What
            it says on stderr, which is progress, never ends it.

    Returns:
        What the command returns, or 0; or 2 after one line ``error: ...`` on stderr
        for what the user can mend (:class:`ValueError`, :class:`OSError`,
        :class:`MemoryError`, torch's own errors of memory); or 130 after Ctrl-C or
        SIGTERM; or 141, without a word, if nobody reads its output, as of
        ``| head -1``. Any other exception is a bug and keeps its traceback.
    """
    warnings.formatwarning = _only_message
    outliving = ("stdout", "stderr") if outlives_reader else ("stderr",)
    with outliving_readers(*outliving):
        return with_reader(lambda: _run(command, sigterm_ends=sigterm_ends))


def _run(command: Callable[[], int | None], *, sigterm_ends: bool) -> int:
    try:
        with _sigterm_as_ctrl_c() if sigterm_ends else nullcontext():
            return command() or 0
    except (ValueError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and reader_has_gone():
            raise
        reason = " ".join(_reason(error).split()) or type(error).__name__
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        # Torch's own kind, which is no MemoryError.
        if not (found := OUT_OF_MEMORY.search(str(error))):
            raise
        print(
            f"error: memory ran out ({found[1] or found[0]}): choose smaller frames, "
            "crops or batches, or a machine or GPU with more",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130


def _only_message(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {message}\n"


def _reason(error: Exception) -> str:
    reason = reason_of(error)
    # A system's error names its path beside what it says.
    path = getattr(error, "filename", None)
    return reason if path is None else f"{path}: {reason}"


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, unless somebody handles it already."""
    own = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not own or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_paths(
    source: Path, target: Path | None, checkpoint: Path | None = None
) -> None:
    """Raise ``ValueError`` if there is no source, or writing would replace an input."""
    if not source.exists():
        raise ValueError(f"there is no file or directory {source}")
    if target and target.exists() and target.samefile(source):
        raise ValueError(f"IN and OUT are the same file, {source}")
    if checkpoint and checkpoint.exists() and target and target.exists():
        if target.samefile(checkpoint):
            raise ValueError(f"OUT is the checkpoint, {checkpoint}")


def check_folder(folder: Path, option: str = "--output") -> None:
    """Raise ``ValueError`` if a folder of an option is a file, or lies in one."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(
                f"{option}: {place} is a file, it must be a folder: choose another"
            )
