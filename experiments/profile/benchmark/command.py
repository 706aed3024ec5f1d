"""Measure this machine: ``python -m experiments.profile.benchmark``."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from experiments.cli.command import check_folder, run_command
from experiments.cli.options import option, parse
from experiments.cli.progress import say
from experiments.profile.benchmark.figures import Settings

PARTS: dict[str, str] = {
    "gpu_tests": "experiments.profile.benchmark.gpu_tests",
    "fit": "experiments.profile.benchmark.fit",
    "coding": "experiments.profile.benchmark.coding",
    "one_rank": "experiments.profile.benchmark.one_rank",
    "determinism": "experiments.profile.benchmark.determinism",
    "data": "experiments.profile.benchmark.data",
    "loader_memory": "experiments.profile.benchmark.loader_memory",
    "step": "experiments.profile.benchmark.step",
    "memory": "experiments.profile.benchmark.memory",
    "precision": "experiments.profile.benchmark.precision",
    "entropy": "experiments.profile.benchmark.entropy",
    "overlap": "experiments.profile.benchmark.overlap",
}
"""Module with ``measure`` of each part, in the order in which they run."""

USUAL = ("gpu_tests", "fit", "coding", "one_rank", "determinism", "entropy")
"""Parts that run if none is named; the others take minutes of a CPU each."""

SHARES = {"gpu_tests": 0.15, "fit": 0.5, "coding": 0.3, "determinism": 0.2}
"""Of the whole time, at most, of the parts that take long; others have 0.15.

They are more than 1 together: parts seldom take all that they may. The last one has
all that is left.
"""

MINUTES = {"small": 2.0, "full": 10.0}
"""Of all parts together, where nothing else is asked for."""

LEAST = 5.0
"""Seconds in which no part would come to its first figure."""

EPILOG = """examples:
  python -m experiments.profile.benchmark --output results/h200.json
  python -m experiments.profile.benchmark --parts fit coding --minutes 5"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Measure the speed of training, coding and reading on this machine.

    It needs no network, and neither decord, PyAV nor compressai. Each part runs in a
    process of its own; one that fails is named, and the others still run.

    Attributes:
        parts: Parts to measure (default: gpu_tests fit coding one_rank determinism
            entropy).
        form: small takes two minutes on any machine and proves that everything runs;
            full is for a table (default: full if there is a GPU).
        device: Where networks run (default: cuda if there is one).
        clips: Folder of real videos, for parts that read some.
        minutes: Of all parts together (default: 2 in the small form, 10 in the full
            one).
        output: JSON file; the same as Markdown lies beside it.

    Raises:
        ValueError: A value is out of range.
    """

    parts: tuple[str, ...] = option((), choices=PARTS)
    form: Literal["auto", "small", "full"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    clips: Path | None = None
    minutes: float | None = option(None, metavar="N")
    output: Path = option(Path("benchmark.json"), metavar="JSON")

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise ValueError(f"--minutes is {self.minutes}, it must be above 0")
        if self.output.suffix != ".json":
            raise ValueError(f"--output {self.output} must end in .json")
        check_folder(self.output.parent)
        if self.clips and not self.clips.is_dir():
            raise ValueError(f"--clips: there is no folder {self.clips}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`.

    It is 1 if a part, or a figure of one, failed.
    """
    return run_command(
        lambda: benchmark(parse(BenchmarkOptions, "profile.benchmark", argv, EPILOG))
    )


def benchmark(options: BenchmarkOptions) -> int:
    """Measure every part that is asked for, and print its figures as they come."""
    # Imported here: torch takes seconds.
    from experiments.bitstreams.coding_mode import choose_device
    from experiments.profile.benchmark.machine import describe_machine
    from experiments.profile.benchmark.part import run_part
    from experiments.profile.benchmark.report import Report, figure_table
    from experiments.results.drawing.tables import print_table

    device = choose_device(options.device).type
    form = options.form
    if form == "auto":
        form = "full" if device == "cuda" else "small"
    whole = 60 * (options.minutes or MINUTES[form])
    names = list(dict.fromkeys(options.parts or USUAL))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report = Report(form, describe_machine(), list(names))
    report.write(options.output)
    say(f"{form} form on {device}: {', '.join(names)}; at most {_clock(whole)}")
    begun = time.monotonic()
    while report.unfinished:
        name = report.unfinished[0]
        left = whole - (time.monotonic() - begun)
        share = 1.0 if len(report.unfinished) == 1 else SHARES.get(name, 0.15)
        seconds = min(left, share * whole)
        if seconds < LEAST:
            break
        say(f"{name}: at most {_clock(seconds)}, {_clock(left)} are left for all")
        with TemporaryDirectory(prefix="benchmark-") as scratch:
            settings = Settings(
                form=form,
                device=device,
                clips=options.clips,
                scratch=Path(scratch),
                seconds=seconds,
            )
            try:
                outcome = run_part(name, PARTS[name], settings)
            except KeyboardInterrupt:
                rest = ", ".join(report.unfinished)
                say(f"interrupted: {options.output} holds all but {rest}")
                return 130
        report.outcomes.append(outcome)
        report.unfinished.remove(name)
        report.write(options.output)
        print_table(figure_table(name, outcome.figures))
        for text in outcome.errors:
            say(f"failed: {name}: {text}")
    if report.unfinished:
        say(
            f"left out, for the {_clock(whole)} are over: "
            f"{', '.join(report.unfinished)}; --minutes gives more, --parts chooses"
        )
    print(f"figures: {options.output}, {options.output.with_suffix('.md')}")
    return int(report.failed)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
