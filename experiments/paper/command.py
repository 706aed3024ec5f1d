"""Make a paper's table: ``python -m experiments.paper ui2c table3``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.cli.command import check_folder, run_command
from experiments.cli.options import option, parse
from experiments.paper.recipe import find_recipe, read_recipe

EPILOG = """\
examples:
  python -m experiments.paper
  python -m experiments.paper ui2c table3 --dry_run
  python -m experiments.paper ui2c table3 --rehearse
  python -m experiments.paper ui2c table3 --jobs 2
  python -m experiments.paper my_ablation.yaml --launcher slurm \\
      --slurm partition=gpu gpus_per_node=8

Without a recipe it lists those of the suite. The same command again goes on where it
stopped, however it stopped: what is there and was made alike is not made again. A job
that fails is named, and the others run on. FOLDER gets runs, results and jobs (records
and logs), which recipes share, and a folder with each recipe's table and report.
"""


@dataclass(frozen=True, kw_only=True)
class PaperOptions:
    """Make a table or a figure of a paper, or of one's own: train, measure, compare.

    Attributes:
        recipe: A codec and a number, as ui2c table3, or a recipe file.
        output: Folder for all files (default: papers/CODEC, or papers/FILE).
        dry_run: Print the plan, as commands that can be pasted, and end.
        rehearse: Make everything tiny: networks, schedules and synthetic clips, in
            minutes on a CPU, in a folder of its own.
        launcher: Where jobs run: local, slurm, or commands, which prints them for
            other schedulers.
        jobs: Local jobs at a time.
        slurm: Parameters of sbatch for slurm, as partition=gpu or time=24:00:00.
        fit: Options of every fit, as trainer.devices=8.
        wandb: Log to W&B: a group for the table, runs of each job type, and a run with
            the table itself, whose rows fill while jobs run.
        sweep: Write a W&B sweep file over these options of fit, as
            model.lmbda=0.05,0.1,0.2, and end.
        write: Only write the table and the report, of what is measured already.
    """

    recipe: tuple[str, ...] = option((), metavar="RECIPE", nargs="*", positional=True)
    output: Path | None = option(None, metavar="FOLDER")
    dry_run: bool = False
    rehearse: bool = False
    launcher: Literal["local", "slurm", "commands"] = "local"
    jobs: int = option(1, metavar="N")
    slurm: tuple[str, ...] = option((), metavar="NAME=VALUE")
    fit: tuple[str, ...] = option((), metavar="OPTION=VALUE")
    wandb: bool = False
    sweep: tuple[str, ...] = option((), metavar="OPTION=A,B")
    write: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"--jobs {self.jobs}: it must be at least 1")
        for text in (*self.slurm, *self.fit, *self.sweep):
            if not text.partition("=")[1]:
                raise ValueError(f"{text!r} must be as NAME=VALUE")
        if self.slurm and self.launcher != "slurm":
            raise ValueError("--slurm needs --launcher slurm")

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        if self.output:
            return self.output
        first = Path(self.recipe[0])
        name = first.stem if first.suffix else self.recipe[0].partition("/")[0]
        return Path("papers", *(["rehearsal"] if self.rehearse else []), name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: make(parse(PaperOptions, "paper", argv, EPILOG)))


def make(options: PaperOptions) -> int:
    """Do as the options say.

    Raises:
        ValueError: The recipe, an option, or a variable is wrong.
    """
    if not options.recipe:
        from experiments.paper.overview import print_overview

        print_overview()
        return 0
    recipe = read_recipe(find_recipe(list(options.recipe)))
    check_folder(options.folder)
    from experiments.paper.engine import carry_out

    return carry_out(recipe, options)
