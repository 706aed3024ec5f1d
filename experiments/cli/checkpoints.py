"""The checkpoint that is meant: a file, the newest one of a run, or a shipped model."""

import sys
from argparse import ArgumentTypeError
from pathlib import Path

import yaml

from experiments.cli.launcher import is_first_process
from lightning_modules.shipped import find_model, shipped_models

LAST = "last.ckpt"


def checkpoint_option(text: str) -> Path:
    """Return the file that ``--checkpoint`` means, and say which if it is another path.

    Raises:
        ArgumentTypeError: See :func:`find_checkpoint`.
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
        path: A stage's folder ``runs/NAME/STAGE``, a run's ``runs/NAME``, or the name
            of a model that ships; anything else is given back. Where the user has a
            file or folder of such a name, that counts, and a note says so.

    Raises:
        ValueError: It is a folder and has none, or does not say which stage is last; or
            a bare name that is neither a path nor a shipped model's.
    """
    if path.exists() and str(path) in shipped_models() and is_first_process():
        print(
            f"note: {path} is {path.absolute()}; the suite's own model of that name "
            f"is {shipped_models()[str(path)]}",
            file=sys.stderr,
        )
    if not path.is_dir():
        return find_model(path)
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
