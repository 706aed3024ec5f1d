"""What a codec is asked to do along a video."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """At which rates frames are coded, and where units start without a reference.

    Attributes:
        rate_at: Gives the rate of a unit, checked, by the number of its first frame
            from 0.
        intra_period: Frames between starts without a reference; -1 for one only.
        resync: As ``VideoCodec.compress`` takes it.
    """

    rate_at: Callable[[int], float]
    intra_period: int = -1
    resync: Callable[[int], int] | None = None

    def starts(self, frame: int) -> bool:
        """Whether a unit that begins with this frame refers to no other."""
        return frame == 0 or (self.intra_period > 0 and frame % self.intra_period == 0)
