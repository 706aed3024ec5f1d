"""DHVC's training: one lambda per sample, and nothing else that is drawn.

Source: arXiv 2410.02598, sections 4.3.2 and 6.1.2.
"""

from math import inf
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.base import CodecModule, Draw
from lightning_modules.dhvc.blocks import PredictionBlock, ResBlock
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.dhvc.cosines import start_as_cosines
from lightning_modules.dhvc.design import SIZES
from lightning_modules.perceptual import LpipsNet


class DHVC(CodecModule):
    """DHVC 2.0 (arXiv 2410.02598): hierarchical predictive coding in four scales.

    Args:
        lmbda_sampling: ``log``: its logarithm is uniform; ``cube_root``: its cube root
            is (QARV's; more large ones).
        distortion: ``mse`` on RGB in [0, 1], ``ms_ssim`` (1 - MS-SSIM; with lambda from
            4 to 32), or another row of ``losses.TERMS``.
        initial: Weights begin ``random``, or with transforms that are ``cosines``, see
            :func:`.cosines.start_as_cosines`.
        lpips: Backbone of LPIPS, where a stage weighs it.
        weight_decay: Of AdamW; 0 makes it Adam.
        recipe: How training begins: as suits the ``size``, or as the ``paper``'s size
            does, to rehearse that.
        maps_rate: Factor on the learning rate of layers outside of blocks. Those that
            begin as cosines need small steps, and blocks that begin as nothing need
            large ones.
        architecture: Arguments of :class:`DHVCCodec`.

    Raises:
        ValueError: ``maps_rate`` is not above 0.
    """

    codec: DHVCCodec

    def __init__(
        self,
        lmbda_sampling: Literal["log", "cube_root"] = "log",
        distortion: str = "mse",
        initial: Literal["random", "cosines"] = "random",
        lpips: LpipsNet = "alex",
        weight_decay: float = 0.0,
        recipe: Literal["size", "paper"] = "size",
        maps_rate: float = 1.0,
        **architecture: Any,
    ) -> None:
        super().__init__(DHVCCodec(**architecture), distortion, weight_decay, lpips)
        self.lmbda_sampling = lmbda_sampling
        if not 0 < maps_rate < inf:
            raise ValueError(
                f"maps_rate is {maps_rate}: it must be above 0, for example 0.1"
            )
        self.maps_rate = maps_rate
        if recipe == "paper":
            self.codec.network.begin_by(SIZES["paper"].recipe)
        # On the meta device there are no weights, only their shapes.
        if initial == "cosines" and not self.codec.like.is_meta:
            knob = self.codec.rate_knob
            start_as_cosines(self.codec.network, (knob.low, knob.high))

    def weight_groups(self) -> list[dict[str, Any]]:
        """Return the weights that train; see ``embedding_rate`` of the recipe."""
        network = self.codec.network
        lr = self.stage.lr
        embedding = network.embedding.parameters()
        groups = self.split_weights(embedding, lr=network.recipe.embedding_rate * lr)
        if self.maps_rate == 1.0:
            return groups
        inside = {
            parameter
            for block in network.modules()
            if isinstance(block, (ResBlock, PredictionBlock))
            for parameter in block.parameters()
        }
        maps = [each for each in groups[0]["params"] if each not in inside]
        groups[0]["params"] = [each for each in groups[0]["params"] if each in inside]
        return [*groups, {"params": maps, "lr": self.maps_rate * lr}]

    def lmbda(self, rate: Tensor) -> Tensor:
        """Return the rate: it is the Lagrangian itself."""
        return rate.float()

    def draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        """Draw a lambda for each sample; all frames weigh the same."""
        conditions = {"seeds": seeds} if training else {}
        uniform = [_uniform(seed) if training else 0.5 for seed in seeds.tolist()]
        knob = self.codec.rate_knob
        place = torch.tensor(uniform)
        low, high = place.new_tensor([knob.low, knob.high])
        if self.lmbda_sampling == "log":
            rate = low * (high / low) ** place
        else:
            ends = low ** (1 / 3), high ** (1 / 3)
            rate = torch.lerp(*ends, place) ** 3
        # A rounded end may lie outside.
        rate = rate.clamp(low, high)
        weights = torch.ones(clip.shape[:2], device=clip.device)
        first = torch.arange(clip.shape[1], device=clip.device) == 0
        groups = {"first": first.expand(weights.shape)}
        return Draw(clip, rate, self.lmbda(rate), weights, conditions, groups)


def _uniform(seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    return float(torch.rand((), generator=generator))
