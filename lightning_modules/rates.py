"""The rate that a codec codes at: its own knob, and its values along a video."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real


@dataclass(frozen=True)
class RateKnob:
    """A codec's own rate control: its unit, its range, the points it is tested at.

    Attributes:
        name: The word for it in commands and log keys, for example ``"qp"``.
        low: Smallest value (fewest bits).
        high: Largest value (most bits).
        points: The values the paper reports, from few bits to many.
    """

    name: str
    low: float
    high: float
    points: tuple[float, ...]

    def check(self, value: float) -> float:
        """Return ``value`` if the codec can code at it.

        Raises:
            ValueError: It is out of range, or no number.
        """
        if not isinstance(value, Real) or not self.low <= value <= self.high:
            if self.low == self.high:
                raise ValueError(
                    f"rate {value} is not possible: this model has one rate, "
                    f"{self.name} {self.low:g}"
                )
            raise ValueError(
                f"rate {value} is not possible: {self.name} is a number from "
                f"{self.low:g} (fewest bits) to {self.high:g} (most bits)"
            )
        return value


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
