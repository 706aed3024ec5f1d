"""ScaleSpaceFlow's training: one lambda, squared error, all frames alike.

Source: Agustsson et al., CVPR 2020; numbers as in CompressAI's ``train_video.py``.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_modules.base import CodecModule, Draw
from lightning_modules.perceptual import LpipsNet
from lightning_modules.scale_space_flow.codec import ScaleSpaceFlowCodec

QUANTILES_FACTOR = 10.0
"""On the learning rate of the bottlenecks' quantiles: 1e-3 where others have 1e-4."""


class ScaleSpaceFlow(CodecModule):
    """ScaleSpaceFlow (CVPR 2020): motion as a flow through a frame and blurred copies.

    Args:
        distortion: ``mse_255``, which lambda is meant for, or another row of
            ``losses.TERMS``.
        lpips: Backbone of LPIPS, where a stage weighs it.
        weight_decay: Of AdamW; 0 makes it Adam.
        architecture: Arguments of :class:`ScaleSpaceFlowCodec`.
    """

    codec: ScaleSpaceFlowCodec

    def __init__(
        self,
        distortion: str = "mse_255",
        lpips: LpipsNet = "alex",
        weight_decay: float = 0.0,
        **architecture: Any,
    ) -> None:
        codec = ScaleSpaceFlowCodec(**architecture)
        super().__init__(codec, distortion, weight_decay, lpips)

    def weight_groups(self) -> list[dict[str, Any]]:
        """Return the weights that train: quantiles learn faster."""
        quantiles = {
            parameter
            for name, parameter in self.codec.named_parameters()
            if name.endswith(".quantiles")
        }
        return self.split_weights(quantiles, lr=QUANTILES_FACTOR * self.stage.lr)

    def lmbda(self, rate: Tensor) -> Tensor:
        """Return the rate: it is the Lagrangian itself."""
        return rate.float()

    def draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        """Draw nothing but noise; all frames weigh the same."""
        shape = clip.shape[:2]
        rate = torch.full(shape[:1], self.codec.rate_knob.high, device=clip.device)
        weights = torch.ones(shape, device=clip.device)
        first = torch.arange(shape[1], device=clip.device) == 0
        conditions = {"seeds": seeds} if training else {}
        groups = {"first": first.expand(shape)}
        return Draw(clip, rate, self.lmbda(rate), weights, conditions, groups)
