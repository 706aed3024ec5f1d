"""Show a result file in a terminal."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from callbacks.metrics.table import METRICS
from experiments.results.result import Pool, Result

if TYPE_CHECKING:
    from rich.console import Console


def print_result(result: Result, path: Path) -> None:
    """Print every point of a result, one line each; the file holds more metrics."""
    from rich.console import Console
    from rich.table import Table

    shown = [
        name
        for name in result.metric_names()
        if METRICS[name].column and not METRICS[name].pooled
    ]
    headings = [METRICS[n].label for n in shown]
    table = Table(title=f"{result.name}: {path}", title_justify="left")
    columns = ["set", "sequence", "frames", "rate", "bpp", "estimated", *headings]
    progressive = any(point.scales for _, point in result.all_points())
    if progressive:
        columns.insert(4, "scales")
    for number, column in enumerate([*columns, "encode s", "decode s"]):
        table.add_column(column, justify="right" if number > 1 else "left")
    for sequence, point in result.all_points():
        estimated = point.estimated_bpp
        seconds = (point.seconds.get(name) for name in ("encode", "decode"))
        table.add_row(
            sequence.set,
            sequence.name,
            str(sequence.frames),
            f"{point.rate:.4g}",
            *([str(point.scales or "all")] if progressive else []),
            f"{point.bpp:.5f}",
            "" if estimated is None else f"{estimated:.5f}",
            *(f"{point.metrics[name]:.4g}" for name in shown),
            *("" if value is None else f"{value:.3f}" for value in seconds),
        )
    # Without a terminal a line is as long as it must be.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)
    _print_pools(result, Console(width=width))
    for metric, reason in result.environment.get("unavailable", {}).items():
        # What is missing may be something else than when it was measured.
        print(f"not measured: {metric}: {METRICS[metric].lacks() or reason}")


def _print_pools(result: Result, console: "Console") -> None:
    """Print FID and KID of every set at every rate, and what they lack."""
    from rich.table import Table

    shown = [n for n, m in METRICS.items() if m.pooled and n in result.metric_names()]
    if shown:
        table = Table(title="of all sequences of a set together", title_justify="left")
        columns = ["set", "sequences", "rate", "bpp"]
        for name in shown:
            columns += [METRICS[name].label, "samples"]
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for pool in result.pools:
            cells = [pool.set, str(len(pool.sequences))]
            cells += [pool.target or f"{pool.rate:.4g}", f"{pool.bpp:.5f}"]
            for name in shown:
                value = pool.metrics.get(name)
                cells += ["" if value is None else f"{value:.4g}"]
                cells += [str(pool.samples.get(name, ""))]
            table.add_row(*cells)
        console.print(table)
    for text in pool_caveats(result.pools):
        print(text)


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
