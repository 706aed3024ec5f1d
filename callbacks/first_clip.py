"""What looks at one clip of a validation: the first of rank 0, at the middle rate."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_modules.base import CodecModule, ValidationResult

FRAMES = 8
"""Frames of the clip that are shown or coded, at most."""


class FirstClip(Callback, ABC):
    """Looks at the first clip of every few validations.

    Args:
        every_n_validations: 1 for each validation.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        self.every_n_validations = every_n_validations
        self._validations = 0

    @abstractmethod
    def look(
        self, trainer: Trainer, module: CodecModule, result: ValidationResult
    ) -> None:
        """Look at the clip, on rank 0 only."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the first clip, if it is time to."""
        due = self._validations % self.every_n_validations == 0
        first = batch_idx == dataloader_idx == 0
        if trainer.is_global_zero and due and first:
            module = cast(CodecModule, pl_module)
            self.look(trainer, module, outputs[len(outputs) // 2])

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Count validations."""
        self._validations += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of validations so far."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]


class PictureLogger(FirstClip):
    """Writes pictures of the first clip below ``<run>/media``.

    Their names begin with ``<run_step>_<stage>``. W&B gets them too if one of the
    trainer's loggers is a ``WandbLogger``.

    Args:
        run_dir: The run's folder.
        every_n_validations: 1 for each validation.
    """

    note = ""
    """What the caption says besides the clip's name and rate point."""

    def __init__(self, run_dir: str | Path, every_n_validations: int = 1) -> None:
        super().__init__(every_n_validations)
        self.media = Path(run_dir, "media")

    @abstractmethod
    def draw(
        self, module: CodecModule, result: ValidationResult, stem: str
    ) -> dict[str, Path]:
        """Write files below ``media`` whose names begin with ``stem``.

        Returns:
            PNG and MP4 files by the key that W&B shows them under.

        Raises:
            OSError: A file cannot be written.
        """

    def look(
        self, trainer: Trainer, module: CodecModule, result: ValidationResult
    ) -> None:
        """Draw the clip and show it to W&B."""
        stem = f"{module.run_step:07d}_{module.stage.name}"
        try:
            pictures = self.draw(module, result, stem)
        except OSError as error:
            # A full disk or a missing encoder must not end a run of days.
            rank_zero_warn(f"no picture {stem} in {self.media}: {error!r}")
            return
        # Lightning numbers steps from 0: this is the one just done.
        step = max(0, trainer.global_step - 1)
        caption = [f"{result.name} at {result.point}{self.note}"]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for key, path in pictures.items():
                    video = path.suffix == ".mp4"
                    log = logger.log_video if video else logger.log_image
                    log(key, [str(path)], step, caption=caption)
