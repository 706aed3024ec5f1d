"""Find how far errors reach: ``python -m experiments.propagation ...``."""

from collections.abc import Sequence

from datamodules.whole_files import whole_or_nothing
from experiments.cli.command import check_folder, run_command
from experiments.cli.options import parse
from experiments.cli.progress import say
from experiments.propagation import plots
from experiments.propagation.findings import Report
from experiments.propagation.options import PropagationOptions
from experiments.propagation.tables import make_markdown, print_reports
from lightning_modules.numerics import pin

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
    return run_command(
        lambda: propagation(parse(PropagationOptions, "propagation", argv, EPILOG))
    )


def propagation(options: PropagationOptions) -> None:
    """Test as the options say, and write and show what was found.

    Raises:
        ValueError: An option is wrong, no test can be done, or coding fails.
    """
    check_folder(options.output)
    reports = [Report.load(path) for path in options.overlay]
    names = [report.name for report in reports]
    experiment = None
    if options.checkpoint:
        # Before the imports, which take seconds.
        say(f"loading {options.checkpoint}, looking at the sequences")
        pin(options.isa)
        from experiments.propagation.experiment import Experiment

        experiment = Experiment(options)
        names.append(experiment.name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"two are called {', '.join(twice)}: measure one of them with another "
            "--name"
        )
    if experiment:
        reports.insert(0, experiment.run())
        reports[0].save(options.output / "propagation.json")
    options.output.mkdir(parents=True, exist_ok=True)
    figures = plots.write_plots(reports, options.output)
    with whole_or_nothing(options.output / "propagation.md") as temporary:
        temporary.write_text(make_markdown(reports, figures))
    print_reports(reports)
