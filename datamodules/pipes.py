"""Pipes: what is read, or written, once and in order.

They are FIFOs, what a shell makes of ``<(...)``, and the standard input and output,
which are also called ``-`` and, as FFmpeg calls them, ``pipe:0`` and ``pipe:1``.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any

from datamodules.video_reader import VideoError

STDIN, STDOUT = Path("/dev/stdin"), Path("/dev/stdout")

# Enough to tell a format, and where a Matroska file says that it ends.
HEAD_BYTES = 4096

SAVE_FIRST = "a pipe, which can be read only once: save it to a file first"
"""What a pipe is, and what to do, where something is read several times."""


def as_input(path: Path) -> Path:
    """Return ``STDIN`` for what names it, the file where that is one, else the path.

    A file that is called ``-`` is that file.
    """
    if path != STDIN and (str(path) not in ("-", "pipe:", "pipe:0") or path.exists()):
        return path
    # Read under its own name, which says what it holds, and as often as needed.
    behind = Path(os.path.realpath(STDIN))
    return behind if behind.is_file() else STDIN


def as_output(path: Path) -> Path:
    """Return ``STDOUT`` for what names it, else the path."""
    return STDOUT if str(path) in ("-", "pipe:", "pipe:1") else path


def is_pipe(path: Path) -> bool:
    """Tell whether something stands there that is no file and no directory."""
    return path.exists() and not (path.is_file() or path.is_dir())


class PipedInput(BufferedReader):
    """The bytes of a pipe; :meth:`peek` shows as many as ``HEAD_BYTES`` at first."""

    def __init__(self, file: IO[bytes]) -> None:
        self._counted = _Counted(file)
        super().__init__(self._counted, HEAD_BYTES)

    def count_rest(self) -> int:
        """Read to the end; return how many bytes there were from the beginning."""
        while self.read(1 << 20):
            pass
        return self._counted.count


class _Counted(RawIOBase):
    """A file's bytes, the first ``HEAD_BYTES`` of them in one piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file: Any = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._file.readinto1 if self.count else self._file.readinto
        count: int = read(buffer)
        self.count += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_piped_input(path: Path) -> PipedInput:
    """Open a pipe to read; waits for who writes into it, and says so.

    Raises:
        VideoError: It is a terminal.
        OSError: It cannot be read.
    """
    print(f"reading {path}, a pipe, as long as something writes", file=sys.stderr)
    # Under its name a socket could not be opened.
    file = open(os.dup(0) if path == STDIN else path, "rb")
    if file.isatty():
        file.close()
        raise VideoError(f"{path} is a terminal: pipe a video in, or name a file")
    return PipedInput(file)


@contextmanager
def piped_output(path: Path) -> Iterator[IO[bytes]]:
    """Open a pipe to write; waits for who reads from it, and says so.

    Raises:
        VideoError: It is a terminal, or a named pipe whose reader has gone.
        BrokenPipeError: It is the standard output, whose reader has gone.
        OSError: It cannot be written.
    """
    print(f"writing into {path}, as long as something reads", file=sys.stderr)
    try:
        with open(os.dup(1) if path == STDOUT else path, "wb") as file:
            if file.isatty():
                raise VideoError(f"{path} is a terminal: pipe it on, or name a file")
            yield file
    except BrokenPipeError as error:
        if path == STDOUT:
            # A command ends then without a word, as of ``| head``.
            raise
        raise VideoError(f"who read from {path} has gone before its end") from error
