"""What looks at one clip of a validation: the first of rank 0, at some of its rates."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.base import CodecModule, ValidationResult
from lightning_modules.codec import VideoCodec

FRAMES = 8
"""Frames of the clip that are shown or coded, of codecs with units as short as that."""


def frames_to_look_at(codec: VideoCodec) -> int:
    """Return how many frames of the clip are shown or coded, if it has as many.

    Two more than a unit: where units are coded apart they may share a frame, and the
    one after it is the first that is the second unit's alone.
    """
    return max(FRAMES, codec.frames_per_unit + 2)


class FirstClip(Callback, ABC):
    """Looks at the first clip of every few validations.

    Args:
        every_n_validations: 1 for each validation.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        self.every_n_validations = every_n_validations
        self._validations = 0

    def chosen(
        self, results: Sequence[ValidationResult]
    ) -> dict[str, ValidationResult]:
        """Return which rates are looked at, by what tells their keys and files apart.

        Args:
            results: The clip at each rate point, from few bits to many.
        """
        return {"": results[len(results) // 2]}

    @abstractmethod
    def look(self, module: CodecModule, result: ValidationResult, suffix: str) -> None:
        """Look at the clip, on rank 0 only, of a rate that ``chosen`` has named."""

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
            for suffix, result in self.chosen(outputs).items():
                self.look(cast(CodecModule, pl_module), result, suffix)

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
