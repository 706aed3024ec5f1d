"""Decode videos into a store: ``python -m experiments.prepare IN OUT``."""

from collections.abc import Sequence

from experiments.cli.command import run_command
from experiments.cli.options import parse
from experiments.prepare.options import PrepareOptions

EPILOG = """\
examples:
  python -m experiments.prepare clips/ prepared/
  python -m experiments.prepare ORIGINALS LONG_CLIPS --height 720 --min_frames 32 \\
      --workers 16
  python -m experiments.prepare OPENVID prepared/ --source openvid --stride 3 \\
      --format jpeg --dry_run
  python -m experiments.prepare prepared/ --check
  python -m experiments.fit --config ui2c --data.source prepared --data.root prepared/

Sizes and times come first. The same command again goes on where a killed one was;
under srun or torchrun the processes share the work.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: prepare(parse(PrepareOptions, "prepare", argv, EPILOG)))


def prepare(options: PrepareOptions) -> int:
    """Make a store, go on with it, or check it.

    Raises:
        ValueError: The options do not fit the videos, or what OUT holds.
        OSError: Something stands in the way: a full disk, for example.
    """
    if options.check:
        from experiments.prepare.check import check_store

        return check_store(options.store)
    from experiments.prepare.work import make_store

    return make_store(options)
