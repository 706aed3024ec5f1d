"""The checkpoint that a path means: a file, or the newest one of a run's folder."""

import sys
from argparse import ArgumentTypeError
from pathlib import Path

import yaml

from experiments.cli.launcher import is_first_process

LAST = "last.ckpt"


def checkpoint_option(text: str) -> Path:
    """Return the file that ``--checkpoint`` means, and say which if it is a folder's.

    Raises:
        ArgumentTypeError: It is a folder without a checkpoint, see
            :func:`find_checkpoint`.
    """
    try:
        path = find_checkpoint(Path(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    if path != Path(text) and is_first_process():
        print(f"checkpoint: {path}", file=sys.stderr)
    return path


def find_checkpoint(path: Path) -> Path:
    """Return ``last.ckpt`` of a stage, or of the last stage of a run that has one.

    Args:
        path: A stage's folder ``runs/NAME/STAGE`` or a run's ``runs/NAME``; anything
            else is given back.

    Raises:
        ValueError: It is a folder and has none, or does not say which stage is last.
    """
    if not path.is_dir():
        return path
    if (path / LAST).is_file():
        return path / LAST
    begun = {last.parent.name for last in path.glob(f"*/{LAST}")}
    if not begun:
        others = sorted([*path.glob("*.ckpt"), *path.glob("*/*.ckpt")])
        hint = f"; name a file, such as {others[0]}" if others else ""
        raise ValueError(
            f"{path} is a folder without a checkpoint: neither {path / LAST} nor "
            f"{path / 'STAGE' / LAST} exists{hint}"
        )
    if len(begun) == 1:
        return path / begun.pop() / LAST
    newest = [name for name in _stages(path) if name in begun][-1:]
    if not newest:
        raise ValueError(
            f"{path} has no config.yaml that says which of its stages is the last: "
            f"name one of {', '.join(str(path / name) for name in sorted(begun))}"
        )
    return path / newest[0] / LAST


def _stages(run: Path) -> list[str]:
    """Return the names of a run's stages in their order; none if it does not say."""
    try:
        rows = yaml.safe_load((run / "config.yaml").read_text())["stages"]
        return [str(row["name"]) for row in rows]
    except (OSError, UnicodeError, yaml.YAMLError, TypeError, KeyError):
        return []
