"""Checkpoints that are whole or absent: written atomically, latest and best."""

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.whole_files import whole_or_nothing
from lightning_modules.saved_file import check_saved


class _Target:
    """A file for ``torch.save``, which hides what went wrong in a write.

    Attributes:
        failure: The first error of a write.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.failure: OSError | None = None
        self._file = file

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def flush(self) -> None:
        self._file.flush()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write local checkpoints so that a crash at any moment leaves a whole file."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        """Write beside the target, flush to the disk, then rename.

        Raises:
            ValueError: ``storage_options`` is given: there are none for local files.
            OSError: The file cannot be written, on a full disk, say; with its name.
        """
        if storage_options is not None:
            raise ValueError(
                f"local checkpoints have no options, got {storage_options}"
            )
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as temporary, temporary.open("wb") as file:
            target = _Target(file)
            try:
                torch.save(checkpoint, target)  # type: ignore[arg-type]
            except RuntimeError as error:
                raise target.failure or error from error
            file.flush()
            os.fsync(file.fileno())
        # The rename itself lives in the directory.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read tensors and plain values only, whatever the caller asks for.

        A checkpoint is a file from anywhere; unpickling it would run its code.

        Raises:
            ValueError: It was cut, or has changed since it was written.
        """
        try:
            check_saved(path)
        except ValueError as error:
            raise ValueError(f"{path} {error}: remove it, or restore it") from error
        return super().load_checkpoint(path, map_location, weights_only=True)


def validation_follows(trainer: Trainer) -> bool:
    """Return whether a validation comes between this training batch and the next.

    A checkpoint of such a step has to wait for it: Lightning, going on from one that
    was saved before, leaves that validation out.
    """
    if not sum(trainer.num_val_batches):
        return False
    batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
    interval = trainer.val_check_batch
    due = interval is not None and batches % interval == 0
    return due or trainer.global_step == trainer.max_steps


class StageCheckpoints(Callback):
    """Keep a stage's ``last.ckpt``, and ``best.ckpt`` by validation loss.

    ``last.ckpt`` is written every few steps, after the validation of such a step if
    it has one, and at the end of the stage; it carries the best loss so far, so a
    resumed run does not overwrite a better file. A loss of 0 is of nothing, since
    none of its terms counts in validation: then there is no best. A fit that stops
    early leaves ``last.ckpt`` to whoever stopped it.

    Args:
        dirpath: The stage's folder.
        every_n_steps: Optimizer steps between two ``last.ckpt``.

    Attributes:
        last: Path of the latest checkpoint.
        best: Path of the checkpoint with the lowest validation loss.
    """

    def __init__(self, dirpath: str | Path, every_n_steps: int) -> None:
        self.last = Path(dirpath, "last.ckpt")
        self.best = Path(dirpath, "best.ckpt")
        self.every_n_steps = every_n_steps
        self.best_loss = math.inf
        self._saved_step = 0
        self._said = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where the stage stands."""
        self._saved_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Keep the loggers' step that of the optimizer.

        Lightning's is one behind after going on from a validation's checkpoint with
        another interval between validations.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Save every few optimizer steps, not every few accumulated batches."""
        loop = trainer.fit_loop.epoch_loop
        # Lightning counts one step for a batch that took several.
        last = max(loop._batches_that_stepped, trainer.global_step - 1)
        loop._batches_that_stepped = last
        if not validation_follows(trainer):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time to, and if the loss improved.

        Sanity checks and validations before the first step do not count.
        """
        if trainer.sanity_checking or not trainer.fit_loop.epoch_loop.global_step:
            return
        loss = float(trainer.callback_metrics.get("val/loss", math.nan))
        if loss == 0.0 and not self._said:
            self._said = True
            rank_zero_warn(
                f"val/loss is 0 at step {trainer.global_step}: no term that validation "
                f"computes has a weight, so there is nothing to choose {self.best} by, "
                "and it is not written; weigh a term of the codec in the stage's "
                "weights, or go on from last.ckpt"
            )
        # Saving is collective: rank 0 decides for all.
        if trainer.strategy.broadcast(loss != 0.0 and loss < self.best_loss):
            self.best_loss = loss
            trainer.save_checkpoint(self.best, weights_only=False)
        self._save_if_due(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished stage."""
        if trainer.max_steps < 0 or trainer.global_step >= trainer.max_steps:
            trainer.save_checkpoint(self.last, weights_only=False)

    def _save_if_due(self, trainer: Trainer) -> None:
        step = trainer.global_step
        # A batch may take several steps, and pass the one that is due.
        if step // self.every_n_steps > self._saved_step // self.every_n_steps:
            self._saved_step = step
            trainer.save_checkpoint(self.last, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the best loss so far."""
        return {"best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing with it."""
        # Earlier versions took a loss of nothing for the best.
        self.best_loss = state_dict["best_loss"] or math.inf


class FinalValidation(Callback):
    """Validate a stage's last step, whatever the interval between validations."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Ask Lightning to stop, before which it validates."""
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True
