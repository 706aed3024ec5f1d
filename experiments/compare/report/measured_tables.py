"""Measured values by rate: temporal metrics, and a paper's rows beside ours."""

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import Comparison
from experiments.compare.report.bd_tables import NO_NUMBER
from experiments.results.drawing.tables import Table, metric_name, numbers, words


def temporal_table(comparison: Comparison) -> Table:
    """What neighbouring frames differ by, at each rate of each set's mean curve."""
    metrics = [
        name
        for name in comparison.metrics
        if METRICS[name].pairs or METRICS[name].boundary_of
    ]
    values: dict[tuple[str, str, float, float], dict[str, float]] = {}
    for curve in comparison.curves:
        if curve.sequence is None and curve.metric in metrics:
            points = zip(curve.rates, curve.bpp, curve.quality, strict=True)
            for rate, bpp, quality in points:
                place = (curve.codec, curve.set, rate, bpp)
                values.setdefault(place, {})[curve.metric] = quality
    return Table(
        "Temporal metrics at each rate",
        [
            *words("codec", "set"),
            *numbers("rate", "bpp", spec=".5g"),
            *numbers(*map(metric_name, metrics), spec=".4f", missing=NO_NUMBER),
        ],
        [
            [*place, *(own.get(metric) for metric in metrics)]
            for place, own in values.items()
        ],
        ["Of each set's mean curve, from few bits to many."],
    )


def paper_rows_table(comparison: Comparison) -> Table:
    """Rows of measured values that a paper printed, and ours beside each cell."""
    rows = comparison.paper_rows
    titles = dict.fromkeys(title for row in rows for title in row.titles)
    heads = [f"{title}, {whose}" for title in titles for whose in ("ours", "theirs")]
    table = Table(
        "Rows of the papers' tables",
        [*words("row", "codec", "source"), *numbers(*heads), *words("differs")],
    )
    for row in rows:
        cells: list[str] = []
        for ours, printed in zip(row.ours, row.printed, strict=True):
            cells += ["/".join(map(_short, ours)), printed]
        differs = "; ".join(row.differs) or "nothing that it states"
        table.rows.append([row.row, row.codec, row.source, *cells, differs])
    lacking = {
        metric
        for row in rows
        for metric, *own in zip(row.metrics, *row.ours, strict=True)
        if not any(value is not None for value in own)
    }
    table.notes = [
        f"{metric} is in no curve of a row: name it with --metric, or measure it with "
        f"evaluate {METRICS[metric].option}."
        for metric in METRICS
        if metric in lacking
    ]
    return table


def _short(value: float | None) -> str:
    return NO_NUMBER if value is None else f"{value:.4f}"
