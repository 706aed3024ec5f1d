"""Bjøntegaard deltas of two curves: checked, with error bars and caveats.

A delta is the mean distance of two curves over the part of an axis that both cover:
in log rate at equal quality (BD-rate, in %), or in quality at equal log rate
(BD-quality). Between points a curve is what the ``bjontegaard`` package interpolates.
A curve can also be read off at a fixed rate.

Source: VCEG-M33 (cubic), JCTVC-L1100 (pchip), arXiv 2202.12565 (akima); fixed rates
follow arXiv 2410.02598, section 7.2 and Fig. 10 (PSNR of motion patterns at one bpp).
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import Curve, Delta, Flag, Method, QualityAt

MIN_POINTS: dict[Method, int] = {"pchip": 3, "akima": 4, "cubic": 4}
"""Fewest points of a curve that a number is computed from.

A cubic polynomial has four unknowns; Akima's slopes look two points to each side, so
with three points none of them comes from data alone.
"""

MIN_OVERLAP = 75.0
"""Shared part of the axis, in %, below which a number is flagged; the package's own."""

NOISE = 1.0
"""BD-rates below this, in %, say nothing: even and odd QPs of one encoder, whose true
difference is 0, gave 0.96 % on average (VTM 17, 53 sequences, pchip, 4 points)."""

Points: TypeAlias = tuple[list[float], list[float]]


def make_curve(
    codec: str,
    metric: str,
    set: str,
    sequence: str | None,
    points: Sequence[tuple[float, float, float]],
    samples: int | None = None,
) -> Curve:
    """Order points by bits and mark those that no interpolation should follow.

    A point that has no fewer bits and no more quality than another one is left out of
    BD numbers: nobody would use it, and through it no curve is a function of quality.
    Rates and qualities are never sorted apart from each other. Leaving it out favours
    the codec, so it is flagged.

    Points are (rate knob, bpp, value of the metric), in any order; everything else is
    as :class:`Curve` has it.

    Raises:
        ValueError: A bpp is not positive, a value not finite, or two points have the
            same bpp.
    """
    where = f"{codec}, {set}/{sequence or 'mean curve'}, {metric}"
    for rate, bpp, value in points:
        if not (math.isfinite(bpp) and bpp > 0 and math.isfinite(value)):
            raise ValueError(
                f"{where}: the point at rate {rate:g} has {bpp:g} bpp and value "
                f"{value:g}; bits must be positive and both finite: measure it again"
            )
    ordered = sorted(points, key=lambda point: point[1])
    for (rate, bpp, _), (other, next_bpp, _) in pairwise(ordered):
        if bpp == next_bpp:
            raise ValueError(
                f"{where}: the points at rates {rate:g} and {other:g} both have "
                f"{bpp:g} bpp: remove one of them from the file"
            )
    sign = _sign(metric)
    left_out = []
    best = -math.inf
    for index, (_, _, value) in enumerate(ordered):
        if sign * value > best:
            best = sign * value
        else:
            left_out.append(index)
    rates, bpps, values = zip(*ordered, strict=True) if ordered else ((), (), ())
    return Curve(
        codec, metric, set, sequence, rates, bpps, values, tuple(left_out), samples
    )


def compare_curves(
    anchor: Curve, test: Curve, method: Method
) -> tuple[Delta, Delta, tuple[Flag, ...]]:
    """Return the BD-rate and BD-quality of a curve against its anchor.

    The error bar is the range of the numbers when each point of each curve is left out
    in turn: how much the choice of rate points decides.

    Returns:
        BD-rate in %, BD-quality in the metric's unit and direction, and their caveats.
    """
    flags = [flag for c in (anchor, test) for flag in _curve_flags(c, method)]
    few = [c for c in (anchor, test) if len(c.kept) < MIN_POINTS[method]]
    if few:
        reason = " and ".join(f"{c.codec} has {len(c.kept)}" for c in few)
        text = f"{method} needs {MIN_POINTS[method]} points of each curve, {reason}"
        return Delta(None), Delta(None), (*flags, Flag("not_computable", text))
    a, b = _used(anchor), _used(test)
    sign = _sign(anchor.metric)

    def directed(quality: float) -> float:
        return sign * quality

    rate = _delta("quality", a, b, method, _percent, directed, flags)
    quality = _delta("rate", a, b, method, directed, lambda log: 10**log, flags)
    if rate.value is not None and abs(rate.value) < NOISE:
        flags.append(Flag("noise", f"|{rate.value:.2f} %| is below {NOISE:g} %"))
    return rate, quality, tuple(flags)


def _sign(metric: str) -> int:
    return 1 if METRICS[metric].higher_is_better else -1


def _used(curve: Curve) -> Points:
    """Return the log10 rates and the qualities, rising, that numbers are made from."""
    sign = _sign(curve.metric)
    return (
        [math.log10(curve.bpp[i]) for i in curve.kept],
        [sign * curve.quality[i] for i in curve.kept],
    )


def _curve_flags(curve: Curve, method: Method) -> list[Flag]:
    flags = []
    if curve.left_out:
        rates = ", ".join(f"{curve.rates[i]:g}" for i in curve.left_out)
        text = (
            f"{curve.codec}: {len(curve.left_out)} of {len(curve.bpp)} points (rate "
            f"{rates}) have more bits and no more quality than another; left out, "
            f"which favours {curve.codec}"
        )
        flags.append(Flag("not_monotone", text))
    count = len(curve.kept)
    if count == MIN_POINTS[method]:
        text = f"{curve.codec} has {count} points, the least that {method} takes"
        flags.append(Flag("few_points", text))
    metric = METRICS[curve.metric]
    if curve.samples is not None and curve.samples < metric.fewest_samples:
        text = f"{curve.codec}: {metric.label} of {curve.samples} pictures is biased "
        text += "upwards"
        flags.append(Flag("few_samples", text))
    return flags


def _delta(
    axis: str,
    anchor: Points,
    test: Points,
    method: Method,
    unit: Callable[[float], float],
    end: Callable[[float], float],
    flags: list[Flag],
) -> Delta:
    """Compute a delta with its range and overlap; append its caveats to ``flags``.

    The ``axis`` is equal in both curves: ``quality`` or ``rate``. ``unit`` turns the
    mean distance, and ``end`` an end of the axis, into what is reported.
    """
    # The package imports matplotlib, which takes a second.
    from bjontegaard import bd_linear

    x, y = (1, 0) if axis == "quality" else (0, 1)
    asked = {"method": method, "require_matching_points": False, "min_overlap": 0}

    def distance(a: Points, b: Points) -> float:
        """Return the mean of b minus a over the part of x that both cover."""
        return unit(float(bd_linear(a[x], a[y], b[x], b[y], **asked)))

    ends = _shared(anchor[x], test[x])
    if ends is None:
        text = f"the curves have no {axis} in common"
        flags.append(Flag("not_computable", text))
        return Delta(None, overlap=0.0)
    together = max(anchor[x][-1], test[x][-1]) - min(anchor[x][0], test[x][0])
    overlap = 100 * (ends[1] - ends[0]) / together
    low, high = sorted(map(end, ends))
    whole = Delta(None, None, None, overlap, (low, high))
    if overlap < MIN_OVERLAP:
        flags.append(Flag("low_overlap", f"{overlap:.0f} % of the {axis} axis"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = distance(anchor, test)
    for message in dict.fromkeys(str(w.message) for w in caught):
        flags.append(Flag("package", f"at equal {axis}: {message}"))
    if not math.isfinite(value):
        flags.append(Flag("not_computable", f"{method} at equal {axis} gives {value}"))
        return whole
    pairs = [(shorter, test) for shorter in _without_one(anchor, method)]
    pairs += [(anchor, shorter) for shorter in _without_one(test, method)]
    if any(_shared(a[x], b[x]) is None for a, b in pairs):
        text = f"without one of the points the curves have no {axis} in common"
        flags.append(Flag("low_overlap", text))
        pairs = []
    with warnings.catch_warnings():
        # They repeat what the whole curves' warnings said.
        warnings.simplefilter("ignore")
        others = [distance(a, b) for a, b in pairs]
    whole = replace(whole, value=value)
    if not others or not all(map(math.isfinite, others)):
        return whole
    return replace(whole, low=min(value, *others), high=max(value, *others))


def _without_one(points: Points, method: Method) -> list[Points]:
    """Return the points without each of them in turn, if one can be spared."""
    count = len(points[0])
    if count - 1 < MIN_POINTS[method]:
        return []
    rates, values = points
    return [
        (rates[:i] + rates[i + 1 :], values[:i] + values[i + 1 :]) for i in range(count)
    ]


def _shared(a: Sequence[float], b: Sequence[float]) -> tuple[float, float] | None:
    """Return from where to where two rising axes are both covered, if anywhere."""
    low, high = max(a[0], b[0]), min(a[-1], b[-1])
    return (low, high) if low < high else None


def _percent(log10_ratio: float) -> float:
    try:
        return 100 * math.expm1(math.log(10) * log10_ratio)
    except OverflowError:
        return math.inf


def qualities_at(
    curves: Iterable[Curve], rates: Sequence[float]
) -> tuple[QualityAt, ...]:
    """Read every set's mean curve off at every rate, in bits per pixel.

    Raises:
        ValueError: A rate is not above 0.
    """
    for bpp in rates:
        if not (math.isfinite(bpp) and bpp > 0):
            raise ValueError(f"a curve has no quality at {bpp:g} bpp: give more than 0")
    return tuple(
        QualityAt(c.codec, c.metric, c.set, bpp, quality_at(c, bpp))
        for c in curves
        if c.sequence is None
        for bpp in rates
    )


def quality_at(curve: Curve, bpp: float) -> float | None:
    """Return a curve's quality at a rate, ``None`` where the curve does not reach.

    Between points it is the monotone cubic (pchip) over log rate that BD numbers use,
    through the points that those use.
    """
    from scipy.interpolate import PchipInterpolator

    kept = curve.kept
    # Between fewer points lies nothing.
    if len(kept) < 2 or not curve.bpp[kept[0]] <= bpp <= curve.bpp[kept[-1]]:
        return None
    logs = [math.log(curve.bpp[i]) for i in kept]
    interpolated = PchipInterpolator(logs, [curve.quality[i] for i in kept])
    return float(interpolated(math.log(bpp)))
