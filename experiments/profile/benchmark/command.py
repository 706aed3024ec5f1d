"""Measure this machine: ``python -m experiments.profile.benchmark``."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from experiments.cli.command import run_command
from experiments.cli.options import option, parse
from experiments.profile.benchmark.figures import Figure, Part, Settings
from experiments.results.drawing.tables import Table, print_table, words

PARTS: dict[str, str] = {
    "step": "experiments.profile.benchmark.step",
    "memory": "experiments.profile.benchmark.memory",
}
"""Module with ``measure`` of each part, in the order in which they run."""

EPILOG = """example:
  python -m experiments.profile.benchmark --parts data step"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Measure the speed of reading, training and coding on this machine.

    Attributes:
        parts: Parts to measure (default: all).
        form: ``small`` takes some seconds a part; ``full`` is for a table.
        device: Where networks run (default: cuda if there is one).
        clips: Folder of real videos, for parts that read some.
    """

    parts: tuple[str, ...] = option((), choices=PARTS)
    form: Literal["small", "full"] = "small"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    clips: Path | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(
        lambda: benchmark(parse(BenchmarkOptions, "profile.benchmark", argv, EPILOG))
    )


def benchmark(options: BenchmarkOptions) -> None:
    """Measure every part that is asked for, and print its figures as they come."""
    from experiments.bitstreams.coding_mode import choose_device

    device = choose_device(options.device).type
    with TemporaryDirectory() as scratch:
        settings = Settings(
            form=options.form,
            device=device,
            clips=options.clips,
            scratch=Path(scratch),
        )
        for name in options.parts or PARTS:
            part: Part = import_module(PARTS[name]).measure
            print_table(figure_table(name, part(settings)))


def figure_table(part: str, figures: Sequence[Figure]) -> Table:
    """Return a part's figures as a table."""
    rows = [[f.name, f.value, f.unit, f.goal, f.note] for f in figures]
    columns = words("figure", "value", "unit", "goal", "conditions")
    return Table(part, columns, rows)
