"""Show comparisons and papers' tables in a terminal."""

from collections.abc import Sequence

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import FLAGS, Comparison, Row, RowKind
from experiments.compare.papers import load_tables
from experiments.compare.protocol_check import describe
from experiments.compare.report.bd_tables import fixed_rates_table
from experiments.compare.report.measured_tables import (
    paper_rows_table,
    temporal_table,
)
from experiments.results.drawing.tables import (
    Table,
    make_console,
    numbers,
    print_table,
    words,
)

MARKS = dict(zip(FLAGS, "abcdefghijklmnopqrstuvwxyz", strict=False))
"""The letter after a number that stands for each kind of flag."""

Marks = dict[str, dict[str, None]]
"""The kinds of flags in a table, and what is the case for each of them."""

# Columns of a terminal that labels and each codec take; more codecs are more tables.
LABELS, BLOCK = 24, 48


def print_comparison(comparison: Comparison, metrics: Sequence[str]) -> None:
    """Print one table per metric: rows are sets and sequences, columns codecs."""
    console = make_console()
    for text in describe(comparison.differences):
        console.print(f"not measured alike: {text}", style="bold")
    marks: Marks = {}
    explained = False
    at_once = max(1, (console.width - LABELS) // BLOCK)
    for metric in metrics:
        codecs = [
            c for c in comparison.codecs if comparison.headline_row(c, metric, None)
        ]
        rows = [row for row in comparison.rows if row.metric == metric]
        values = [v for row in rows for v in (row.rate.value, row.quality.value)]
        if codecs and all(value is None for value in values):
            # One rate of each, say: a table of nothing would only stand before this.
            console.print(f"no BD-rate of {metric}: {'; '.join(_reasons(rows))}")
            print_table(_measured(comparison, metric), console)
            continue
        for start in range(0, len(codecs), at_once):
            some = codecs[start : start + at_once]
            print_table(_table(comparison, metric, some, marks), console)
        for line in _intervals(comparison, metric):
            console.print(line)
        explained = True
    if explained:
        console.print(
            "range: when any one point is left out (of means: mean of the ends); "
            "overlap: of the quality axis (of means: the least); of the curve: BD-rate "
            "of the set's mean curve"
        )
    for kind in FLAGS:
        if kind in marks:
            console.print(f" {MARKS[kind]}  {FLAGS[kind]}")
    for reason in marks.get("not_computable", ()):
        console.print(f"    {reason}")
    for metric in metrics:
        print_table(fixed_rates_table(comparison, metric), console)
    if any(METRICS[metric].pairs for metric in metrics):
        print_table(temporal_table(comparison), console)
    for paper in comparison.papers:
        if paper.metric in metrics:
            where = paper.set or "average"
            differs = "; ".join(paper.differs) or "as far as stated under the same"
            console.print(
                f"published: {paper.codec} against {paper.anchor}, {where}: "
                f"{paper.bd_rate:+.2f} % ({paper.source}; conditions: {differs})"
            )
    print_table(paper_rows_table(comparison), console)
    for note in comparison.notes:
        console.print(f"note: {note}")


def _table(
    comparison: Comparison, metric: str, codecs: Sequence[str], marks: Marks
) -> Table:
    shown = METRICS[metric]
    unit = f" in {shown.unit}" if shown.unit else ""
    heads = [
        head
        for name in codecs
        for head in (f"{name}\nBD-rate", "\nrange", "\noverlap", "\nquality")
    ]
    table = Table(
        f"BD-rate in % and BD-quality{unit} against {comparison.anchor}: "
        f"{shown.label} ({metric}), {comparison.method}",
        [*words(""), *numbers(*heads)],
    )

    def add(label: str, rows: Sequence[Row | None]) -> None:
        table.rows.append([label, *(c for row in rows for c in _cells(row, marks))])

    def headline(label: str, set: str | None, curve: RowKind) -> None:
        table.strong.add(len(table.rows))
        add(label, [comparison.headline_row(c, metric, set) for c in codecs])
        if not shown.pooled:
            text = f"  of the curve{'' if set else 's'}"
            add(text, [comparison.row(c, metric, curve, set) for c in codecs])

    if len(comparison.sets) > 1:
        headline("all sets", None, "overall_curve")
    for name, members in comparison.sets.items():
        headline(name, name, "set_curve")
        for member in () if shown.pooled else members:
            own = [comparison.row(c, metric, "sequence", name, member) for c in codecs]
            add(f"  {member}", own)
    return table


def _reasons(rows: Sequence[Row]) -> list[str]:
    """Return why there are no numbers, of curves rather than of their means."""
    own = [row for row in rows if row.kind in ("sequence", "set_pool")] or rows
    texts = [f.text for row in own for f in row.flags if f.kind == "not_computable"]
    return list(dict.fromkeys(texts))


def _measured(comparison: Comparison, metric: str) -> Table:
    """Return the points that were measured, as no number says how curves differ."""
    columns = [*words("set", "sequence", "codec"), *numbers("rate", spec=".4g")]
    columns += numbers("bpp", spec=".5f")
    columns += numbers(METRICS[metric].label, spec=".4f")
    own = [curve for curve in comparison.curves if curve.metric == metric]
    places = dict.fromkeys((curve.set, curve.sequence) for curve in own)
    rows = [
        [curve.set, curve.sequence or "mean", curve.codec, *point]
        for place in places
        for curve in own
        if (curve.set, curve.sequence) == place
        for point in zip(curve.rates, curve.bpp, curve.quality, strict=True)
    ]
    return Table(f"measured: {METRICS[metric].label} ({metric})", columns, rows)


def _intervals(comparison: Comparison, metric: str) -> list[str]:
    """Say over which part of a set's FID or KID each number was integrated."""
    return [
        f"{row.codec}, {row.set}: BD-rate over {METRICS[metric].label} "
        f"{row.rate.interval[0]:.4g} to {row.rate.interval[1]:.4g}"
        for row in comparison.rows
        if row.metric == metric and row.kind == "set_pool" and row.rate.interval
    ]


def _cells(row: Row | None, marks: Marks) -> list[str]:
    if row is None:
        return ["", "", "", ""]
    for flag in row.flags:
        marks.setdefault(flag.kind, {})[flag.text] = None
    letters = "".join(sorted({MARKS[flag.kind] for flag in row.flags}))
    rate, quality = row.rate, row.quality
    value = "none" if rate.value is None else f"{rate.value:+.2f}"
    span = ""
    if rate.low is not None and rate.high is not None:
        span = f"{rate.low:+.1f} … {rate.high:+.1f}"
    overlap = "" if rate.overlap is None else f"{rate.overlap:.0f} %"
    gain = "none" if quality.value is None else f"{quality.value:+.4f}"
    return [f"{value} {letters}".strip(), span, overlap, gain]


def print_tables() -> None:
    """Print every table of the papers, with its conditions."""
    console = make_console()
    for paper in load_tables():
        title = f"{paper.source}: {paper.caption}"
        columns = [*words(""), *numbers(*(column.title for column in paper.columns))]
        rows = [[name, *cells] for name, cells in paper.rows.items()]
        conditions = [f"  {name}: {value}" for name, value in paper.conditions.items()]
        print_table(Table(title, columns, rows, conditions), console)
