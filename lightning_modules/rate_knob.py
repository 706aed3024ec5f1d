"""A codec's own control of its rate."""

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
