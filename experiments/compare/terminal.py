"""Show comparisons and papers' tables in a terminal."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import (
    FLAGS,
    Comparison,
    Row,
    RowKind,
    headline_kind,
)
from experiments.compare.report.bd_tables import fixed_rates_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MARKS = dict(zip(FLAGS, "abcdefghijklmnopqrstuvwxyz", strict=False))
"""The letter after a number that stands for each kind of flag."""

Marks = dict[str, dict[str, None]]
"""The kinds of flags in a table, and what is the case for each of them."""

# Where output is no terminal nothing may be cut to fit one.
WIDE = 240

# Columns of a terminal that labels and each codec take; more codecs are more tables.
LABELS, BLOCK = 24, 48


def print_comparison(comparison: Comparison, metrics: Sequence[str]) -> None:
    """Print one table per metric: rows are sets and sequences, columns codecs."""
    from experiments.compare.protocol_check import describe

    console = _console()
    for text in describe(comparison.differences):
        console.print(f"not measured alike: {text}", style="bold", markup=False)
    marks: Marks = {}
    at_once = max(1, (console.width - LABELS) // BLOCK)
    for metric in metrics:
        codecs = [
            name
            for name in comparison.codecs
            if comparison.row(name, metric, headline_kind(metric, None), None)
        ]
        for start in range(0, len(codecs), at_once):
            some = codecs[start : start + at_once]
            console.print(_table(comparison, metric, some, marks))
        for line in describe_intervals(comparison, metric):
            console.print(line, markup=False)
    console.print(
        "range: when any one point is left out (of means: mean of the ends); overlap: "
        "of the quality axis (of means: the least); of the curve: BD-rate of the "
        "set's mean curve"
    )
    for kind in FLAGS:
        if kind in marks:
            console.print(f" {MARKS[kind]}  {FLAGS[kind]}")
    for reason in marks.get("not_computable", ()):
        console.print(f"    {reason}", markup=False)
    if comparison.fixed:
        for metric in metrics:
            _print_fixed(console, comparison, metric)
    for paper in comparison.papers:
        if paper.metric in metrics:
            where = paper.set or "average"
            differs = "; ".join(paper.differs) or "as far as stated under the same"
            console.print(
                f"published: {paper.codec} against {paper.anchor}, {where}: "
                f"{paper.bd_rate:+.2f} % ({paper.source}; conditions: {differs})",
                markup=False,
            )
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)


def _console() -> "Console":
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=True
    )


def _table(
    comparison: Comparison, metric: str, codecs: Sequence[str], marks: Marks
) -> "Table":
    from rich import box
    from rich.table import Table

    shown = METRICS[metric]
    unit = f" in {shown.unit}" if shown.unit else ""
    table = Table(
        title=f"BD-rate in % and BD-quality{unit} against {comparison.anchor}: "
        f"{shown.label} ({metric}), {comparison.method}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("")
    for name in codecs:
        table.add_column(
            f"{name}\nBD-rate", justify="right", max_width=16, overflow="fold"
        )
        for what in ("range", "overlap", "quality"):
            table.add_column(f"\n{what}", justify="right", no_wrap=True)

    def add(label: str, rows: Sequence[Row | None], style: str = "") -> None:
        cells = [cell for row in rows for cell in _cells(row, marks)]
        table.add_row(label, *cells, style=style)

    def rows(kind: RowKind, set: str | None, sequence: str = "") -> list[Row | None]:
        return [comparison.row(c, metric, kind, set, sequence) for c in codecs]

    if len(comparison.sets) > 1:
        add("all sets", rows(headline_kind(metric, None), None), "bold")
        if not shown.pooled:
            add("  of the curves", rows("overall_curve", None))
    for name, members in comparison.sets.items():
        add(name, rows(headline_kind(metric, name), name), "bold")
        if shown.pooled:
            continue
        add("  of the curve", rows("set_curve", name))
        for member in members:
            add(f"  {member}", rows("sequence", name, member))
    return table


def describe_intervals(comparison: Comparison, metric: str) -> list[str]:
    """Say over which part of a set's FID or KID each number was integrated.

    Args:
        comparison: What was compared.
        metric: Key of ``METRICS``; of others than these two nothing is said.
    """
    return [
        f"{row.codec}, {row.set}: BD-rate over {METRICS[metric].label} "
        f"{row.rate.interval[0]:.4g} to {row.rate.interval[1]:.4g}"
        for row in comparison.rows
        if row.metric == metric and row.kind == "set_pool" and row.rate.interval
    ]


def _print_fixed(console: "Console", comparison: Comparison, metric: str) -> None:
    """Print what a metric is at fixed rates."""
    from rich import box
    from rich.table import Table

    shown = fixed_rates_table(comparison, metric)
    table = Table(title=shown.title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, name in enumerate(shown.header):
        table.add_column(name, justify="left" if number < shown.texts else "right")
    for row in shown.rows:
        table.add_row(*row)
    console.print(table)
    for note in shown.notes:
        console.print(note, markup=False)


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
    from rich import box
    from rich.table import Table

    from experiments.compare.papers.tables import load_tables

    console = _console()
    for paper in load_tables():
        table = Table(
            title=f"{paper.source}: {paper.caption}",
            box=box.SIMPLE_HEAD,
            title_justify="left",
        )
        table.add_column("")
        for column in paper.columns:
            table.add_column(column.title, justify="right")
        for name, cells in paper.rows.items():
            table.add_row(name, *cells)
        console.print(table)
        for name, value in paper.conditions.items():
            console.print(f"  {name}: {value}", markup=False)
