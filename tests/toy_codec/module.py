"""Toy's training: a rate for each sample."""

from typing import Any

import torch
from torch import Tensor

from lightning_modules.base import CodecModule, Draw
from lightning_modules.perceptual import LpipsNet
from lightning_modules.toy.codec import ToyCodec


class Toy(CodecModule):
    """Toy: each frame alone, as rounded coordinates of its patches.

    Args:
        distortion: A row of ``losses.TERMS``.
        lpips: Backbone of LPIPS, where a stage weighs it.
        weight_decay: Of AdamW.
        architecture: Arguments of :class:`ToyCodec`.
    """

    codec: ToyCodec

    def __init__(
        self,
        distortion: str = "mse",
        lpips: LpipsNet = "alex",
        weight_decay: float = 0.0,
        **architecture: Any,
    ) -> None:
        super().__init__(ToyCodec(**architecture), distortion, weight_decay, lpips)

    def lmbda(self, rate: Tensor) -> Tensor:
        """Return the Lagrangian: it goes with the square of the fineness."""
        return 64.0 * torch.exp2(rate / 8)

    def draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        """Draw a rate for each sample; all frames weigh the same."""
        rate = (seeds % 64).float()
        weights = torch.ones(clip.shape[:2], device=clip.device)
        conditions = {"seeds": seeds} if training else {}
        return Draw(clip, rate, self.lmbda(rate), weights, conditions)
