"""Tables that papers printed, as data; ``matching`` says which results they are of.

Each YAML file beside this module is one paper. Every cell stays the text that was
printed (``1.10``, ``-15.97%``, ``4+4``); what is a number is turned into one when it
is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]
"""What must be true of a codec of ours, by name: values as typed in the YAML file."""


@dataclass(frozen=True)
class PaperColumn:
    """What one column of a table holds.

    Attributes:
        quantity: ``bd_rate`` (in %), ``encode_fps``, ``params_m``, ...
        title: As printed.
        set: Our name of the test set; ``None``: the table's average, or no set.
        metrics: Keys of ``METRICS`` that a ``bd_rate`` may be compared with.
        rate: Of measured values: our codec's rate that they are of.
    """

    quantity: str
    title: str
    set: str | None = None
    metrics: tuple[str, ...] = ()
    rate: float | None = None


@dataclass(frozen=True)
class PaperTable:
    """One printed table.

    Attributes:
        paper: Stem of its file beside this module.
        number: As printed, ``3`` or ``III``.
        source: arXiv id, or title, and table.
        caption: What it shows.
        anchor: What its BD-rates are against, as the paper calls it.
        conditions: What the paper says about the measurement, by name. ``colour``,
            ``yuv_as``, ``max_frames``, ``intra_period`` and ``rate`` have the values of
            ``results.Protocol`` where they are stated.
        columns: What its cells are.
        rows: Printed cells, by the row's printed name.
        codec: Name of ours that the paper is about.
        ours: What a codec of ours must be to stand for a printed name, of a row or of
            the anchor: alternatives, of which one must hold; see ``matching``.
        aliases: What else files call a printed name of a codec that is not ours.
        average_of: Sets whose mean the average column is.
        measured: Metrics that each cell of a row holds, divided by ``/``, where columns
            have rates; empty of every other table.
    """

    paper: str
    number: str
    source: str
    caption: str
    anchor: str | None
    conditions: dict[str, str]
    columns: tuple[PaperColumn, ...]
    rows: dict[str, tuple[str, ...]]
    codec: str
    ours: dict[str, tuple[Facts, ...]] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    average_of: tuple[str, ...] = ()
    measured: dict[str, tuple[str, ...]] = field(default_factory=dict)


@cache
def load_tables() -> tuple[PaperTable, ...]:
    """Return every table of every paper."""
    import yaml

    tables: list[PaperTable] = []
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        # The base loader leaves every scalar the text that was typed.
        paper = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        tables += [_table(entry, paper, path.stem) for entry in paper["tables"]]
    return tuple(tables)


def _table(entry: dict[str, Any], paper: dict[str, Any], stem: str) -> PaperTable:
    source = f"arXiv {paper['arxiv']}" if paper["arxiv"] else f"“{paper['title']}”"
    columns = tuple(
        PaperColumn(
            column["quantity"],
            column["title"],
            column.get("set"),
            tuple(column.get("metrics", entry.get("metrics", ()))),
            float(column["rate"]) if "rate" in column else None,
        )
        for column in entry["columns"]
    )
    return PaperTable(
        paper=stem,
        number=entry["number"],
        source=f"{source}, Table {entry['number']}",
        caption=entry["caption"],
        anchor=entry.get("anchor"),
        conditions=entry["conditions"],
        columns=columns,
        rows={name: tuple(cells) for name, cells in entry["rows"].items()},
        codec=paper["codec"],
        ours={
            name: tuple({**paper["all"], **facts} for facts in alternatives)
            for name, alternatives in entry.get("ours", {}).items()
        },
        aliases={name: tuple(own) for name, own in paper.get("aliases", {}).items()},
        average_of=tuple(entry.get("average_of", ())),
        measured={name: tuple(own) for name, own in entry.get("measured", {}).items()},
    )


def number(cell: str) -> float | None:
    """Return a cell's number, or ``None`` if it holds none (``-``, ``4+4``)."""
    try:
        return float(cell.removesuffix("%"))
    except ValueError:
        return None
