"""How long the rest takes, from the frames and pixels that are done."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from experiments.cli.activity import PHASES, SEARCH, Activity

NEEDED = ("encode", "decode and measure")
"""Phases that come for certain where the other of them was seen."""


@dataclass
class Pace:
    """What each phase takes, by pixel.

    Attributes:
        seconds: Of all that is finished, by phase.
        pixels: Of all that is finished.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    pixels: float = 0.0

    def add(self, pixels: float, seconds: dict[str, float]) -> None:
        """Count something finished."""
        self.pixels += pixels
        for phase, spent in seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent

    def left(
        self,
        waiting: Iterable[float],
        running: Iterable[tuple[float, Activity]],
        workers: int,
    ) -> float | None:
        """Return how many seconds the rest takes; ``None`` if nothing is known yet.

        Args:
            waiting: Pixels of each thing that was not begun.
            running: Pixels of each that was, and what is done of it.
            workers: Processes that share the work.
        """
        now = list(running)
        pace = self._by_phase(now)
        if pace is None:
            return None
        each = [_left_of(pixels, own, pace) for pixels, own in now]
        rest = sum(waiting) * sum(pace.values())
        return max([*each, (sum(each) + rest) / max(1, workers)])

    def _by_phase(
        self, running: list[tuple[float, Activity]]
    ) -> dict[str, float] | None:
        """Return seconds for a pixel, by phase."""
        if self.pixels:
            return {phase: s / self.pixels for phase, s in self.seconds.items()}
        # The first ones run: take what is known of them.
        seen: dict[str, list[float]] = {}
        for pixels, own in running:
            for phase, spent in own.seconds().items():
                if phase == own.phase:
                    each = own.seconds_per_frame()
                    spent = (each or 0.0) * (own.total or 0)
                if spent:
                    seen.setdefault(phase, []).append(spent / pixels)
        pace = {phase: sum(found) / len(found) for phase, found in seen.items()}
        known = [pace[phase] for phase in NEEDED if phase in pace]
        if known:
            pace = {**dict.fromkeys(NEEDED, known[-1]), **pace}
        return pace or None


def _share(own: Activity) -> float:
    """Return which part of its phase a process has done."""
    total = own.total
    # A search takes as many encodes as it takes.
    if own.phase == SEARCH or not total:
        return 0.0
    return min(1.0, own.frames / total)


def _left_of(pixels: float, own: Activity, pace: dict[str, float]) -> float:
    """Return how many seconds one thing still takes."""
    spent = own.seconds()
    begun = -1 if own.phase is None else PHASES.index(own.phase)
    left = 0.0
    for phase, each in pace.items():
        whole = each * pixels
        if PHASES.index(phase) > begun:
            left += whole
        elif phase == own.phase:
            # By the frames or by the clock, whichever is later.
            left += max((1 - _share(own)) * whole, whole - spent[phase], 0.0)
    return left
