"""A run's folder: what defines the run, what is finished, where to go on.

::

    runs/NAME/config.yaml          everything that defines the run
    runs/NAME/metrics.csv          every scalar: step, stage, name, value
    runs/NAME/STAGE/last.ckpt      where the stage goes on, or ended
    runs/NAME/STAGE/best.ckpt      lowest validation loss of the stage
    runs/NAME/media/               strips and clips of the validations
    runs/NAME/wandb/               W&B's own files
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from datamodules.whole_files import whole_or_nothing
from lightning_modules.stages import Stage

FREE = (
    "config",
    "runs_dir",
    "run",
    "data.root",
    "data.list_file",
    "data.val_root",
    "data.val_list_file",
    "data.workers",
    "tracking",
    "logger",
    "to_stage",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.log_every_n_steps",
    "trainer.val_every_n_steps",
    "trainer.save_every_n_steps",
    "trainer.check_ranks_every_n_steps",
    "trainer.threads",
)
"""Options that may change when a run goes on: where it runs, not what it computes."""


class RunFolder:
    """One run's folder.

    Args:
        path: ``runs/NAME``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def last(self, stage: str) -> Path:
        """Return where a stage's newest checkpoint lies."""
        return self.path / stage / "last.ckpt"

    def steps_done(self, stages: list[Stage]) -> list[int | None]:
        """Return each stage's steps done, ``None`` where it has not saved any.

        Only the newest checkpoint is read: the stages before it are finished.
        """
        import torch

        begun = [stage for stage in stages if self.last(stage.name).exists()]
        if not begun:
            return [None] * len(stages)
        newest = stages.index(begun[-1])
        path = self.last(begun[-1].name)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        finished = [stage.steps for stage in stages[:newest]]
        later = len(stages) - newest - 1
        return [*finished, int(checkpoint["global_step"]), *[None] * later]

    def check(self, config: dict[str, Any]) -> None:
        """Compare with the run that the folder holds already, if it got anywhere.

        Raises:
            ValueError: Something that defines the run has changed.
        """
        if not any(self.path.glob("*/last.ckpt")):
            # An error in the options, say, which the next try mends.
            return
        path = self.path / "config.yaml"
        if not path.exists():
            raise ValueError(
                f"{self.path} has checkpoints but no config.yaml: give another "
                "--run, or remove the folder"
            )
        before = dict(_leaves(yaml.safe_load(path.read_text())))
        now = dict(_leaves(config))
        changed = [
            key
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and not _is_free(key)
        ]
        if changed:
            lines = [
                f"  {key}: {before.get(key)!r} -> {now.get(key)!r}" for key in changed
            ]
            raise ValueError(
                f"run {self.path.name!r} was begun with other options:\n"
                + "\n".join(lines)
                + "\nGive another --run to start a new one (with --init_from "
                f"{self.path}/STAGE/last.ckpt to fork), or the old options to go on."
            )

    def write_config(self, config: dict[str, Any]) -> None:
        """Write ``config.yaml`` whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, entry in enumerate(value):
            yield from _leaves(entry, f"{key}[{number}]")
    else:
        yield key, value


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)
