"""The table of a recipe, as it stands: the paper's cells, and ours beside them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.whole_files import whole_or_nothing
from experiments.compare.command import (
    CompareOptions,
    compare_files,
    write_comparison,
)
from experiments.compare.comparison import Comparison
from experiments.compare.papers import PaperColumn, PaperTable, load_tables
from experiments.paper.plan import Plan
from experiments.paper.values import Measured, NoValueError, shown, value_of, values_at
from experiments.results.drawing.tables import (
    Column,
    Footnotes,
    Table,
    to_html,
    to_markdown,
    words,
)
from experiments.results.joining import join_results
from experiments.results.load import load_any
from experiments.results.typed_json import read_json

CURVES = ("evaluate", "anchor", "results")
"""Measurements whose files are curves that ``compare`` reads."""

PAPER, OURS = "paper", "ours"


@dataclass(frozen=True)
class Cell:
    """One value of ours beside a printed one.

    Attributes:
        printed: The paper's text; empty if it has none.
        ours: Our value; ``None`` if there is none.
        reason: Why there is none.
    """

    printed: str = ""
    ours: float | str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Filled:
    """A table with whatever is there; as JSON it is ``table.json``.

    Attributes:
        title: The recipe's.
        source: Whose printed cells these are; empty if no paper's.
        columns: Their heads.
        lines: Its rows.
        notes: What a reader must know, as sentences.
        figures: Drawings, as paths in the table's folder.
        refused: Why what is there could not be compared; empty if it was, or if there
            is too little yet.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    refused: str = ""


def write_table(plan: Plan) -> Filled:
    """Write ``table.md``, ``.html`` and ``.json``, and the report of what is there.

    Raises:
        ValueError: A measured file cannot be read.
        OSError: A file cannot be written.
    """
    from experiments.paper.figures import draw_figures

    folder = plan.places.table
    folder.mkdir(parents=True, exist_ok=True)
    rows = {label: _measured(plan, label) for label in plan.recipe.rows}
    refused = ""
    try:
        comparison, lacking = _compare(plan, rows, folder / "report")
    except ValueError as error:
        comparison, lacking = None, f"nothing is compared: {error}"
        refused = str(error)
    figures = draw_figures(plan, rows, comparison, folder)
    filled = fill(plan, rows, comparison, lacking, figures)
    filled = replace(filled, refused=refused)
    for name, text in (
        ("table.json", json.dumps(asdict(filled), indent=1) + "\n"),
        ("table.md", _markdown(filled)),
        ("table.html", _page(filled)),
    ):
        with whole_or_nothing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return filled


def fill(
    plan: Plan,
    rows: Mapping[str, Measured],
    comparison: Comparison | None,
    lacking: str = "",
    figures: tuple[str, ...] = (),
) -> Filled:
    """Return a recipe's table.

    Args:
        plan: Says which rows there are.
        rows: What is measured of each.
        comparison: Of all curves, if there is one.
        lacking: Why there is none.
        figures: Drawings.
    """
    recipe = plan.recipe
    paper = printed_table(recipe.paper, recipe.table)
    columns = _columns(plan, paper)
    printed = dict(paper.rows) if paper else {}
    printed |= {label: tuple(cells) for label, cells in recipe.published.items()}
    one_set = ""
    if plan.rehearsal and comparison and len(comparison.sets) == 1:
        (one_set,) = comparison.sets
    labels = [*printed, *(label for label in recipe.rows if label not in printed)]
    lines = []
    for label in labels:
        told = (*printed.get(label, ()), *[""] * len(columns))
        cells = []
        for column, text in zip(columns, told, strict=False):
            try:
                if label not in rows:
                    raise NoValueError(_not_made(plan, label))
                row = rows[label]
                if not row.names and not row.figures:
                    raise NoValueError(_waiting(plan, label))
                metrics = paper.measured.get(label, ()) if paper else ()
                value: float | str
                if metrics and column.rate is not None:
                    value = values_at(metrics, column.rate, row, text)
                else:
                    value = value_of(column, row, comparison, one_set)
                cells.append(Cell(text, value))
            except NoValueError as error:
                cells.append(Cell(text, None, str(error)))
        lines.append(Line(label, tuple(cells)))
    return Filled(
        title=recipe.title,
        source=paper.source if paper else "",
        columns=tuple(column.title for column in columns),
        lines=tuple(lines),
        notes=tuple(_notes(plan, paper, comparison, lacking, one_set)),
        figures=figures,
    )


def printed_table(stem: str, number: str) -> PaperTable | None:
    """Return a paper's table, or ``None`` if none is meant.

    Raises:
        ValueError: There is no such table.
    """
    if not stem or not number:
        return None
    known = {(table.paper, table.number): table for table in load_tables()}
    if (stem, number) not in known:
        names = ", ".join(f"{paper} {table}" for paper, table in known)
        raise ValueError(f"no printed table {stem} {number}: there are {names}")
    return known[stem, number]


def _columns(plan: Plan, paper: PaperTable | None) -> list[PaperColumn]:
    if plan.recipe.columns:
        return [
            PaperColumn(
                each.quantity,
                each.title,
                each.set,
                (each.metric,) if each.metric else (),
                each.rate,
            )
            for each in plan.recipe.columns
        ]
    if paper:
        return list(paper.columns)
    return [
        PaperColumn("bd_rate", f"BD-rate, {metric}", None, (metric,))
        for metric in plan.recipe.metrics
    ]


def _measured(plan: Plan, label: str) -> Measured:
    """Read what is there of a row."""
    curves, figures = [], {}
    for each, path in plan.files[label]:
        if not path.is_file():
            continue
        if each.command in CURVES:
            curves.append(load_any(path))
        else:
            figures[each.command] = read_json(path)
    results = tuple(join_results(curves))
    names = tuple(result.name for result in results)
    # A codec of one model for each metric has a name for each.
    models = sum(curve.name == curves[0].name for curve in curves)
    return Measured(names, results, figures, models)


def _compare(
    plan: Plan, rows: Mapping[str, Measured], folder: Path
) -> tuple[Comparison | None, str]:
    """Compare what is there and write the report, or say what is lacking.

    Raises:
        ValueError: The files were not measured alike.
    """
    recipe = plan.recipe
    anchor = rows[recipe.anchor].names if recipe.anchor else ()
    files = {
        path: None
        for measured in plan.files.values()
        for each, path in measured
        if each.command in CURVES and path.is_file()
    }
    if recipe.compare is None or not recipe.anchor:
        return None, ""
    if not anchor:
        return None, f"there is no BD-rate yet: {recipe.anchor} is not measured"
    if len({name for row in rows.values() for name in row.names}) < 2:
        return None, "there is no BD-rate yet: nothing is measured beside the anchor"
    told: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in recipe.compare.items()
    }
    if plan.rehearsal:
        # Stand-ins are not measured alike, and a rehearsal's numbers say nothing.
        told["allow"] = (*told.get("allow", ()), *plan.rehearsal.allowed)
    options = CompareOptions(
        files=tuple(files),
        anchor=anchor[0],
        metric=tuple(recipe.metrics) or None,
        **told,
    )
    comparison, results = compare_files(options)
    write_comparison(comparison, results, folder)
    return comparison, ""


def _not_made(plan: Plan, label: str) -> str:
    return plan.recipe.supply.get(label, "no recipe of this suite measures it")


def _waiting(plan: Plan, label: str) -> str:
    if not plan.recipe.rows[label]:
        return _not_made(plan, label)
    missing = [m.name for m in plan.recipe.rows[label] if m.name in plan.left_out]
    return plan.left_out[missing[0]] if missing else "not measured yet"


def _notes(
    plan: Plan,
    paper: PaperTable | None,
    comparison: Comparison | None,
    lacking: str,
    one_set: str,
) -> list[str]:
    notes = []
    if plan.rehearsal:
        text = "A rehearsal: tiny networks, and numbers that say nothing."
        notes.append(f"{text} One clip stands for every set." if one_set else text)
    if plan.recipe.note:
        notes.append(" ".join(plan.recipe.note.split()))
    if lacking:
        notes.append(f"{lacking[0].upper()}{lacking[1:]}.")
    if paper:
        told = [f"{name}: {text}" for name, text in paper.conditions.items()]
        notes.append(f"The paper's conditions. {'; '.join(told)}.")
    if comparison:
        notes.append(
            f"BD-rates of ours are against {comparison.anchor}; report/report.html has "
            "curves, error bars and caveats."
        )
    return notes


def _table(filled: Filled) -> Table:
    """Return what is shown: two columns for each printed one, if any is printed."""
    printed = any(cell.printed for line in filled.lines for cell in line.cells)
    heads: list[Column] = words("")
    for title in filled.columns:
        heads += [Column(f"{title}, {PAPER}")] if printed else []
        heads.append(Column(f"{title}, {OURS}" if printed else title))
    table, notes = Table(filled.title, heads), Footnotes()
    for line in filled.lines:
        row: list[Any] = [line.label]
        for cell in line.cells:
            mark = notes.marks([cell.reason]) if cell.reason else ""
            own = "" if cell.ours is None else shown(cell.ours, cell.printed)
            row += [cell.printed] if printed else []
            row.append(own + mark)
        table.rows.append(row)
    table.notes = [*notes.lines(), *filled.notes]
    return table


def _markdown(filled: Filled) -> str:
    parts = [to_markdown(_table(filled), level=1)]
    if not filled.lines:
        parts = [f"# {filled.title}", *filled.notes]
    parts += [f"![{Path(name).stem}]({name})" for name in filled.figures]
    return "\n\n".join(parts) + "\n"


def _page(filled: Filled) -> str:
    """Return a page with nothing outside it but the figures."""
    import html

    table = to_html(_table(filled), "h1") or f"<h1>{html.escape(filled.title)}</h1>"
    figures = "".join(f'<p><img src="{html.escape(n)}"></p>' for n in filled.figures)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(filled.title)}</title><style>{STYLE}</style></head>"
        f"<body>{table}{figures}</body></html>\n"
    )


STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1200px;"
    "padding:0 1rem}h1{font-size:1.3rem}.wide{overflow-x:auto}"
    "table{border-collapse:collapse}th,td{padding:.3rem .6rem;"
    "border-bottom:1px solid #ddd}th{font-weight:600;vertical-align:bottom}"
    ".number{text-align:right;font-variant-numeric:tabular-nums}"
    ".words{text-align:left}.notes{color:#555;list-style:none;padding:0}"
    "img{max-width:100%}"
)
