"""Show a result file in a terminal."""

from collections.abc import Sequence
from pathlib import Path

from callbacks.metrics.table import METRICS
from experiments.drawing.tables import Table, make_console, numbers, print_table, words
from experiments.results.result import Pool, Result


def print_result(result: Result, path: Path) -> None:
    """Print every point and pool, one line each, and what they lack.

    Args:
        result: What is shown; it holds more metrics.
        path: Where it was written.
    """
    console = make_console()
    print_table(_table_of_points(result, path), console)
    print_table(_table_of_pools(result), console)
    if "note" in result.codec:
        print(f"note: {result.name}: {result.codec['note']}")
    for text in pool_caveats(result.pools):
        print(text)
    for metric, reason in result.environment.get("unavailable", {}).items():
        # What is missing may be something else than it was then.
        print(f"not measured: {metric}: {METRICS[metric].lacks() or reason}")


def _table_of_points(result: Result, path: Path) -> Table:
    metrics = [name for name in result.metric_names() if METRICS[name].column]
    metrics = [name for name in metrics if not METRICS[name].pooled]
    progressive = any(point.scales for _, point in result.all_points())
    columns = [*words("set", "sequence"), *numbers("frames", "rate", spec=".4g")]
    columns += numbers("scales") if progressive else []
    columns += numbers("bpp", "estimated", spec=".5f")
    columns += numbers(*(METRICS[name].label for name in metrics), spec=".4g")
    columns += numbers("encode s", "decode s", spec=".3f")
    table = Table(f"{result.name}: {path}", columns)
    for sequence, point in result.all_points():
        row = [sequence.set, sequence.name, sequence.frames, point.rate]
        row += [point.scales or "all"] if progressive else []
        row += [point.bpp, point.estimated_bpp]
        row += [point.metrics[name] for name in metrics]
        row += [point.seconds.get(name) for name in ("encode", "decode")]
        table.rows.append(row)
    return table


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
