"""An exponential moving average of the codec's parameters, used for validation."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from lightning_modules.base import CodecModule
from lightning_modules.codec import VideoCodec


class CodecEMA(Callback):
    """Average the codec's parameters and validate with the average.

    Only parameters of ``pl_module.codec`` are averaged: no buffers, no losses, no
    tables. Every stage starts its average from the weights it starts with, so a
    resumed run and an uninterrupted one hold equal averages. Checkpoints keep the
    training weights in ``state_dict`` and the average, by the codec's parameter
    names, in ``ema``.

    Args:
        decay: Weight of the past, in [0, 1). In the first steps it is lower, so that
            the average is not held back by the weights a stage starts with.

    Raises:
        ValueError: ``decay`` is outside [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, it must be at least 0 and below 1")
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self._training: dict[str, Tensor] = {}
        self._loaded: dict[str, Tensor] | None = None
        self._averaged_step = 0

    def on_load_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Keep the stored average until the codec is on its device."""
        self._loaded = checkpoint.get("ema")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the stage's average, or go on with the stored one.

        Raises:
            ValueError: The stored average belongs to another network.
        """
        parameters = dict(_codec(pl_module).named_parameters())
        if self._loaded is None:
            self.average = {
                name: p.detach().to(torch.float32, copy=True)
                for name, p in parameters.items()
            }
            return
        if differing := sorted(self._loaded.keys() ^ parameters.keys()):
            raise ValueError(
                f"the checkpoint's moving average is not of this codec: {differing} "
                "are in one of them only; start with --init_from to drop it"
            )
        self.average = {
            name: self._loaded[name].to(p.device, torch.float32, copy=True)
            for name, p in parameters.items()
        }
        self._loaded = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where the stage stands."""
        self._averaged_step = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Average the weights of the step before, which may be of the same batch."""
        self._update(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Average the weights of the optimizer step just done."""
        self._update(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place of the training weights."""
        if trainer.ckpt_path and trainer.state.fn != TrainerFn.FITTING:
            # The weights are those of a file, averaged already.
            self.average = {}
        if not self.average or self._training:
            return
        with torch.inference_mode(False):
            self._training = {
                name: parameter.detach().clone()
                for name, parameter in _codec(pl_module).named_parameters()
            }
        _put(self.average, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the training weights back."""
        if self._training:
            _put(self._training, pl_module)
            self._training = {}

    on_test_start = on_validation_start
    on_test_end = on_validation_end

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put the training weights back if validation failed."""
        self.on_validation_end(trainer, pl_module)

    def on_save_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Store the average, and the training weights even during validation."""
        # Another callback may save at the end of a batch before this one sees it.
        self._update(trainer, pl_module)
        checkpoint["ema"] = self.average
        for name, weights in self._training.items():
            checkpoint["state_dict"][f"codec.{name}"] = weights

    def _update(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step == self._averaged_step or self._training:
            return
        self._averaged_step = step
        # The ramp of TensorFlow's ExponentialMovingAverage (`num_updates`).
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(_codec(pl_module).named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_(
                [self.average[name] for name in parameters],
                [p.detach().float() for p in parameters.values()],
                1 - decay,
            )


def _codec(pl_module: LightningModule) -> VideoCodec:
    return cast(CodecModule, pl_module).codec


def _put(weights: dict[str, Tensor], pl_module: LightningModule) -> None:
    """Give the codec's parameters these values."""
    codec = _codec(pl_module)
    with torch.inference_mode(False), torch.no_grad():
        for name, parameter in codec.named_parameters():
            parameter.copy_(weights[name])
    codec.tables = None  # They follow from the weights.
