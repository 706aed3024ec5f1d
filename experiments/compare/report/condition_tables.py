"""Under which conditions the numbers came about, and what coding cost, as tables."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import Comparison, Difference
from experiments.compare.protocol_check import EXPLANATIONS, describe
from experiments.drawing.tables import Table, as_text, metric_name, significant
from experiments.results.result import Point, Protocol, Result

MIB = 1 << 20


def differences_table(comparison: Comparison) -> Table:
    """What differs in the protocols although it should not, and what that costs."""
    table = Table("The protocols differ", ["what", "what it usually means"], texts=2)
    by_field: dict[str, list[Difference]] = {}
    for difference in comparison.differences:
        name = difference.field.partition(".")[0]
        by_field.setdefault(name, []).append(difference)
    for name, own in by_field.items():
        table.rows += [[clause, EXPLANATIONS[name]] for clause in describe(own)]
    return table


def protocol_table(results: Sequence[Result]) -> Table:
    """The protocol, one column for each result."""
    table = Table("Protocol", ["field", *(r.name for r in results)])
    table.texts = len(table.header)
    for entry in fields(Protocol):
        if entry.name != "definitions":
            values = [as_text(getattr(r.protocol, entry.name)) for r in results]
            table.rows.append([entry.name, *values])
    return table


def definitions_table(comparison: Comparison) -> Table:
    """What exactly each compared metric is."""
    table = Table("Metrics", ["metric", "definition"], texts=2)
    for metric in comparison.metrics:
        table.rows.append([metric_name(metric), METRICS[metric].definition])
    return table


def codec_table(result: Result) -> Table:
    """What defines one codec, and where it ran."""
    table = Table(result.name, ["what", "value"], texts=2)
    values = {"codec": result.codec, "environment": result.environment}
    table.rows = [[key, as_text(value)] for key, value in _leaves(values)]
    return table


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def bits_table(results: Sequence[Result]) -> Table:
    """Real against estimated bits, mean over each set's sequences."""
    table = Table(
        "Real and estimated bits",
        ["codec", "set", "rate", "real bpp", "estimated bpp", "difference"],
        texts=2,
    )
    for result in results:
        for (name, rate), pairs in _estimates(result).items():
            real, estimated = (sum(v) / len(v) for v in zip(*pairs, strict=True))
            difference = f"{100 * (real / estimated - 1):+.2f} %"
            bpp = [f"{real:.5f}", f"{estimated:.5f}"]
            table.rows.append([result.name, name, rate, *bpp, difference])
    return table


def _estimates(result: Result) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return real and estimated bpp of each set and rate, of its sequences."""
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for sequence, point in result.all_points():
        if point.estimated_bpp is not None:
            rate = f"{point.rate:g}"
            if point.target_bpp is not None:
                rate = f"for {point.target_bpp:g} bpp"
            own = pairs.setdefault((sequence.set, rate), [])
            own.append((point.bpp, point.estimated_bpp))
    return pairs


def cost_table(results: Sequence[Result]) -> Table:
    """Seconds per frame, mean over a set's points, and the greatest peak memory."""
    every = [point for result in results for _, point in result.all_points()]
    seconds = list(dict.fromkeys(name for point in every for name in point.seconds))
    memory = list(dict.fromkeys(name for p in every for name in p.peak_memory))
    table = Table(
        "Seconds per frame and peak memory",
        [
            "codec",
            "set",
            *(f"{name.replace('_', ' ')} (s)" for name in seconds),
            *(f"{name} memory (MiB)" for name in memory),
        ],
        texts=2,
    )
    for result in results:
        for name in dict.fromkeys(s.set for s in result.sequences):
            points = [p for s, p in result.all_points() if s.set == name]
            times = [_mean(p.seconds.get(key) for p in points) for key in seconds]
            peaks = [_peak(points, key) for key in memory]
            if any((*times, *peaks)):
                table.rows.append([result.name, name, *times, *peaks])
    return table


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return significant(sum(known) / len(known), 3) if known else ""


def _peak(points: Iterable[Point], name: str) -> str:
    known = [p.peak_memory[name] for p in points if name in p.peak_memory]
    return f"{max(known) / MIB:.0f}" if known else ""
