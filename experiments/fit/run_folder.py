"""A run's folder: what defines the run, what is finished, where to go on.

::

    runs/NAME/config.yaml          everything that defines the run
    runs/NAME/metrics.csv          every scalar: step, stage, name, value
    runs/NAME/STAGE/last.ckpt      where the stage goes on, or ended
    runs/NAME/STAGE/best.ckpt      lowest validation loss of the stage
    runs/NAME/media/               strips and clips of the validations
    runs/NAME/wandb/               W&B's own files
    runs/NAME/tensorboard/         TensorBoard's
    runs/NAME/.lock                locked while a process works on the run
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from datamodules.whole_files import whole_or_nothing
from experiments.cli.lock import LockedError, locked
from experiments.fit.loggers.metrics_csv import read_metrics
from lightning_modules.saved_file import read_saved
from lightning_modules.stages import Stage

FREE = (
    "config",
    "runs_dir",
    "run",
    "init_from_min_share",
    "data.root",
    "data.list_file",
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

MOVABLE = ("data.val_root", "data.val_list_file")
"""May change too, but not appear: without them, validation takes a part of training."""

FINGERPRINT = "data.fingerprint"
"""What a prepared store holds defines a run, where it lies does not."""

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
"""Names that ``whole_or_nothing`` gives to files that are not whole yet."""


class RunInUseError(ValueError):
    """Another process works on a run."""


class RunFolder:
    """One run's folder, ``runs/NAME``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def named(cls, runs_dir: str | Path, name: str) -> "RunFolder":
        """Return the folder of a run.

        Raises:
            ValueError: A run of that name would not lie in ``runs_dir``.
        """
        parts = name.split("/")
        if not set(parts).isdisjoint({"", ".", ".."}):
            raise ValueError(
                f"--run {name!r} would not be a folder of its own in {runs_dir}: give "
                "a name, and the place as --runs_dir"
            )
        return cls(Path(runs_dir, name))

    def last(self, stage: str) -> Path:
        """Return where a stage's newest checkpoint lies."""
        return self.path / stage / "last.ckpt"

    def steps_done(self, stages: list[Stage]) -> list[int | None]:
        """Return each stage's steps done, ``None`` where it has not saved any.

        Only the newest checkpoint is read: the stages before it are finished.
        """
        begun = [stage for stage in stages if self.last(stage.name).exists()]
        if not begun:
            return [None] * len(stages)
        newest = stages.index(begun[-1])
        path = self.last(begun[-1].name)
        done = int(self.load(path)["global_step"])
        finished = [stage.steps for stage in stages[:newest]]
        later = len(stages) - newest - 1
        return [*finished, done, *[None] * later]

    def load(self, path: Path) -> dict[str, Any]:
        """Read one of the run's checkpoints.

        Raises:
            ValueError: It was cut or has changed since it was written, or is none that
                ``fit`` wrote.
        """
        try:
            checkpoint: dict[str, Any] = read_saved(path)
        except ValueError as error:
            other = path.with_name("best.ckpt")
            copy = (
                f", copy {other} over it to go on from there" if other.exists() else ""
            )
            raise ValueError(
                f"{path} {error}: remove it to repeat that stage{copy}, or restore it"
            ) from error
        try:
            int(checkpoint["global_step"])
            dict(checkpoint["state_dict"])
        except Exception as error:
            raise foreign(path, error) from error
        return checkpoint

    def resumption(self, stages: list[Stage], done: list[int | None]) -> str | None:
        """Say where a run goes on; None for one that is new or has ended.

        Args:
            stages: Those that belong to it.
            done: As :meth:`steps_done` gives it, of these stages.
        """
        begun = [number for number, steps in enumerate(done) if steps is not None]
        if not begun:
            return None
        newest = stages[begun[-1]]
        steps = done[begun[-1]] or 0
        if steps < newest.steps:
            where = f"in stage {newest.name}, after step {steps} of {newest.steps}"
        elif newest is not stages[-1]:
            following = stages[begun[-1] + 1]
            where = f"with stage {following.name}, as {newest.name} is finished"
        else:
            return None
        return f"run {self.path.name} goes on {where}"

    def kept(self, stages: list[str]) -> str:
        """Say which checkpoints there are, and how another run starts from one.

        Args:
            stages: The names of those that have begun. The newest that has checkpoints
                is the one that is looked at.
        """
        for stage in reversed(stages):
            paths = [self.path / stage / f"{name}.ckpt" for name in ("best", "last")]
            if found := [path for path in paths if path.exists()]:
                steps = [int(self.load(path)["global_step"]) for path in found]
                texts = [
                    f"{path} (step {step})"
                    for path, step in zip(found, steps, strict=True)
                ]
                return (
                    f"kept from before: {' and '.join(texts)}; start another --run "
                    "from one with --init_from and --from_stage"
                )
        return "no checkpoint was saved before"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working on the run, until this one ends.

        What it makes for a run that is refused before it has trained, it takes back.

        Raises:
            RunInUseError: Another process is at it.
        """
        made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        path = self.path / ".lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path))
            except LockedError as error:
                raise RunInUseError(
                    f"run {self.path.name!r} is in use by another process (it locks "
                    f"{path}): wait for its end, or choose another --run"
                ) from error
            try:
                yield
            except (ValueError, OSError):
                if made and not self.has_begun():
                    shutil.rmtree(self.path)
                    for parent in made[1:]:
                        # Another run lies there by now.
                        with suppress(OSError):
                            parent.rmdir()
                raise

    def has_begun(self) -> bool:
        """Return whether there is a checkpoint, or a figure of training."""
        return any(self.path.glob("*/last.ckpt")) or bool(
            read_metrics(self.path / "metrics.csv")
        )

    def remove_leftovers(self) -> None:
        """Remove what a killed process had begun to write; under the lock."""
        for path in self.path.glob("**/.*.tmp"):
            if path.is_file() and LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def check(
        self,
        config: dict[str, Any],
        complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        """Compare with the run that the folder holds already, if it got anywhere.

        Args:
            config: All options, as plain values.
            complete: Adds the defaults of options that there were not when the run was
                begun.

        Raises:
            ValueError: Something that defines the run has changed, or its
                ``config.yaml`` is missing or damaged.
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
        before = dict(_leaves(complete(read_config(path))))
        now = dict(_leaves(config))
        changed = [
            key
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
            and not _is_free(key, before.get(key), now.get(key))
        ]
        if changed:
            texts = [
                f"{_with_name(key, before, now)}: {before.get(key)!r} -> "
                f"{now.get(key)!r}"
                + ", the prepared store has other content"
                * key.endswith(FINGERPRINT)
                for key in changed
            ]
            raise ValueError(
                f"run {self.path.name!r} was begun with other options ("
                f"{'; '.join(texts)}): give the old ones to go on, or another --run "
                f"to start a new one (with --init_from {self.path} to fork)"
            )

    def begun(self) -> dict[str, Any] | None:
        """Return what the run was begun with, if it got anywhere.

        Raises:
            ValueError: Its ``config.yaml`` is damaged.
        """
        path = self.path / "config.yaml"
        if not any(self.path.glob("*/last.ckpt")) or not path.exists():
            return None
        return read_config(path)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write ``config.yaml`` whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False))


def foreign(path: Path, error: Exception) -> ValueError:
    """Return what to raise for a checkpoint that a run cannot go on from."""
    reason = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
    return ValueError(
        f"{path} is no checkpoint of this run ({reason}): remove it to repeat that "
        "stage, or restore it"
    )


def read_config(
    path: Path,
    lost: str = "how the run was begun",
    remedy: str = "give another --run, or remove the run's folder",
) -> dict[str, Any]:
    """Return what ``config.yaml`` of a run holds.

    Args:
        path: The file.
        lost: What a damaged one does not say, for the message.
        remedy: What to do then, if it cannot be restored.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read.
    """
    try:
        config = yaml.safe_load(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}")
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"{path} does not say {lost} ({error}): restore it, {remedy}"
        ) from error
    return config


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, entry in enumerate(value):
            yield from _leaves(entry, f"{key}[{number}]")
    else:
        yield key, value


def _with_name(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name a row in place of its number, where it is called the same as before."""
    row, _, field = key.partition("].")
    name = now.get(f"{row}].name")
    named = row.startswith("stages[") and name == before.get(f"{row}].name")
    return f"stages.{name}.{field}" if named and name else key


def _is_free(key: str, before: Any, now: Any) -> bool:
    if re.fullmatch(r"stages\[\d+\]\.data", key) and not (before or now):
        return True
    # A row's own data may move as the others' may.
    key = re.sub(r"^stages\[\d+\]\.data\.", "data.", key)
    if key == FINGERPRINT and (before is None or now is None):
        # The store of a finished row may have gone.
        return True
    if key in MOVABLE:
        return before is not None and now is not None
    return any(key == free or key.startswith(f"{free}.") for free in FREE)
