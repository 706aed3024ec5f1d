"""A command from its start to its exit code, and the paths that it is given."""

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

OUT_OF_MEMORY = re.compile(
    r"(?:out of memory|can't allocate memory)(?:.*?(tried to allocate [\d.]+ \w+))?",
    re.I | re.S,
)
"""What torch says of a machine's or a GPU's memory."""


def run_command(command: Callable[[], int | None], *, sigterm_ends: bool = True) -> int:
    """Run a command and return its exit code.

    Args:
        command: What to do.
        sigterm_ends: Whether SIGTERM, which a cluster sends, ends it as Ctrl-C does,
            so that it clears away what is half written.

    Returns:
        What the command returns, or 0; or 2 after one line ``error: ...`` on stderr
        for what the user can mend (:class:`ValueError`, :class:`OSError`,
        :class:`MemoryError`, torch's own errors of memory); or 130 after Ctrl-C or
        SIGTERM. Any other exception is a bug and keeps its traceback.
    """
    try:
        with _sigterm_as_ctrl_c() if sigterm_ends else nullcontext():
            return command() or 0
    except (ValueError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
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


def check_folder(folder: Path) -> None:
    """Raise ``ValueError`` if a folder of --output is a file, or lies in one."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(
                f"--output: {place} is a file, it must be a folder: choose another"
            )
