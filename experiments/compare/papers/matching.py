"""Which printed row a result is, and the papers' BD-rates beside ours.

A codec of another suite goes by its name. A codec of ours never does: an ablation, a
rehearsal size or a model that was trained for another distortion has the same name and
is not in the paper. It is a row if everything that the row states is true of it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from experiments.compare.comparison import (
    Curve,
    PaperNumber,
    PaperRow,
    Row,
    headline_kind,
)
from experiments.compare.papers import PaperColumn, PaperTable, load_tables, number
from experiments.results.result import PROTOCOL_FIELDS, Result

UNSET = "unset"
"""Value of a fact that a codec must not state."""

OR = " | "
"""Between values of which any will do."""


class Published(NamedTuple):
    """One BD-rate in %, where it stands, and the printed name of its row."""

    codec: str
    column: PaperColumn
    table: PaperTable
    bd_rate: float


def is_printed_as(
    result: Result, table: PaperTable, name: str, metric: str | None = None
) -> bool:
    """Whether a result is that of a printed name, of a row or of an anchor.

    Args:
        result: Any result.
        table: Where the name is printed.
        name: As printed.
        metric: The one that is compared: a row may be another model in each.
    """
    if result.codec.get("kind") != "learned":
        printed = {_plain(name), *map(_plain, table.aliases.get(name, ()))}
        return not printed.isdisjoint(
            {_plain(str(result.codec.get("name"))), _plain(result.name)}
        )
    facts = facts_of(result)
    return result.codec.get("name") == table.codec and any(
        _holds(stated, facts, metric) for stated in table.ours.get(name, ())
    )


def facts_of(result: Result) -> dict[str, Any]:
    """Return what defines a codec of ours: architecture, training, coding."""
    parts = ("architecture", "training", "options")
    return {k: v for part in parts for k, v in (result.codec.get(part) or {}).items()}


def _holds(
    stated: Mapping[str, Any], facts: dict[str, Any], metric: str | None
) -> bool:
    stated = dict(stated)
    metrics = stated.pop("metrics", None)
    if metrics and metric not in metrics:
        return False
    return all(
        _text(facts.get(name, UNSET)) in _values(value)
        for name, value in stated.items()
    )


def _values(stated: Any) -> list[str]:
    return stated.split(OR) if isinstance(stated, str) else [_text(stated)]


def _text(value: Any) -> str:
    """Return a value as a YAML file would have it: ``true``, ``768``, ``1,768``."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)


def published(
    codec: Result, anchor: Result, set: str | None, metric: str
) -> Iterator[Published]:
    """Give the papers' BD-rates of a codec against an anchor.

    A ``set`` of ``None`` asks for the papers' averages.
    """
    for table in load_tables():
        if table.anchor is None or not is_printed_as(
            anchor, table, table.anchor, metric
        ):
            continue
        for name, cells in table.rows.items():
            if not is_printed_as(codec, table, name, metric):
                continue
            for column, cell in zip(table.columns, cells, strict=True):
                is_asked = column.quantity == "bd_rate" and column.set == set
                value = number(cell)
                if is_asked and metric in column.metrics and value is not None:
                    yield Published(name, column, table, value)


def numbers_beside(
    rows: Sequence[Row],
    anchor: Result,
    others: Sequence[Result],
    sets: Sequence[str],
) -> tuple[PaperNumber, ...]:
    """Find the papers' numbers for the means over ``sets`` that were computed."""
    by_name = {result.name: result for result in others}
    found = []
    for row in rows:
        if row.kind != headline_kind(row.metric, row.set):
            continue
        result = by_name[row.codec]
        for printed in published(result, anchor, row.set, row.metric):
            table = printed.table
            differs = conditions_that_differ(table, result)
            version = str(anchor.codec.get("version", ""))
            if version and version not in str(table.anchor):
                differs.append(f"the anchor is {table.anchor} there, {version} here")
            if row.set is None and {*table.average_of} != {*sets}:
                over = ", ".join(table.average_of) or "sets that it does not list"
                differs.append(f"the paper averages over {over}")
            found.append(
                PaperNumber(
                    codec=printed.codec,
                    anchor=table.anchor or "",
                    set=row.set,
                    metric=row.metric,
                    bd_rate=printed.bd_rate,
                    source=table.source,
                    conditions=table.conditions,
                    row=(row.codec, row.metric, row.set),
                    differs=tuple(differs),
                )
            )
    return tuple(found)


def rows_beside(
    results: Sequence[Result], curves: Sequence[Curve]
) -> tuple[PaperRow, ...]:
    """Find the papers' rows of measured values that results stand for.

    Args:
        results: Those that are compared, the anchor among them.
        curves: Theirs, of all metrics.
    """
    found = []
    for table in load_tables():
        for name, metrics in table.measured.items():
            for result in results:
                if not is_printed_as(result, table, name):
                    continue
                own = [c for c in curves if c.codec == result.name and not c.sequence]
                found.append(
                    PaperRow(
                        codec=result.name,
                        row=name,
                        source=table.source,
                        metrics=metrics,
                        titles=tuple(column.title for column in table.columns),
                        printed=table.rows[name],
                        ours=tuple(
                            tuple(_at(own, metric, column.rate) for metric in metrics)
                            for column in table.columns
                        ),
                        differs=tuple(conditions_that_differ(table, result)),
                    )
                )
    return tuple(found)


def _at(curves: Sequence[Curve], metric: str, rate: float | None) -> float | None:
    """Return a metric at a rate, mean over the sets, if all have it."""
    own = {
        c.set: (c.bpp if metric == "bpp" else c.quality)[c.rates.index(rate)]
        for c in curves
        if metric in ("bpp", c.metric) and rate in c.rates
    }
    return (
        fmean(own.values()) if own and own.keys() == {c.set for c in curves} else None
    )


def conditions_that_differ(table: PaperTable, result: Result) -> list[str]:
    """Say which conditions of a measurement a table states that a result has not."""
    differs = []
    for name in PROTOCOL_FIELDS:
        ours = getattr(result.protocol, name)
        if name == "max_frames" and ours == 0:
            ours = "all"
        theirs = table.conditions.get(name, "not stated")
        if ours is not None and theirs != "not stated" and str(ours) != theirs:
            differs.append(f"{name} is {theirs} in the paper and {ours} here")
    return differs


def _plain(name: str) -> str:
    """Return a name without capitals, spaces and punctuation; ``²`` as ``2``."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("²", "2"))
