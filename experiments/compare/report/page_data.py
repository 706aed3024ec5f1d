"""What the page's script draws, as plain values for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import ROW_KINDS, Comparison
from experiments.compare.report.pictures import embed_pictures
from experiments.compare.report.plots import looks_of, plotted_metrics
from experiments.compare.report.strips import (
    LOG_RATIO,
    comparable_points,
    per_frame_points,
)
from experiments.results.drawing.figures import LOG_RANGE
from experiments.results.result import Point, Result

FRAME_NUMBERS = 2_000_000
"""Values per frame in the page; some 6 characters each."""


def make_page_data(comparison: Comparison, results: Sequence[Result]) -> dict[str, Any]:
    """Return everything the page's script needs; codecs are numbered as the results."""
    numbers = {name: number for number, name in enumerate(comparison.names)}
    frames, frames_note = _frames(comparison, results, numbers)
    pictures, pictures_note = embed_pictures(comparison, results)
    return {
        "codecs": [
            {"name": name, "marker": look.marker, "dashes": look.dashes}
            for name, look in looks_of(comparison).items()
        ],
        "metrics": {
            metric: {
                "name": METRICS[metric].label,
                "unit": METRICS[metric].unit,
                "higher": METRICS[metric].higher_is_better,
            }
            for metric in comparison.metrics
        },
        "headline": comparison.headline,
        "kinds": ROW_KINDS,
        "sets": comparison.sets,
        "log_range": LOG_RANGE,
        "log_ratio": LOG_RATIO,
        "curves": _curves(comparison, results, numbers),
        "rows": _rows(comparison, numbers),
        "frames": frames,
        "frames_note": frames_note,
        "pictures": pictures,
        "pictures_note": pictures_note,
    }


def _curves(
    comparison: Comparison, results: Sequence[Result], numbers: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Gather the curves of all metrics over the same points."""
    kbps = {
        (result.name, *sequence.key, point.rate): point.kbps
        for result in results
        for sequence, point in result.all_points()
    }
    gathered: dict[tuple[Any, ...], dict[str, Any]] = {}
    for curve in comparison.curves:
        # FID may have been measured at fewer rates than the other metrics.
        key = curve.codec, curve.set, curve.sequence, curve.rates, curve.bpp
        if key not in gathered:
            place = curve.codec, curve.set, curve.sequence or ""
            speeds = [kbps.get((*place, rate)) for rate in curve.rates]
            gathered[key] = {
                "codec": numbers[curve.codec],
                "set": curve.set,
                "sequence": curve.sequence,
                "rates": curve.rates,
                "bpp": curve.bpp,
                "kbps": None if None in speeds else speeds,
                "quality": {},
                "left_out": {},
            }
        gathered[key]["quality"][curve.metric] = curve.quality
        if curve.left_out:
            gathered[key]["left_out"][curve.metric] = curve.left_out
    return list(gathered.values())


def _rows(comparison: Comparison, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "codec": numbers[row.codec],
            "metric": row.metric,
            "kind": row.kind,
            "set": row.set,
            "sequence": row.sequence,
            "rate": row.rate.numbers(),
            "quality": row.quality.numbers(),
            "flags": [
                f"{flag.kind.replace('_', ' ')}: {flag.text}" for flag in row.flags
            ],
        }
        for row in comparison.rows
    ]


def _frames(
    comparison: Comparison, results: Sequence[Result], numbers: Mapping[str, int]
) -> tuple[list[dict[str, Any]], str]:
    """Return values per frame, the closest comparable rates first if room is short."""
    entries: list[dict[str, Any]] = []
    for place in comparison.places():
        points = per_frame_points(results, *place)
        closest = comparable_points(points)
        entries += [
            {
                "codec": numbers[codec],
                "set": place[0],
                "sequence": place[1],
                "rate": point.rate,
                "bpp": point.bpp,
                "closest": point is closest[codec],
                "series": _series(point, comparison.metrics),
            }
            for codec, own in points.items()
            for point in own
        ]
    room, chosen = FRAME_NUMBERS, set()
    for number in sorted(range(len(entries)), key=lambda n: not entries[n]["closest"]):
        room -= sum(map(len, entries[number]["series"].values()))
        if room < 0:
            break
        chosen.add(number)
    note = "Hover over a frame, or focus the chart and use the arrow keys."
    if len(chosen) < len(entries):
        note += (
            f" {len(entries) - len(chosen)} of {len(entries)} points were left out to "
            "keep the page small."
        )
    return [entries[number] for number in sorted(chosen)], note


def _series(point: Point, metrics: Sequence[str]) -> dict[str, list[float]]:
    shown = [m for m in plotted_metrics(metrics) if m in point.per_frame]
    return {
        "bits": [round(bits) for bits in point.per_frame["bits"]],
        **{m: [float(f"{v:.5g}") for v in point.per_frame[m]] for m in shown},
    }
