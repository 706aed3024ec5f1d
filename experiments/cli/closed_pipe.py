"""Output whose reader has gone, as of ``... | head -1``."""

import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGPIPE_CODE = 128 + 13
"""What a shell says of a program that a closed pipe ended."""


class _Outliving(io.FileIO):
    """A file whose writes go on into nothing once nobody reads them."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return memoryview(data).nbytes


@contextmanager
def outliving_readers(*names: str) -> Iterator[None]:
    """Let this process write to streams whose readers have gone, without an error.

    Hours of work must not be lost because somebody looked at their first line only.
    Streams that are not the process's own, as in a test, stay as they are.

    Args:
        names: ``stdout``, ``stderr``.
    """
    before: dict[str, Any] = {}
    for name in names:
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        before[name] = stream
        raw = _Outliving(stream.fileno(), "w", closefd=False)
        wrapped = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=True,
        )
        setattr(sys, name, wrapped)
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


def with_reader(command: Callable[[], int]) -> int:
    """Run a command; end it without a word once nobody reads its output.

    Returns:
        What the command returns, or ``SIGPIPE_CODE``.
    """
    try:
        try:
            return command()
        finally:
            # Now: the interpreter would complain at its end.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not reader_has_gone():
            raise
        # What is still in the buffer would raise again.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
        return SIGPIPE_CODE


def reader_has_gone() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        # There is none, or it is no file.
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
