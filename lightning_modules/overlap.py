"""Bytes of one unit, made in a thread while networks work on the next ones.

A unit refers to the reconstruction of the one before it, never to its bytes. So a codec
gives each unit as :class:`Pending` packets: what makes its bytes of the symbols, which
may still be on their way from a device. Nothing in that depends on when it is done, so
packets are the same, bit by bit, whether it is done at once or in a thread.

One thread does all of it, in order. It ends with the generator that uses it, whatever
ends that: the last packet, an error, Ctrl-C, or a caller that wants no more.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

import torch

from lightning_modules.bitstream import Packet
from lightning_modules.clock import CodingClock, running_clock

T = TypeVar("T")
Begun = TypeVar("Begun")

AHEAD = 2
"""Units whose bytes may wait while the next one is worked on: the thread is behind at a
start without a reference, which has several times the others' bytes."""
THREAD = "entropy coder"


@dataclass(frozen=True)
class Pending:
    """A unit's packets, of which the bytes are still to be made.

    Attributes:
        make: Makes them, in any thread, once. It runs no networks, and reads nothing
            that the codec changes afterwards.
    """

    make: Callable[[], Sequence[Packet]]


class Promise(Generic[T]):
    """A result that a :class:`Background` works on."""

    def __init__(
        self, owner: "Background", future: "Future[tuple[T, CodingClock]]", given: float
    ) -> None:
        self._owner = owner
        self._future = future
        self._given = given

    def take(self) -> T:
        """Wait for the result and return it, or raise what its making raised."""
        clock = running_clock()
        begun = time.perf_counter()
        try:
            result, spent = self._future.result()
        finally:
            if clock:
                clock.seconds -= time.perf_counter() - begun
        ready = max(self._given, self._owner.free) + spent.seconds
        self._owner.free = ready
        if clock:
            clock.took_elsewhere(ready, spent)
        return result


class Background:
    """A thread that makes results one after the other, in the order of their jobs.

    A clock that runs counts for it as if the thread stood still whenever the clock
    does, so that nothing is made in time that nobody counts; see
    :meth:`CodingClock.took_elsewhere`.

    Attributes:
        free: When the thread is done with all that was taken, in the clock's seconds.
    """

    def __init__(self) -> None:
        self.free = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=THREAD)

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """End the thread when the job that it is at is done; drop the others."""
        self._pool.shutdown(cancel_futures=True)

    def submit(self, job: Callable[[], T]) -> Promise[T]:
        """Have a job done after those before it."""
        clock = running_clock()
        given = clock.elapsed() if clock else 0.0
        return Promise(self, self._pool.submit(_timed, job), given)


def _timed(job: Callable[[], T]) -> tuple[T, CodingClock]:
    # It waits for no device by itself: jobs do, for their symbols alone.
    clock = CodingClock(torch.device("cpu"))
    with clock.running():
        result = job()
    return result, clock


def in_turn(units: Iterable[Packet | Pending]) -> Iterator[Packet]:
    """Give the packets of units, whose bytes are made before the next unit begins."""
    for unit in units:
        if isinstance(unit, Pending):
            yield from unit.make()
        else:
            yield unit


def overlapped(
    units: Iterable[Packet | Pending], ahead: int = AHEAD
) -> Iterator[Packet]:
    """Give the packets of units, whose bytes are made while the next units begin.

    They come in order, and so does an error: after the packets of all units before it.

    Args:
        units: Asked for up to ``ahead`` + 1 units before the packets of the first.
        ahead: Units that may wait for their bytes, at least 1.

    Raises:
        Exception: Whatever ``units`` or the making of bytes raises.
    """
    with Background() as background:

        def begin(unit: Packet | Pending) -> Promise[Sequence[Packet]]:
            return background.submit(partial(list, in_turn([unit])))

        for promise in begun_ahead(iter(units), begin, ahead + 1):
            yield from promise.take()


def begun_ahead(
    items: Iterator[T], begin: Callable[[T], Begun], most: int
) -> Iterator[Begun]:
    """Begin the work of items before it is asked for, and give it in order.

    Args:
        items: What there is to do; an error of theirs is raised after all work that
            was begun before it.
        begin: Begins an item's work.
        most: Pieces of work that may have begun and not been given.
    """
    failure: Exception | None = None
    begun: deque[Begun] = deque()
    more = True
    while more or begun:
        while more and len(begun) < most:
            try:
                item = next(items)
            except StopIteration:
                more = False
            except Exception as error:
                failure, more = error, False
            else:
                begun.append(begin(item))
        if begun:
            yield begun.popleft()
    if failure:
        raise failure
