"""Tables that papers printed, as data, and their numbers beside ours.

Each YAML file beside this module is one paper. Every cell stays the text that was
printed (``1.10``, ``-15.97%``, ``4+4``); what is a number is turned into one when it
is asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from experiments.compare.comparison import PaperNumber, Row, headline_kind
from experiments.results.result import Result


@dataclass(frozen=True)
class PaperColumn:
    """What one column of a table holds.

    Attributes:
        quantity: ``bd_rate`` (in %), ``encode_fps``, ``params_m``, ...
        title: As printed.
        set: Our name of the test set; ``None``: the table's average, or no set.
        metrics: Keys of ``METRICS`` that a ``bd_rate`` may be compared with.
    """

    quantity: str
    title: str
    set: str | None = None
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """One printed table.

    Attributes:
        source: arXiv id, or title, and table.
        caption: What it shows.
        anchor: What its BD-rates are against, as the paper calls it.
        conditions: What the paper says about the measurement, by name. ``colour``,
            ``yuv_as``, ``max_frames``, ``intra_period`` and ``rate`` have the values of
            ``results.Protocol`` where they are stated.
        columns: What its cells are.
        rows: Printed cells, by the row's printed name.
        codecs: Our codecs' names, with the row that each is.
        average_of: Sets whose mean the average column is.
    """

    source: str
    caption: str
    anchor: str | None
    conditions: dict[str, str]
    columns: tuple[PaperColumn, ...]
    rows: dict[str, tuple[str, ...]]
    codecs: dict[str, str] = field(default_factory=dict)
    average_of: tuple[str, ...] = ()


class Published(NamedTuple):
    """One BD-rate in %, where it stands, and the printed name of its row."""

    codec: str
    column: PaperColumn
    table: PaperTable
    bd_rate: float


@cache
def load_tables() -> tuple[PaperTable, ...]:
    """Return every table of every paper."""
    import yaml

    tables = []
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        # The base loader leaves every scalar the text that was typed.
        paper = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        source = f"arXiv {paper['arxiv']}" if paper["arxiv"] else f"“{paper['title']}”"
        tables += [_table(entry, source, paper["codecs"]) for entry in paper["tables"]]
    return tuple(tables)


def _table(entry: dict[str, Any], source: str, codecs: dict[str, str]) -> PaperTable:
    source = f"{source}, Table {entry['number']}"
    columns = tuple(
        PaperColumn(
            column["quantity"],
            column["title"],
            column.get("set"),
            tuple(column.get("metrics", entry.get("metrics", ()))),
        )
        for column in entry["columns"]
    )
    rows = {name: tuple(cells) for name, cells in entry["rows"].items()}
    return PaperTable(
        source,
        entry["caption"],
        entry.get("anchor"),
        entry["conditions"],
        columns,
        rows,
        {ours: row for ours, row in codecs.items() if row in rows},
        tuple(entry.get("average_of", ())),
    )


def number(cell: str) -> float | None:
    """Return a cell's number, or ``None`` if it holds none (``-``, ``4+4``)."""
    try:
        return float(cell.removesuffix("%"))
    except ValueError:
        return None


def published(codec: str, anchor: str, set: str | None, metric: str) -> list[Published]:
    """Return what papers printed for a codec against an anchor.

    Names match whatever their capitals, spaces and punctuation; ours (``UI2C``) stands
    for the paper's row. A ``set`` of ``None`` asks for the papers' averages.
    """
    found = []
    for table in load_tables():
        if table.anchor is None or _plain(table.anchor) != _plain(anchor):
            continue
        ours = {_plain(name): row for name, row in table.codecs.items()}
        rows = {_plain(name): name for name in table.rows}
        row = ours.get(_plain(codec), rows.get(_plain(codec)))
        if row is None:
            continue
        for column, cell in zip(table.columns, table.rows[row], strict=True):
            is_asked = column.quantity == "bd_rate" and column.set == set
            value = number(cell)
            if is_asked and metric in column.metrics and value is not None:
                found.append(Published(row, column, table, value))
    return found


def numbers_beside(
    rows: Sequence[Row],
    anchor: Result,
    others: Sequence[Result],
    sets: Sequence[str],
) -> tuple[PaperNumber, ...]:
    """Find what papers printed for the means over ``sets`` that were computed."""
    by_name = {result.name: result for result in others}
    found: dict[tuple[str, str, str | None, str], PaperNumber] = {}
    for row in rows:
        if row.kind != headline_kind(row.metric, row.set):
            continue
        result = by_name[row.codec]
        for names in product(_names(result), _names(anchor)):
            for printed in published(*names, row.set, row.metric):
                table, place = printed.table, (row.codec, row.metric, row.set)
                differs = _conditions_that_differ(table.conditions, result)
                if row.set is None and set(table.average_of) != set(sets):
                    over = ", ".join(table.average_of) or "sets that it does not list"
                    differs.append(f"the paper averages over {over}")
                found[*place, table.source] = PaperNumber(
                    codec=printed.codec,
                    anchor=table.anchor or "",
                    set=row.set,
                    metric=row.metric,
                    bd_rate=printed.bd_rate,
                    source=table.source,
                    conditions=table.conditions,
                    row=place,
                    differs=tuple(differs),
                )
    return tuple(found.values())


def _names(result: Result) -> list[str]:
    """Return what a paper could call a result: its codec's name or its own."""
    name = str(result.codec.get("name", ""))
    # One codec of ours with two backbones is two rows of its paper.
    if backbone := (result.codec.get("architecture") or {}).get("backbone"):
        name = f"{name} {backbone}"
    return list(dict.fromkeys([name, result.name]))


def _conditions_that_differ(paper: dict[str, str], result: Result) -> list[str]:
    differs = []
    for name in ("colour", "yuv_as", "max_frames", "intra_period", "rate"):
        ours = getattr(result.protocol, name)
        if name == "max_frames" and ours == 0:
            ours = "all"
        theirs = paper.get(name, "not stated")
        if ours is not None and theirs != "not stated" and str(ours) != theirs:
            differs.append(f"{name} is {theirs} in the paper and {ours} here")
    return differs


def _plain(name: str) -> str:
    """Return a name without capitals, spaces and punctuation; ``²`` as ``2``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("²", "2"))
