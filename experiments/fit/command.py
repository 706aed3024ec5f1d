"""Train a codec, or go on where the run of that name stopped.

``python -m experiments.fit`` alone rehearses UI2C on synthetic clips.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.cli.command import run_command
from experiments.cli.configs import CONFIGS
from experiments.fit.loggers.wandb_identity import trial, with_names
from experiments.fit.options import build_parser, complete, instantiate, plain
from experiments.fit.run_name import with_values

REHEARSAL = (CONFIGS / "ui2c.yaml", CONFIGS / "rehearsal.yaml")

DESCRIPTION = """Train a codec, or go on where the run of that name stopped.

Without --config it rehearses UI2C on synthetic clips, in minutes on a CPU.
On a cluster: lvc fit --config ui2c --run NAME --data.root DIR --trainer.devices 8.
The same command again goes on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 after the whole schedule, 128 + signal number when a signal stopped it after
    saving, 2 for an error of the user's, 1 when training diverged or a process of the
    run was killed; each error is one line on stderr.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Training saves on SIGTERM, in a handler of its own, and needs nobody who looks on.
    return run_command(lambda: fit(arguments), sigterm_ends=False, outlives_reader=True)


def fit(arguments: list[str]) -> int:
    """Parse the options and train."""
    shows = {"-h", "--help", "--list_configs", "--stages.help"}
    describe_only = not shows.isdisjoint(arguments)
    parser = build_parser(DESCRIPTION, describe_only=describe_only)
    if not any(text.partition("=")[0] == "--config" for text in arguments):
        arguments = [f"--config={path}" for path in REHEARSAL] + arguments
    config = parser.parse_args(arguments)
    options = plain(parser, config)
    name = "-".join([*(Path(path).stem for path in config.config), *trial()])
    # Only a name that is given: text of a layer has braces of its own.
    options["run"] = with_values(options["run"] or "", options) or name
    options["tracking"] = with_names(
        options["tracking"], config.config, shrinks=config.shrink is not None
    )

    import torch

    from callbacks.guards import DivergedError
    from experiments.fit.lost import LostProcessError
    from experiments.fit.run import train

    # Before the network draws its weights.
    torch.manual_seed(config.seed)
    try:
        return train(options, instantiate(parser, config), partial(complete, parser))
    except (DivergedError, LostProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Before the first step, between two stages, or at the second Ctrl-C.
        print("interrupted: the same command goes on where it saved", file=sys.stderr)
        return 130
