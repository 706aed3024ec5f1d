"""The BD numbers as tables: sets, metrics, sequences, and the papers' beside them."""

from collections.abc import Callable

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import (
    FLAGS,
    ROW_KINDS,
    Comparison,
    Delta,
    PaperNumber,
    QualityAt,
    Row,
    RowKind,
    headline_kind,
)
from experiments.drawing.tables import (
    Footnotes,
    Table,
    metric_name,
    percent,
    significant,
)

OVERALL = "all sets"
NO_NUMBER = "none"

Rows = dict[tuple[str, str, str, str | None, str | None], Row]


def rows_by_key(comparison: Comparison) -> Rows:
    """Return the rows by codec, metric, kind, set and sequence."""
    return {(r.codec, r.metric, r.kind, r.set, r.sequence): r for r in comparison.rows}


def headline_table(comparison: Comparison) -> Table:
    """BD-rate of the headline metric: sets x codecs, both conventions."""
    metric = comparison.headline
    rows, notes = rows_by_key(comparison), Footnotes()
    table = Table(
        f"BD-rate against {comparison.anchor}, {METRICS[metric].label}",
        ["set", "number", *comparison.codecs],
        texts=2,
    )
    for name in _sets(comparison):
        for kind in _kinds(metric, name):
            cells = []
            for codec in comparison.codecs:
                cell = _cell(rows.get((codec, metric, kind, name, None)), notes, _rate)
                if kind == headline_kind(metric, name):
                    for paper in comparison.papers:
                        if paper.row == (codec, metric, name):
                            cell += f", paper {percent(paper.bd_rate)}"
                cells.append(cell)
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
    rows, notes = rows_by_key(comparison), Footnotes()
    table = Table(
        f"{title}, every metric, means of sequences (FID, KID: of the set)",
        ["metric", "set", *comparison.codecs],
        texts=2,
    )
    for metric in comparison.metrics:
        for name in _sets(comparison):
            kind = headline_kind(metric, name)
            cells = [
                _cell(rows.get((codec, metric, kind, name, None)), notes, show)
                for codec in comparison.codecs
            ]
            table.rows.append([metric_name(metric), name or OVERALL, *cells])
    table.notes = notes.lines()
    return table


def pools_table(comparison: Comparison) -> Table:
    """FID and KID of every set: values, pictures, and what BD-rates are over."""
    codecs = [comparison.anchor, *comparison.codecs]
    table = Table(
        "FID and KID of all sequences of a set together",
        [
            "metric",
            "set",
            "codec",
            "points",
            "pictures",
            "best",
            "worst",
            "BD-rate over",
            "overlap",
        ],
        texts=3,
    )
    rows, notes = rows_by_key(comparison), Footnotes()
    for curve in comparison.curves:
        metric = curve.metric
        if not METRICS[metric].pooled:
            continue
        row = rows.get((curve.codec, metric, "set_pool", curve.set, None))
        interval, overlap, marks = "", "", ""
        if row is not None:
            marks = notes.marks(FLAGS[flag.kind] for flag in row.flags)
            if row.rate.interval is not None:
                interval = " to ".join(significant(end) for end in row.rate.interval)
            if row.rate.overlap is not None:
                overlap = f"{row.rate.overlap:.0f} %"
        table.rows.append(
            [
                metric_name(metric),
                curve.set,
                curve.codec,
                str(len(curve.bpp)),
                str(curve.samples),
                significant(min(curve.quality)),
                significant(max(curve.quality)),
                interval + marks,
                overlap,
            ]
        )
    order = {codec: number for number, codec in enumerate(codecs)}
    labels = [metric_name(metric) for metric in comparison.metrics]
    sets = list(comparison.sets)
    table.rows.sort(key=lambda r: (labels.index(r[0]), sets.index(r[1]), order[r[2]]))
    table.notes = [
        f"BD-rates against {comparison.anchor}, {comparison.method} over log rate, in "
        "the part of the metric that both curves reach.",
        *notes.lines(),
    ]
    return table


def sequences_table(comparison: Comparison) -> Table:
    """BD-rate of the headline metric for each sequence, with its overlap."""
    metric = comparison.headline
    if METRICS[metric].pooled:
        return Table("Sequences have no such number", [])
    rows, notes = rows_by_key(comparison), Footnotes()
    table = Table(
        f"BD-rate against {comparison.anchor} per sequence, {METRICS[metric].label}",
        ["set", "sequence", *comparison.codecs],
        texts=2,
    )
    for name, sequences in comparison.sets.items():
        for sequence in sequences:
            cells = []
            for codec in comparison.codecs:
                row = rows.get((codec, metric, "sequence", name, sequence))
                cells.append(_cell(row, notes, _rate))
            table.rows.append([name, sequence, *cells])
    table.notes = notes.lines()
    return table


def fixed_rates_table(comparison: Comparison, metric: str) -> Table:
    """A metric at fixed rates, of the sets' mean curves; empty if not asked for."""
    codecs = [comparison.anchor, *comparison.codecs]
    table = Table(
        f"{metric_name(metric)} at fixed rates", ["set", "bpp", *codecs], texts=1
    )
    own = {(q.codec, q.set, q.bpp): q for q in comparison.fixed if q.metric == metric}
    rates = dict.fromkeys(q.bpp for q in own.values())
    table.rows = [
        [name, f"{bpp:g}", *(_fixed(own.get((codec, name, bpp))) for codec in codecs)]
        for name in comparison.sets
        for bpp in rates
    ]
    table.notes = [
        f"Of each set's mean curve, pchip over log rate; {NO_NUMBER}: the curve does "
        "not reach the rate, or the set has none."
    ]
    return table


def _fixed(quality: QualityAt | None) -> str:
    if quality is None or quality.value is None:
        return NO_NUMBER
    return significant(quality.value, 5)


def flags_table(comparison: Comparison) -> Table:
    """Every flag of the headline metric in full, but those that only say noise."""
    table = Table("Caveats in full", ["codec", "where", "what"], texts=3)
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
    rows = rows_by_key(comparison)
    table = Table(
        "The papers' numbers",
        ["set", "ours", "theirs", "source", "differs from ours", "ours", "theirs"],
        texts=5,
    )
    for paper in comparison.papers:
        codec, metric, name = paper.row
        row = rows.get((codec, metric, headline_kind(metric, name), name, None))
        table.rows.append(
            [
                name or OVERALL,
                f"{codec} against {comparison.anchor}, {METRICS[metric].label}",
                f"{paper.codec} against {paper.anchor}, {_paper_metric(paper)}",
                paper.source,
                "; ".join(paper.differs) or "nothing that it states",
                NO_NUMBER if row is None else _rate(row),
                percent(paper.bd_rate),
            ]
        )
    return table


def _paper_metric(paper: PaperNumber) -> str:
    return METRICS[paper.metric].label if paper.metric else "metric not stated"


def _sets(comparison: Comparison) -> list[str | None]:
    """Return the sets and, if there are several, ``None`` for all of them."""
    names: list[str | None] = [*comparison.sets]
    return [*names, None] if len(names) > 1 else names


def _kinds(metric: str, name: str | None) -> list[RowKind]:
    """Return the kinds of rows that a metric has of a set, or over all."""
    kinds = [headline_kind(metric, name)]
    if not METRICS[metric].pooled:
        kinds.append("overall_curve" if name is None else "set_curve")
    return kinds


def _cell(row: Row | None, notes: Footnotes, show: Callable[[Row], str]) -> str:
    if row is None:
        return NO_NUMBER
    return show(row) + notes.marks(FLAGS[flag.kind] for flag in row.flags)


def _rate(row: Row) -> str:
    return _show(row.rate, percent, lambda value: f"{value:+.1f}")


def _quality(row: Row) -> str:
    return _show(row.quality, *[lambda value: f"{value:+.3g}"] * 2)


def _show(
    delta: Delta, show: Callable[[float], str], show_end: Callable[[float], str]
) -> str:
    """Write a delta with its error bar."""
    if delta.value is None:
        return NO_NUMBER
    if delta.low is None or delta.high is None:
        return show(delta.value)
    return f"{show(delta.value)} ({show_end(delta.low)} to {show_end(delta.high)})"
