"""Under which conditions the numbers came about, and what coding cost, as tables."""

from collections.abc import Iterable, Sequence
from typing import Any

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import Comparison, Difference
from experiments.compare.protocol_check import EXPLANATIONS, NOT_STATED, describe
from experiments.results.drawing.tables import Table, metric_name, numbers, words
from experiments.results.result import PROTOCOL_FIELDS, Result

MIB = 1 << 20


def differences_table(comparison: Comparison) -> Table:
    """What differs in the protocols although it should not, and what that costs."""
    table = Table("The protocols differ", words("what", "what it usually means"))
    by_field: dict[str, list[Difference]] = {}
    for difference in comparison.differences:
        name = difference.field.partition(".")[0]
        by_field.setdefault(name, []).append(difference)
    for name, own in by_field.items():
        table.rows += [[clause, EXPLANATIONS[name]] for clause in describe(own)]
    return table


def protocol_table(results: Sequence[Result]) -> Table:
    """The protocol, one column for each result."""
    return Table(
        "Protocol",
        words("field", *(result.name for result in results), missing=NOT_STATED),
        [
            [name, *(getattr(result.protocol, name) for result in results)]
            for name in PROTOCOL_FIELDS
        ],
    )


def definitions_table(comparison: Comparison) -> Table:
    """What exactly each compared metric is."""
    rows = [[metric_name(m), METRICS[m].definition] for m in comparison.metrics]
    return Table("Metrics", words("metric", "definition"), rows)


def codec_table(result: Result) -> Table:
    """What defines one codec, and where it ran."""
    values = {"codec": result.codec, "environment": result.environment}
    rows = [list(leaf) for leaf in _leaves(values)]
    return Table(result.name, words("what", "value", missing=NOT_STATED), rows)


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def measurement_tables(
    comparison: Comparison, results: Sequence[Result]
) -> list[Table]:
    """Return what every kind of report shows after the BD numbers."""
    return [
        bits_table(results),
        cost_table(results),
        protocol_table(results),
        definitions_table(comparison),
    ]


def bits_table(results: Sequence[Result]) -> Table:
    """Real against estimated bits, mean over each set's sequences."""
    values = ("rate", "real bpp", "estimated bpp", "difference")
    columns = [*words("codec", "set"), *numbers(*values, spec=".5f")]
    table = Table("Real and estimated bits", columns)
    for result in results:
        for (name, rate), pairs in _estimates(result).items():
            real, estimated = (sum(v) / len(v) for v in zip(*pairs, strict=True))
            difference = f"{100 * (real / estimated - 1):+.2f} %"
            table.rows.append([result.name, name, rate, real, estimated, difference])
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
    seconds = dict.fromkeys(name for point in every for name in point.seconds)
    memory = dict.fromkeys(name for point in every for name in point.peak_memory)
    table = Table(
        "Seconds per frame and peak memory",
        [
            *words("codec", "set"),
            *numbers(*(f"{n.replace('_', ' ')} (s)" for n in seconds), spec=".3g"),
            *numbers(*(f"{name} memory (MiB)" for name in memory), spec=".0f"),
        ],
    )
    for result in results:
        for name in dict.fromkeys(s.set for s in result.sequences):
            points = [p for s, p in result.all_points() if s.set == name]
            times = [_known(p.seconds.get(key) for p in points) for key in seconds]
            peaks = [_known(p.peak_memory.get(key) for p in points) for key in memory]
            if any((*times, *peaks)):
                means = [sum(own) / len(own) if own else None for own in times]
                most = [max(own) / MIB if own else None for own in peaks]
                table.rows.append([result.name, name, *means, *most])
    return table


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
