"""Make a paper's table: ``python -m experiments.paper ui2c table3``."""

from collections.abc import Sequence

from experiments.cli.command import check_folder, run_command
from experiments.cli.options import parse
from experiments.paper.options import PaperOptions
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
