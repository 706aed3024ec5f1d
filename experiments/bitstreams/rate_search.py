"""Find the rate at which a codec spends what was asked for, in few encodes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_modules.codec import RateKnob


@dataclass(frozen=True)
class Trial:
    """One encode: its rate, what it cost, and how far that is from the target.

    Attributes:
        rate: In the unit of the codec's knob.
        cost: In the target's unit.
        error: Natural logarithm of cost over target; negative is too cheap.
    """

    rate: float
    cost: float
    error: float


@dataclass(frozen=True)
class RateSearch:
    """What a search found.

    Attributes:
        rate: Of the trial that came closest.
        cost: Of the same trial, in the target's unit.
        deviation: Of its cost from the target, relative to the target.
        met: Whether that is within the tolerance.
        trials: All encodes, in order.
    """

    rate: float
    cost: float
    deviation: float
    met: bool
    trials: tuple[Trial, ...]


def deviation(cost: float, target: float) -> float:
    """Return by what share of the target a cost exceeds it; negative: falls short."""
    return cost / target - 1


def check_target(knob: "RateKnob", target: float, unit: str) -> None:
    """Refuse a target that no search can meet.

    Args:
        knob: The codec's.
        target: What it shall cost.
        unit: Name of the target's unit, for messages.

    Raises:
        ValueError: It is no positive number, or the codec has one rate only.
    """
    if not 0 < target < math.inf:
        raise ValueError(f"a target of {target:g} {unit} is not possible: give one > 0")
    if knob.low == knob.high:
        raise ValueError(
            f"a target of {target:g} {unit} cannot be searched: this model has one "
            f"rate, {knob.name} {knob.low:g}; leave the target out"
        )


def search_rate(
    encode: Callable[[float], float],
    knob: "RateKnob",
    target: float,
    *,
    unit: str = "bpp",
    tolerance: float = 0.01,
    max_encodes: int = 8,
    guess: float | None = None,
) -> RateSearch:
    """Search the rate at which encoding costs as much as the target.

    Costs grow about exponentially with a knob, so secants are drawn through their
    logarithm. Once there are trials on both sides of the target, the next rate always
    lies between two neighbours of them, so a codec whose costs do not always rise is
    no trap.

    Args:
        encode: Codes at a rate and returns the cost, > 0.
        knob: The codec's; more is more bits, as a rule.
        target: What it shall cost, > 0, in the unit of ``encode``'s costs.
        unit: Name of that unit, for messages.
        tolerance: Deviation that is good enough, relative to the target.
        max_encodes: Number of encodes after which the closest has to do.
        guess: Rate to begin with; by default the middle of the knob's points.

    Raises:
        ValueError: See :func:`check_target`, or the codec costs less, or more, at both
            ends of its knob.
    """
    check_target(knob, target, unit)
    rate = median(knob.points) if guess is None else guess
    rate = min(max(rate, knob.low), knob.high)
    trials: list[Trial] = []
    while True:
        cost = encode(rate)
        trials.append(Trial(rate, cost, math.log(cost / target)))
        best = min(trials, key=lambda trial: abs(deviation(trial.cost, target)))
        met = abs(deviation(best.cost, target)) <= tolerance
        if met or len(trials) == max_encodes:
            off = deviation(best.cost, target)
            return RateSearch(best.rate, best.cost, off, met, tuple(trials))
        bracket = _bracket(trials)
        if bracket is None:
            rate = _towards(trials, knob, target, unit)
        else:
            rate = _between(trials, *bracket)


def _bracket(trials: Sequence[Trial]) -> tuple[Trial, Trial] | None:
    """Return the two closest neighbours with the target between their costs."""
    ordered = sorted(trials, key=lambda trial: trial.rate)
    around = [(a, b) for a, b in pairwise(ordered) if (a.error < 0) != (b.error < 0)]
    return min(around, key=lambda pair: pair[1].rate - pair[0].rate, default=None)


def _between(trials: Sequence[Trial], a: Trial, b: Trial) -> float:
    """Return where the secant crosses the target, or the middle if secants creep.

    When both last trials fell to one side, the other end's error counts half, which
    takes the next trial across; unless the last hardly came closer: then it bisects.

    Source: M. Dowell and P. Jarratt, BIT 11 (1971), the Illinois method.
    """
    before, last = trials[-2:]
    a_error, b_error = a.error, b.error
    if (before.error < 0) == (last.error < 0):
        if abs(last.error) > abs(before.error) / 2:
            return (a.rate + b.rate) / 2
        a_error /= 1 if last is a else 2
        b_error /= 1 if last is b else 2
    return a.rate + (b.rate - a.rate) * a_error / (a_error - b_error)


def _towards(
    trials: Sequence[Trial], knob: "RateKnob", target: float, unit: str
) -> float:
    """Return a rate beyond all trials, which are all too cheap or all too dear."""
    more = trials[0].error < 0
    near, far = (knob.high, knob.low) if more else (knob.low, knob.high)
    tried = {trial.rate: trial.cost for trial in trials}
    if near in tried:
        # The target is not where it should be, so perhaps the codec is reversed.
        if far not in tried:
            return far
        raise ValueError(
            f"a target of {target:g} {unit} is out of the codec's reach here: it takes "
            f"{tried[knob.low]:.4g} {unit} at {knob.name} {knob.low:g} and "
            f"{tried[knob.high]:.4g} {unit} at {knob.name} {knob.high:g}"
        )
    sign = 1 if more else -1
    if len(trials) == 1:
        points = [p for p in knob.points if sign * p > sign * trials[0].rate]
        return min(points, key=lambda point: sign * point, default=near)
    a, b = sorted(trials, key=lambda trial: sign * trial.rate)[-2:]
    slope = (b.error - a.error) / (b.rate - a.rate)
    if slope <= 0 or sign * (b.rate - b.error / slope) >= sign * near:
        return near
    return b.rate - b.error / slope
