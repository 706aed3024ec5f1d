"""Toy's training: a number of levels for each sample."""

from typing import Any

import torch
from lightning_modules.toy.codec import ToyCodec

from lightning_modules.base import CodecModule, Draw
from lightning_modules.perceptual import LpipsNet


class Toy(CodecModule):
    """Toy: frames in few levels.

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

    def lmbda(self, rate):
        return rate.float()

    def draw(self, clip, seeds, training):
        rate = (4.0 + seeds % 8).to(clip.device)
        weights = torch.ones(clip.shape[:2], device=clip.device)
        return Draw(clip, rate, self.lmbda(rate), weights)
