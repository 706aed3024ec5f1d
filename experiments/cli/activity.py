"""What a process does now, which another process may look at."""

import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")

SEARCH, ENCODE, DECODE, ESTIMATE, MEASURE, TEST, SEND, STORE = PHASES = (
    "search of the rate",
    "encode",
    "decode and measure",
    "estimate and measure",
    "measure",
    "code and decode",
    "send and show",
    "decode and store",
)
"""What may be done with a video, in this order."""

_PHASE, _FRAMES, _TOTAL, _BEGAN, _FIRST, _SECONDS = range(6)


class Activity:
    """The phase of one process's work, its frames, and the time that phases took.

    It lies in shared memory: a process that is spawned with :attr:`shared` and calls
    :meth:`share` writes what its parent reads.
    """

    def __init__(self) -> None:
        self.shared: Any = get_context("spawn").RawArray("d", _SECONDS + len(PHASES))
        self.clear()

    def share(self, shared: Any) -> None:
        """Write to the memory of another process's activity from now on."""
        self.shared = shared

    def clear(self) -> None:
        """Forget everything; nothing is done."""
        for place in range(len(self.shared)):
            self.shared[place] = 0.0

    def start(self, phase: str, frames: int | None = None) -> None:
        """Begin a phase, or go on with it.

        Args:
            phase: One of ``PHASES``.
            frames: How many it takes, if that is known.
        """
        self.stop()
        self.shared[_FRAMES], self.shared[_TOTAL] = 0, frames or 0
        self.shared[_BEGAN] = time.monotonic()
        self.shared[_PHASE] = 1 + PHASES.index(phase)

    def stop(self) -> None:
        """End the phase."""
        if self.phase is not None:
            place = _SECONDS + PHASES.index(self.phase)
            self.shared[place] += time.monotonic() - self.shared[_BEGAN]
            self.shared[_PHASE] = 0

    def step(self) -> None:
        """Count a frame."""
        self.shared[_FRAMES] += 1
        if self.shared[_FRAMES] == 1:
            self.shared[_FIRST] = time.monotonic()

    def count(self, frames: Iterable[T], *phases: str) -> Iterator[T]:
        """Pass frames through, and count them in these phases."""
        for frame in frames:
            yield frame
            if self.phase in phases:
                self.step()

    @property
    def phase(self) -> str | None:
        """One of ``PHASES``; ``None`` if nothing is done."""
        number = int(self.shared[_PHASE])
        return PHASES[number - 1] if number else None

    @property
    def frames(self) -> int:
        """How many the phase has done."""
        return int(self.shared[_FRAMES])

    @property
    def total(self) -> int | None:
        """How many the phase takes, if that is known."""
        return int(self.shared[_TOTAL]) or None

    def seconds(self) -> dict[str, float]:
        """Return what each phase took so far, of those that took any time."""
        spent = dict(zip(PHASES, self.shared[_SECONDS:], strict=True))
        if self.phase is not None:
            spent[self.phase] += time.monotonic() - self.shared[_BEGAN]
        return {phase: seconds for phase, seconds in spent.items() if seconds}

    def seconds_per_frame(self) -> float | None:
        """Return what a frame takes in this phase, if that can be said.

        The first frame does not count: a process or a compiler may start for it.
        """
        frames, total = self.frames, self.total
        # With all frames an encoder works on what it has: for how long, nobody knows.
        if self.phase is None or not total or not 1 < frames < total:
            return None
        return (time.monotonic() - self.shared[_FIRST]) / (frames - 1)

    def __str__(self) -> str:
        """Say phase and frames."""
        phase, frames, total = self.phase, self.frames, self.total
        if phase is None:
            return "begins"
        if phase == MEASURE:
            return phase
        if total is None:
            return f"{phase}, {frames} frames"
        if phase == ENCODE and frames >= total:
            # A reference encoder takes them all at once, and hours then.
            return f"{phase}, all {total} frames given"
        return f"{phase}, {min(frames, total)}/{total} frames"


@lru_cache(maxsize=1)
def activity() -> Activity:
    """Return this process's own."""
    return Activity()
