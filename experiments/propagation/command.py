"""Measure how far errors reach: ``python -m experiments.propagation ...``."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from datamodules.sequences import SEQUENCES
from experiments.cli import add_device_options, add_given, run_command
from experiments.propagation.numbers import DEFAULT_TESTS, TESTS
from lightning_modules import coding_options

EPILOG = """\
tests, each with real bitstreams that are decoded:
  position       the same frames, coded close to and far from the start of a clip
  slope          every frame against itself all-intra, over the length of a sequence
  low_reference  one unit coded at a low rate: what later frames lose and cost
  fluctuation    how steady quality is, and its jump at a later start
  sweep          bits at many rates: how many differ, do they rise
  target_rate    how close a rate search comes in four encodes
  sawtooth       the rate changes unit by unit: against the same rates held
The first four are done by default. With 104 frames the position test codes about 900
frames of each sequence, slope and fluctuation about 300, a sweep 65 times as many as
there are.

examples:
  python -m experiments.propagation --checkpoint ui2c.ckpt \\
      --sequences uvg=/data/UVG --output results/ui2c_propagation
  python -m experiments.propagation --checkpoint dd.ckpt --sequences patterns:2 \\
      --rate 0.33 0.67 --tests sweep target_rate --sweep 17 --output results/dd
  python -m experiments.propagation --output results/all \\
      --overlay results/ui2c/propagation.json results/dd/propagation.json

FOLDER gets propagation.json, propagation.md and figures. A position is the number of
frames between the start of a clip and the unit that is looked at; units of several
frames are compared as a whole, and only at positions at which the codec aims at the
same quality (UI2C: 2, 10, 18, ... frames). So 96 becomes the next one that there is.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(partial(propagation, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.propagation",
        description="Measure how far the errors of one frame reach into later ones, "
        "and how well a codec's rate obeys.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", metavar="CKPT", type=Path, help="trained codec")
    add("--sequences", metavar="SPEC", nargs="+", help=SEQUENCES)
    add("--output", metavar="FOLDER", type=Path, required=True, help="to write")
    add("--name", help="label of the curves (default: the codec's)")
    add(
        "--overlay",
        metavar="JSON",
        type=Path,
        nargs="+",
        default=[],
        help="show these files of earlier runs too; without --checkpoint only these",
    )
    add(
        "--tests",
        choices=list(TESTS),
        nargs="+",
        default=list(DEFAULT_TESTS),
        metavar="TEST",
        help=f"what to do: {', '.join(TESTS)} (default: the first four)",
    )
    add(
        "--rate",
        metavar="R",
        type=float,
        nargs="+",
        help="values of the codec's knob (default: the middle one of those that its "
        "paper reports)",
    )
    add(
        "--low_rate",
        metavar="L",
        type=float,
        help="of the unit of low quality, and where a sawtooth begins (default: the "
        "lowest there is)",
    )
    add(
        "--max_frames",
        metavar="N",
        type=int,
        default=104,
        help="of each sequence (default: 104, which position 96 needs for units of up "
        "to 8 frames)",
    )
    add(
        "--positions",
        metavar="N,N",
        type=parse_positions,
        help="of the position test (default: 1,2,4,8,16,32,64,96, those that the "
        "sequences are long enough for)",
    )
    add(
        "--targets",
        metavar="N",
        type=int,
        default=4,
        help="units that the position test looks at, spread over those with all "
        "positions (default: 4)",
    )
    add(
        "--sweep",
        metavar="N",
        type=int,
        help="do the sweep, at so many rates (default: only if --tests says so, at 65)",
    )
    add_given(parser, coding_options())
    add_device_options(parser)
    return parser


def parse_positions(text: str) -> tuple[int, ...]:
    """Turn ``1,2,4`` into numbers."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} are no positions: give numbers of frames from 1, like 1,2,4"
        )
    return tuple(map(int, parts))


def propagation(options: argparse.Namespace) -> None:
    """Measure as the options say, and write and show what was found.

    Raises:
        ValueError: An option is wrong, no test can be done, or coding fails.
    """
    _check(options)
    from datamodules.whole_files import whole_or_nothing
    from experiments.propagation.findings import Report
    from experiments.propagation.plots import write_plots
    from experiments.propagation.tables import make_markdown, print_reports

    others = [Report.load(path) for path in options.overlay]
    reports = []
    if options.checkpoint:
        from experiments.propagation.experiment import Experiment

        experiment = Experiment(options)
        _check_names([experiment.name, *(other.name for other in others)])
        reports.append(experiment.run())
        reports[0].save(options.output / "propagation.json")
    reports += others
    _check_names([report.name for report in reports])
    options.output.mkdir(parents=True, exist_ok=True)
    figures = write_plots(reports, options.output)
    with whole_or_nothing(options.output / "propagation.md") as temporary:
        temporary.write_text(make_markdown(reports, figures))
    print_reports(reports)


def _check(options: argparse.Namespace) -> None:
    if bool(options.checkpoint) != bool(options.sequences):
        raise ValueError("--checkpoint and --sequences go together: give both")
    if not (options.checkpoint or options.overlay):
        raise ValueError(
            "nothing to do: give --checkpoint and --sequences to measure, or --overlay "
            "to show what was measured"
        )
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"--output {options.output} is a file, it must be a folder")
    for name, least in (("max_frames", 2), ("targets", 1), ("sweep", 2)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}, it must be at least {least}")


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two are called {', '.join(twice)}: measure one of them with another "
            "--name"
        )
