"""Curves and BD numbers of whole result files: sequences, sets, and over all sets.

Both conventions of the field are computed, for they differ by several percent: the
mean of the sequences' numbers (the headline), and the number of the set's mean curve,
in which sequences with many bits weigh most.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median

from callbacks.metrics.table import METRICS
from experiments.compare.bd import NOISE, compare_curves, make_curve
from experiments.compare.comparison import Curve, Delta, Flag, Method, Row, RowKind
from experiments.results.result import Result, SequenceResult
from experiments.results.set_means import points_by_rate

MIN_FOR_OUTLIERS = 4
"""Sequences of a set below which none can be called an outlier."""

OUTLIER_DEVIATIONS = 3.5
"""Distance from the median in scaled median deviations that makes an outlier."""

OUTLIER_AT_LEAST = 0.05
"""Least such distance, in log rate (about 5 %), where all others agree closely."""

COUNTED_FLAGS = ("not_monotone", "few_points", "low_overlap", "package", "few_samples")
"""Flags of a mean's members that it repeats, with how many have them."""

Sets = Mapping[str, Sequence[str]]


def curves_of(result: Result, metric: str, sets: Sets) -> list[Curve]:
    """Return the curve of every sequence, and each set's mean curve if it has one.

    A mean curve needs the same rate points of all sequences: equal knobs, or equal
    targets in bpp. FID and KID have curves of sets only, of whichever have been pooled.
    The result has the metric, all the sequences, and pools of nothing but these.

    Raises:
        ValueError: Points cannot be a curve; see ``make_curve``.
    """
    if METRICS[metric].pooled:
        measured = [pool for pool in result.pools if metric in pool.metrics]
        return [
            make_curve(
                result.name,
                metric,
                name,
                None,
                [(p.rate, p.bpp, p.metrics[metric]) for p in own],
                min(p.samples[metric] for p in own),
            )
            for name in sets
            if (own := [p for p in measured if p.set == name])
        ]
    found = {sequence.key: sequence for sequence in result.sequences}
    curves = []
    for name, members in sets.items():
        sequences = [found[name, member] for member in members]
        for sequence in sequences:
            points = [(p.rate, p.bpp, p.metrics[metric]) for p in sequence.points]
            curves.append(make_curve(result.name, metric, name, sequence.name, points))
        means = mean_points(sequences, metric)
        if means is not None:
            curves.append(make_curve(result.name, metric, name, None, means))
    return curves


def mean_points(
    sequences: Sequence[SequenceResult], metric: str
) -> list[tuple[float, float, float]] | None:
    """Average point by point over sequences, weighted by frames.

    Returns:
        Rate knob, bpp and value of each point; ``None`` if the sequences were coded at
        different ones.
    """
    rows = points_by_rate(sequences)
    if rows is None:
        return None
    # Files of other suites need not state frames; then all weigh the same.
    stated = all(s.frames for s in sequences)
    frames = [s.frames if stated else 1 for s in sequences]

    def mean(values: Iterator[float]) -> float:
        products = (f * v for f, v in zip(frames, values, strict=True))
        return math.fsum(products) / sum(frames)

    return [
        (
            points[0].rate,
            mean(point.bpp for point in points),
            mean(point.metrics[metric] for point in points),
        )
        for points in rows
    ]


def rows_of(
    anchor: Sequence[Curve], codec: Sequence[Curve], sets: Sets, method: Method
) -> list[Row]:
    """Return all rows of one codec in one metric.

    Both codecs' curves are as :func:`curves_of` gives them for the metric and sets.
    """
    anchors, tests = ({(c.set, c.sequence): c for c in own} for own in (anchor, codec))
    names = codec[0].codec, codec[0].metric
    metric = METRICS[codec[0].metric]
    pooled = metric.pooled

    def compare(kind: RowKind, *place: *tuple[str, str | None]) -> Row:
        if place in anchors and place in tests:
            pair = anchors[place], tests[place]
            rate, quality, flags = compare_curves(*pair, method)
            return Row(*names, kind, *place, rate, quality, flags)
        reason = "its sequences were coded at different rate points"
        if pooled:
            reason = f"{metric.label} of the set was not measured of both"
        flag = Flag("not_computable", reason)
        return Row(*names, kind, *place, Delta(None), Delta(None), (flag,))

    kind: RowKind = "set_pool" if pooled else "set_curve"
    wholes = [compare(kind, name, None) for name in sets]
    if pooled:
        return [*wholes, _mean_row(names, "overall_pool", None, wholes, "sets")]
    rows, means = [], []
    for name, members in sets.items():
        own = [compare("sequence", name, member) for member in members]
        outliers = _outliers(own)
        own = [_flagged(row, outliers.get(row.sequence or "")) for row in own]
        mean = _mean_row(names, "set_mean", name, own, "sequences")
        for row in own:
            if row.sequence in outliers and mean.rate.value is not None:
                mean = _flagged(mean, _without(row, own))
        rows += own
        means.append(mean)
    overall = _mean_row(names, "overall_mean", None, means, "sets")
    curves = _mean_row(names, "overall_curve", None, wholes, "sets")
    return [*rows, *means, *wholes, overall, curves]


def _flagged(row: Row, flag: Flag | None) -> Row:
    return row if flag is None else replace(row, flags=(*row.flags, flag))


def _outliers(rows: Sequence[Row]) -> dict[str, Flag]:
    """Find the sequences of a set whose BD-rate is far from the others'."""
    logs = {
        row.sequence or "": math.log1p(row.rate.value / 100)
        for row in rows
        if row.rate.value is not None and row.rate.value > -100
    }
    if len(logs) < MIN_FOR_OUTLIERS:
        return {}
    middle = median(logs.values())
    deviation = median(abs(value - middle) for value in logs.values())
    # 1.4826 times the median deviation estimates a standard deviation.
    bound = max(OUTLIER_DEVIATIONS * 1.4826 * deviation, OUTLIER_AT_LEAST)
    text = f"the set's median is {100 * math.expm1(middle):+.1f} %"
    return {
        name: Flag("outlier", text)
        for name, value in logs.items()
        if abs(value - middle) > bound
    }


def _without(row: Row, rows: Sequence[Row]) -> Flag:
    """Say what a mean would be without one of its sequences."""
    values = [r.rate.value for r in rows if r is not row and r.rate.value is not None]
    return Flag("outlier", f"without {row.sequence} it is {fmean(values):+.1f} %")


def _mean_row(
    names: tuple[str, str],
    kind: RowKind,
    set: str | None,
    members: Sequence[Row],
    what: str,
) -> Row:
    """Average rows; those without a number are left out and named."""
    rate = _mean_delta([row.rate for row in members])
    quality = _mean_delta([row.quality for row in members])
    flags = []
    missing = [
        row.sequence or row.set or ""
        for row in members
        if row.rate.value is None or row.quality.value is None
    ]
    if rate.value is None:
        flags.append(Flag("not_computable", f"none of its {what} has a number"))
    elif missing:
        listed = ", ".join(missing)
        text = f"{len(missing)} of {len(members)} {what} lack a number: {listed}"
        flags.append(Flag("incomplete", text))
    for kind_of_flag in COUNTED_FLAGS:
        count = sum(any(f.kind == kind_of_flag for f in r.flags) for r in members)
        if count:
            flags.append(Flag(kind_of_flag, f"{count} of {len(members)} {what}"))
    if rate.value is not None and abs(rate.value) < NOISE:
        flags.append(Flag("noise", f"|{rate.value:.2f} %| is below {NOISE:g} %"))
    return Row(*names, kind, set, None, rate, quality, tuple(flags))


def _mean_delta(deltas: Sequence[Delta]) -> Delta:
    known = [d for d in deltas if d.value is not None]
    overlaps = [d.overlap for d in deltas if d.overlap is not None]
    return Delta(
        _mean([d.value for d in known]),
        _mean([d.low for d in known]),
        _mean([d.high for d in known]),
        min(overlaps, default=None),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if there is nothing or something is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
