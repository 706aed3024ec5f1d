"""The BD numbers as tables: sets, metrics, sequences, and the papers' beside them."""

from collections.abc import Callable

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import (
    FLAGS,
    ROW_KINDS,
    Comparison,
    Delta,
    Row,
    RowKind,
    headline_kind,
)
from experiments.results.drawing.tables import (
    Column,
    Footnotes,
    Table,
    metric_name,
    numbers,
    words,
)

OVERALL = "all sets"
NO_NUMBER = "none"


def headline_table(comparison: Comparison) -> Table:
    """BD-rate of the headline metric: sets x codecs, both conventions."""
    metric, notes = comparison.headline, Footnotes()
    table = Table(
        f"BD-rate against {comparison.anchor}, {METRICS[metric].label}",
        _columns(comparison, "set", "number"),
    )
    for name in _sets(comparison):
        kinds = [headline_kind(metric, name)]
        if not METRICS[metric].pooled:
            kinds.append("overall_curve" if name is None else "set_curve")
        for kind in kinds:
            cells = _cells(comparison, metric, kind, name, None, notes, _rate)
            if kind == kinds[0]:
                for paper in comparison.papers:
                    codec, *row = paper.row
                    if row == [metric, name]:
                        number = comparison.codecs.index(codec)
                        cells[number] += f", paper {_percent(paper.bd_rate)}"
            table.rows.append([name or OVERALL, ROW_KINDS[kind], *cells])
    table.notes = [
        f"Below 0: fewer bits than {comparison.anchor} at equal quality. In "
        "parentheses: least and greatest value when one point of a curve is left out. "
        f"Interpolation: {comparison.method}.",
        *notes.lines(),
    ]
    return table


def metrics_table(comparison: Comparison) -> Table:
    """BD-rate of every metric, mean of the sequences."""
    return _all_metrics(comparison, f"BD-rate against {comparison.anchor}", _rate)


def quality_table(comparison: Comparison) -> Table:
    """BD-quality of every metric, mean of the sequences, in the metric's unit."""
    title = f"BD-quality against {comparison.anchor}"
    table = _all_metrics(comparison, title, _quality)
    table.notes.insert(
        0, "Difference at equal bits: above 0 is better, unless lower is better."
    )
    return table


def _all_metrics(
    comparison: Comparison, title: str, show: Callable[[Row], str]
) -> Table:
    notes = Footnotes()
    table = Table(
        f"{title}, every metric, means of sequences (FID, KID: of the set)",
        _columns(comparison, "metric", "set"),
    )
    for metric in comparison.metrics:
        for name in _sets(comparison):
            kind = headline_kind(metric, name)
            cells = _cells(comparison, metric, kind, name, None, notes, show)
            table.rows.append([metric_name(metric), name or OVERALL, *cells])
    table.notes = notes.lines()
    return table


def pools_table(comparison: Comparison) -> Table:
    """FID and KID of every set: values, pictures, and what BD-rates are over."""
    values = ("points", "pictures", "best", "worst", "BD-rate over", "overlap")
    table = Table(
        "FID and KID of all sequences of a set together",
        [*words("metric", "set", "codec"), *numbers(*values, spec=".4g")],
    )
    notes = Footnotes()
    curves = {(c.metric, c.set, c.codec): c for c in comparison.curves}
    for metric in comparison.metrics:
        for name in comparison.sets if METRICS[metric].pooled else ():
            for codec in comparison.names:
                if curve := curves.get((metric, name, codec)):
                    row = comparison.row(codec, metric, "set_pool", name)
                    table.rows.append(
                        [
                            *(metric_name(metric), name, codec),
                            *(len(curve.bpp), curve.samples),
                            *(min(curve.quality), max(curve.quality)),
                            *_integrated(row, notes),
                        ]
                    )
    table.notes = [
        f"BD-rates against {comparison.anchor}, {comparison.method} over log rate, in "
        "the part of the metric that both curves reach.",
        *notes.lines(),
    ]
    return table


def _integrated(row: Row | None, notes: Footnotes) -> list[str]:
    """Return over which part of the metric a BD-rate is, and its share."""
    if row is None:
        return ["", ""]
    interval, overlap = row.rate.interval or (), row.rate.overlap
    marks = notes.marks(FLAGS[flag.kind] for flag in row.flags)
    return [
        " to ".join(f"{end:.4g}" for end in interval) + marks,
        "" if overlap is None else f"{overlap:.0f} %",
    ]


def sequences_table(comparison: Comparison) -> Table:
    """BD-rate of the headline metric for each sequence, with its overlap."""
    metric, notes = comparison.headline, Footnotes()
    table = Table(
        f"BD-rate against {comparison.anchor} per sequence, {METRICS[metric].label}",
        _columns(comparison, "set", "sequence"),
    )
    for name, sequences in comparison.sets.items():
        # Of FID and KID sequences have no such number.
        for sequence in () if METRICS[metric].pooled else sequences:
            cells = _cells(comparison, metric, "sequence", name, sequence, notes, _rate)
            table.rows.append([name, sequence, *cells])
    table.notes = notes.lines()
    return table


def fixed_rates_table(comparison: Comparison, metric: str) -> Table:
    """A metric at fixed rates, of the sets' mean curves; empty if not asked for."""
    names = comparison.names
    own = {
        (q.codec, q.set, q.bpp): q.value for q in comparison.fixed if q.metric == metric
    }
    return Table(
        f"{metric_name(metric)} at fixed rates",
        [*words("set"), *numbers("bpp", *names, spec=".5g", missing=NO_NUMBER)],
        [
            [set, bpp, *(own.get((codec, set, bpp)) for codec in names)]
            for set in comparison.sets
            for bpp in dict.fromkeys(bpp for _, _, bpp in own)
        ],
        [
            f"Of each set's mean curve, pchip over log rate; {NO_NUMBER}: the curve "
            "does not reach the rate, or the set has none."
        ],
    )


def flags_table(comparison: Comparison) -> Table:
    """Every flag of the headline metric in full, but those that only say noise."""
    table = Table("Caveats in full", words("codec", "where", "what"))
    for row in comparison.rows:
        if row.metric == comparison.headline:
            where = "/".join(filter(None, (row.set or OVERALL, row.sequence)))
            table.rows += [
                [row.codec, f"{where}: {ROW_KINDS[row.kind]}", flag.text]
                for flag in row.flags
                if flag.kind != "noise"
            ]
    return table


def papers_table(comparison: Comparison) -> Table:
    """What papers printed for what a row measures, and how their conditions differ."""
    labels = ("set", "ours", "theirs", "source", "differs from ours")
    table = Table("The papers' numbers", [*words(*labels), *numbers("ours", "theirs")])
    for paper in comparison.papers:
        codec, metric, name = paper.row
        row = comparison.headline_row(codec, metric, name)
        theirs = METRICS[paper.metric].label if paper.metric else "metric not stated"
        table.rows.append(
            [
                name or OVERALL,
                f"{codec} against {comparison.anchor}, {METRICS[metric].label}",
                f"{paper.codec} against {paper.anchor}, {theirs}",
                paper.source,
                "; ".join(paper.differs) or "nothing that it states",
                NO_NUMBER if row is None else _rate(row),
                _percent(paper.bd_rate),
            ]
        )
    return table


def _columns(comparison: Comparison, *labels: str) -> list[Column]:
    return [*words(*labels), *numbers(*comparison.codecs)]


def _sets(comparison: Comparison) -> list[str | None]:
    """Return the sets and, if there are several, ``None`` for all of them."""
    names: list[str | None] = [*comparison.sets]
    return [*names, None] if len(names) > 1 else names


def _cells(
    comparison: Comparison,
    metric: str,
    kind: RowKind,
    set: str | None,
    sequence: str | None,
    notes: Footnotes,
    show: Callable[[Row], str],
) -> list[str]:
    """Return a row's cell of each codec, with its marks."""
    cells = []
    for codec in comparison.codecs:
        row = comparison.row(codec, metric, kind, set, sequence)
        marks = notes.marks(FLAGS[flag.kind] for flag in row.flags) if row else ""
        cells.append(show(row) + marks if row else NO_NUMBER)
    return cells


def _rate(row: Row) -> str:
    return _show(row.rate, _percent, "+.1f")


def _quality(row: Row) -> str:
    return _show(row.quality, lambda value: f"{value:+.3g}", "+.3g")


def _show(delta: Delta, show: Callable[[float], str], end: str) -> str:
    """Write a delta with its error bar."""
    if delta.value is None:
        return NO_NUMBER
    if delta.low is None or delta.high is None:
        return show(delta.value)
    return f"{show(delta.value)} ({delta.low:{end}} to {delta.high:{end}})"


def _percent(bd_rate: float) -> str:
    """Write a BD-rate, with the two decimals of the papers."""
    return f"{bd_rate:+.2f} %"
