"""Options of ``python -m experiments.paper``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.cli.options import option


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
