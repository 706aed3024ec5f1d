"""How long a codec computes, and how much of that is entropy coding.

Codecs are generators, so a clock runs only while one of them computes its next item:
what happens while it waits, or while it reads its source, is never counted::

    clock = CodingClock(device)
    for packet in clock.watch(codec.compress(clock.pause(frames), rate)):
        ...  # not counted
    clock.seconds, clock.network_seconds, clock.entropy_seconds

Where bytes are made in a thread beside the networks, the two parts add up to more than
the whole; see :meth:`CodingClock.took_elsewhere`.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class CodingClock:
    """Adds up wall seconds; several may run in turns, or one within another.

    Args:
        device: Where the networks run. CUDA is waited for whenever a span begins or
            ends, so that each span has its own work; coding is a little slower then.

    Attributes:
        seconds: Within :meth:`watch` or :meth:`running`, not within :meth:`pause`.
        entropy_seconds: Those within :func:`entropy_coding`, in any thread.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self.entropy_seconds = 0.0
        self._elsewhere = 0.0
        self._waited = 0.0
        self._since = 0.0
        self._device = device

    @property
    def network_seconds(self) -> float:
        """Seconds in which the caller neither codes symbols nor waits for them."""
        return self.seconds - self._waited - (self.entropy_seconds - self._elsewhere)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of a block."""
        token = _RUNNING.set(self)
        self._since = start = self.now()
        try:
            yield
        finally:
            self.seconds += self.now() - start
            _RUNNING.reset(token)

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """Pass items through; count the time that making each of them takes."""
        source = iter(items)
        while True:
            # For the span only: a generator that waits must not leave it running.
            with self.running():
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def pause(self, items: Iterable[T]) -> Iterator[T]:
        """Pass items to what is watched; do not count the time that they take."""
        source = iter(items)
        while True:
            start = self.now()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.seconds -= self.now() - start
            yield item

    def elapsed(self) -> float:
        """Return the seconds so far, those of the block that runs too.

        The device is not waited for.
        """
        return self.seconds + time.perf_counter() - self._since

    def took_elsewhere(self, ready: float, spent: "CodingClock") -> None:
        """Count what another thread made, of which the caller needs the result now.

        The wait is the one of a caller that takes all results at once: what a thread
        makes while this clock stands still would be free otherwise.

        Args:
            ready: When it would have been done if the thread had worked only while
                this clock ran, by :meth:`elapsed`.
            spent: What it took there.
        """
        wait = max(0.0, ready - self.elapsed())
        self.seconds += wait
        self._waited += wait
        self.entropy_seconds += spent.entropy_seconds
        self._elsewhere += spent.entropy_seconds

    def now(self) -> float:
        """Return seconds on a clock of the whole machine, when all work is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@contextmanager
def uncounted(unless: bool = False) -> Iterator[None]:
    """Leave a block out of the time of the clock that runs, if one does.

    For what an encoder computes only to show its reconstruction.

    Args:
        unless: Count it all the same.
    """
    clock = None if unless else _RUNNING.get()
    if clock is None:
        yield
        return
    start = clock.now()
    try:
        yield
    finally:
        clock.seconds -= clock.now() - start


@contextmanager
def unwatched() -> Iterator[None]:
    """Let no clock look within a block: one would wait for the device."""
    token = _RUNNING.set(None)
    try:
        yield
    finally:
        _RUNNING.reset(token)


_RUNNING: ContextVar[CodingClock | None] = ContextVar("running_clock", default=None)


def running_clock() -> CodingClock | None:
    """Return the clock that runs in this thread, if one does."""
    return _RUNNING.get()


def entropy_coding(function: Callable[P, R]) -> Callable[P, R]:
    """Count a function's time as entropy coding on the clock that runs, if one does."""

    @wraps(function)
    def timed(*args: P.args, **kwargs: P.kwargs) -> R:
        clock = _RUNNING.get()
        if clock is None:
            return function(*args, **kwargs)
        start = clock.now()
        try:
            return function(*args, **kwargs)
        finally:
            clock.entropy_seconds += clock.now() - start

    return timed
