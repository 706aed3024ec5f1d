"""DualDomain's training: qualities, and what each stage minimises.

Source: arXiv 2512.10450; stages and numbers are ours (see ``design.py``).
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_modules.base import CodecModule, Draw
from lightning_modules.codec import CodecOutput
from lightning_modules.dual_domain.codec import DualDomainCodec
from lightning_modules.dual_domain.cosines import start_as_cosines
from lightning_modules.dual_domain.design import lagrangian
from lightning_modules.dual_domain.estimation import CODES_FRAMES, Objective
from lightning_modules.perceptual import LpipsNet
from lightning_modules.stages import Stage

JITTER = 0.2
"""Width of what a frame's quality differs from its clip's, so that references of other
qualities are seen."""
INTRA_WEIGHT = 0.3
"""Of an intra frame's rate where only the entropy model learns: enough that it does not
forget them."""
EXPERT_FACTOR, EXPERT_LIMIT = 10.0, 3e-3
"""On the learning rate of the experts: at the others' they hardly leave their start.
The limit is for rehearsals, whose rates are large already."""


class DualDomain(CodecModule):
    """DualDomain (arXiv 2512.10450): no frame's pixels depend on another frame's.

    Args:
        distortion: ``mse`` on RGB in [0, 1], or another row of ``losses.TERMS``.
        initial: Weights begin ``random``, or with transforms that are ``cosines``, see
            :func:`.cosines.start_as_cosines`.
        lpips: Backbone of LPIPS, where a stage weighs it.
        weight_decay: Of AdamW; 0 makes it Adam.
        architecture: Arguments of :class:`DualDomainCodec`.
    """

    codec: DualDomainCodec
    stage_options = ("objective",)

    def __init__(
        self,
        distortion: str = "mse",
        initial: Literal["random", "cosines"] = "random",
        lpips: LpipsNet = "alex",
        weight_decay: float = 0.0,
        **architecture: Any,
    ) -> None:
        codec = DualDomainCodec(**architecture)
        super().__init__(codec, distortion, weight_decay, lpips)
        # On the meta device there are no weights, only their shapes.
        if initial == "cosines" and not codec.like.is_meta:
            start_as_cosines(codec.network)

    def weight_groups(self) -> list[dict[str, Any]]:
        """Return the weights that train: the experts' learn faster."""
        experts = {
            parameter
            for name, module in self.codec.named_modules()
            if name.endswith("_steps.experts")
            for parameter in module.parameters()
        }
        lr = max(self.stage.lr, min(EXPERT_FACTOR * self.stage.lr, EXPERT_LIMIT))
        return self.split_weights(experts, lr=lr)

    def lmbda(self, rate: Tensor) -> Tensor:
        """Return the Lagrangian of each quality, 117 to 3141 and geometric between."""
        return lagrangian(rate)

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise ``ValueError`` if a stage sets an unknown option or objective."""
        super().check_options(options)
        objective = options.get("objective", "joint")
        if objective not in get_args(Objective):
            raise ValueError(
                f"objective {objective!r} is unknown: choose from "
                f"{list(get_args(Objective))}"
            )
        if objective in ("flow", "motion") and not self.codec.options.pixel_alignment:
            raise ValueError(
                f"without pixel alignment there is no {objective} to train: leave out "
                "the stage"
            )

    def start_stage(
        self, stage: Stage, index: int, count: int, finished_steps: int
    ) -> None:
        """Make ready for one row; see the base class."""
        super().start_stage(stage, index, count, finished_steps)
        self.codec.objective = stage.options.get("objective", "joint")

    @property
    def decodes(self) -> bool:
        """Whether validation decodes frames; see the base class."""
        return self.codec.objective in CODES_FRAMES

    def draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        """Draw a quality for each sample, and for each frame one near it."""
        shape = clip.shape[:2]
        weights = torch.ones(shape, device=clip.device)
        first = torch.arange(shape[1], device=clip.device) == 0
        groups = {"first": first.expand(shape)}
        if not training:
            rate = torch.full_like(seeds, 0.5, dtype=torch.float32)
            return Draw(clip, rate, self.lmbda(rate), weights, groups=groups)
        draws = [_draw_sample(seed, shape[1]) for seed in seeds.tolist()]
        rate = torch.tensor([quality for quality, _ in draws])
        jitter = torch.tensor([row for _, row in draws])
        quality = (rate[:, None] + JITTER * jitter).clamp(0.0, 1.0)
        # No frame counts more than others of its quality.
        weights = self.lmbda(quality) / self.lmbda(rate)[:, None]
        conditions = {"seeds": seeds, "quality": quality}
        return Draw(clip, rate, self.lmbda(rate), weights, conditions, groups)

    def frame_terms(self, draw: Draw, out: CodecOutput) -> dict[str, Tensor]:
        """Return the loss terms of each frame; see the base class."""
        terms = super().frame_terms(draw, out)
        if self.codec.training and self.codec.objective == "prior":
            weights = torch.ones_like(out.bits)
            weights[:, 0] = INTRA_WEIGHT
            terms["rate"] = weights * terms["rate"]
        return terms


def _draw_sample(seed: int, frames: int) -> tuple[float, list[float]]:
    """Return a quality, and numbers in [-0.5, 0.5) for the frames."""
    generator = torch.Generator().manual_seed(seed)
    quality = float(torch.rand((), generator=generator))
    return quality, (torch.rand(frames, generator=generator) - 0.5).tolist()
