"""Show a result file in a terminal."""

from collections.abc import Sequence
from pathlib import Path

from callbacks.metrics.table import METRICS
from experiments.evaluate.means import means_by_rate
from experiments.results.drawing.tables import (
    Table,
    make_console,
    numbers,
    print_table,
    words,
)
from experiments.results.result import Pool, Result

WIDTH = 100
"""Characters that a table of points takes at most, also in a wider terminal."""

GAP, EDGE = 3, 1
"""Characters between two columns, and those more around all."""


def print_result(result: Result, path: Path) -> None:
    """Print every point and pool, the means of each set, and what they lack.

    Args:
        result: What is shown; it holds more metrics.
        path: Where it was written.
    """
    console = make_console()
    width = min(WIDTH, console.width)
    for table in (_table_of_points(result, path), *_tables_of_means(result)):
        for part in in_width(table, width):
            print_table(part, console)
    print_table(_table_of_pools(result), console)
    if "note" in result.codec:
        print(f"note: {result.name}: {result.codec['note']}")
    for text in pool_caveats(result.pools):
        print(text)
    reasons: dict[str, list[str]] = {}
    for metric, reason in result.environment.get("unavailable", {}).items():
        # What is missing may be something else than it was then.
        reasons.setdefault(METRICS[metric].lacks() or reason, []).append(metric)
    for reason, names in reasons.items():
        print(f"not measured: {', '.join(names)}: {reason}")


def _table_of_points(result: Result, path: Path) -> Table:
    metrics = [name for name in result.metric_names() if METRICS[name].column]
    metrics = [name for name in metrics if not METRICS[name].pooled]
    progressive = any(point.scales for _, point in result.all_points())
    columns = [*words("set", "sequence"), *numbers("frames", "rate", spec=".4g")]
    columns += numbers("scales") if progressive else []
    columns += numbers("bpp", "estimated", spec=".5f")
    columns += numbers(*(_broken(METRICS[name].label) for name in metrics), spec=".4g")
    columns += numbers("encode\nseconds", "decode\nseconds", spec=".3f")
    table = Table(f"{result.name}: {path}", columns)
    for sequence, point in result.all_points():
        row = [sequence.set, sequence.name, sequence.frames, point.rate]
        row += [point.scales or "all"] if progressive else []
        row += [point.bpp, point.estimated_bpp]
        row += [point.metrics[name] for name in metrics]
        row += [point.seconds.get(name) for name in ("encode", "decode")]
        table.rows.append(row)
    return table


def _tables_of_means(result: Result) -> list[Table]:
    """Return every metric of each set, if that is more than the points show."""
    means = means_by_rate(result)
    tables = []
    for name in dict.fromkeys(own for own, _ in means):
        rates = {at: values for (own, at), values in means.items() if own == name}
        columns = [*words("mean"), *numbers(*rates, spec=".5g")]
        table = Table(f"{name}: mean over all frames", columns)
        for metric in ("bpp", *result.metric_names()):
            label = metric
            if metric in METRICS:
                unit = METRICS[metric].unit
                label = METRICS[metric].label + (f" ({unit})" if unit else "")
            values = [own.get(metric) for own in rates.values()]
            table.rows.append([label, *values])
        tables.append(table)
    return tables


def _broken(label: str) -> str:
    """Return a label in two lines, if it has several words."""
    return "\n".join(label.rsplit(" ", 1))


def in_width(table: Table, width: int = WIDTH) -> list[Table]:
    """Return a table as several that are no wider than asked for.

    Each repeats the columns up to the last one of words, and those called ``rate`` and
    ``scales``, by which its rows are told apart.
    """
    texts = [[c.label for c in table.columns], *table.texts()]
    widths = [
        GAP + max(len(line) for row in texts for line in row[n].split("\n"))
        for n in range(len(table.columns))
    ]
    last = max(n for n, c in enumerate(table.columns) if c.is_words)
    keys = [
        n
        for n, c in enumerate(table.columns)
        if n <= last or c.label in ("rate", "scales")
    ]
    first = [n for n in range(len(widths)) if n not in keys]
    blocks: list[list[int]] = [[]]
    for n in first:
        taken = EDGE + sum(widths[k] for k in (*keys, *blocks[-1]))
        if blocks[-1] and taken + widths[n] > width:
            blocks.append([])
        blocks[-1].append(n)
    parts: list[Table] = []
    for block in blocks:
        chosen = sorted([*keys, *block])
        rows = [[row[n] for n in chosen] for row in table.rows]
        columns = [table.columns[n] for n in chosen]
        parts.append(Table(table.title if not parts else "", columns, rows))
    return parts


def _table_of_pools(result: Result) -> Table:
    metrics = [name for name in result.metric_names() if METRICS[name].pooled]
    columns = [*words("set"), *numbers("sequences", "rate", spec=".4g")]
    columns += numbers("bpp", spec=".5f")
    for name in metrics:
        columns += numbers(METRICS[name].label, "samples", spec=".4g")
    table = Table("of all sequences of a set together", columns)
    for pool in result.pools if metrics else ():
        row = [pool.set, len(pool.sequences), pool.target or pool.rate, pool.bpp]
        for name in metrics:
            row += [pool.metrics.get(name), pool.samples.get(name)]
        table.rows.append(row)
    return table


def pool_caveats(pools: Sequence[Pool]) -> list[str]:
    """Return what pools lack and what biases them, each said once for a set."""
    found = []
    for pool in pools:
        found += [
            f"not measured: {name} of {pool.set}: {reason}"
            for name, reason in pool.unavailable.items()
        ]
        found += [
            f"caution: {name} of {pool.set} is of {count} samples, below "
            f"{METRICS[name].fewest_samples} biased upwards: compare it with values of "
            "as many only"
            for name, count in pool.samples.items()
            if count < METRICS[name].fewest_samples
        ]
    return list(dict.fromkeys(found))
