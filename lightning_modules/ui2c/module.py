"""UI2C's training: quality indices, hybrid references and weights of frames.

Source: arXiv 2510.14431, sections 3.5 and 4.1.
"""

from collections.abc import Sequence
from itertools import accumulate
from math import inf, log
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.base import CodecModule, Draw
from lightning_modules.draw import sent
from lightning_modules.entropy.estimates import uniform_noise
from lightning_modules.perceptual import LpipsNet
from lightning_modules.stages import UNTRAINED, Stage
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.ui2c.cosines import start_as_cosines
from lightning_modules.ui2c.network import QP_COUNT

FRAME_WEIGHTS = (0.5, 1.2, 0.5, 0.9, 0.5, 0.9, 0.5, 0.9)
"""By position in the group of 8: DCVC-DC's four (arXiv 2302.14402), aligned with the
offsets of the quality index, as section 4.1 says."""

REFERENCES = {"blank": 1 / 3, "truth": 1 / 3, "noisy": 1 / 3}
"""Section 3.5 names the three and not their shares; equal ones are our choice."""

NOISE_LIMIT = 0.1
"""Largest deviation of the noise on a reference; not published, our choice."""

QPS = (0, QP_COUNT - 1)
"""Base qps that training clips are coded at, unless a stage says otherwise."""

REFERENCE_STREAM = 2**20
"""Noise streams of references, far from those of the units."""


class UI2C(CodecModule):
    """UI2C (arXiv 2510.14431): unified intra and inter coding, two frames at once.

    A stage may set ``references`` (shares of the three kinds), ``lmbda_range`` in place
    of the run's, ``qps``, the first and the last base qp that its clips are coded at
    (else 0 and 63), and ``train_refresh``: whether one of the first units refers to
    decoded frames, as after a refresh. A stage of divided models that trains their
    intra model alone is the training of an image model; one that freezes it neither
    counts nor weighs the frame that it codes.

    Args:
        hybrid_references: Draw the first reference of a training clip from blank,
            the true previous frames and a noisy version of them; otherwise it is
            always blank (ablation).
        lmbda_range: Lagrangians of qp 0 and qp 63, geometric in between: above 0, the
            smaller one first.
        distortion: ``yuv`` (6:1:1), ``yuv_rgb`` (DCVC-FM), ``uf`` (DCVC-UF), or another
            row of ``losses.TERMS``.
        initial: Weights begin ``random``, or with transforms that are ``cosines``, see
            :func:`.cosines.start_as_cosines`.
        lpips: Backbone of LPIPS, where a stage weighs it.
        weight_decay: Of AdamW.
        architecture: Arguments of :class:`UI2CCodec`.

    Raises:
        ValueError: The Lagrangians are not above 0 and in rising order, or the codec
            does not exist.
    """

    codec: UI2CCodec
    stage_options = ("lmbda_range", "references", "train_refresh", "qps")
    weights_in_group: Tensor

    def __init__(
        self,
        hybrid_references: bool = True,
        lmbda_range: tuple[float, float] = (1.0, 768.0),
        distortion: str = "yuv",
        initial: Literal["random", "cosines"] = "random",
        lpips: LpipsNet = "alex",
        weight_decay: float = 0.01,
        **architecture: Any,
    ) -> None:
        _check_lmbda_range(lmbda_range)
        super().__init__(UI2CCodec(**architecture), distortion, weight_decay, lpips)
        # On the meta device there are no weights, only their shapes.
        if initial == "cosines" and not self.codec.like.is_meta:
            start_as_cosines(self.codec.network, lmbda_range)
        self.hybrid_references = hybrid_references
        self.lmbda_range = lmbda_range
        table = torch.tensor(FRAME_WEIGHTS)
        self.register_buffer("weights_in_group", table, persistent=False)

    def lmbda(self, rate: Tensor) -> Tensor:
        """Return the Lagrangian of each base qp; the offsets do not change it."""
        ends = self.stage.options.get("lmbda_range", self.lmbda_range)
        low, high = (log(value) for value in ends)
        return torch.exp(low + (high - low) * rate.float() / (QP_COUNT - 1))

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise ``ValueError`` if a stage sets an unknown option or a wrong value."""
        super().check_options(options)
        shares = options.get("references", REFERENCES)
        if not _are_shares(shares):
            raise ValueError(
                f"references {shares!r} must give shares of {list(REFERENCES)}, "
                "numbers of at least 0 that are not all 0: for example {blank: 1.0}"
            )
        if "lmbda_range" in options:
            _check_lmbda_range(options["lmbda_range"])
        _check_qps(options.get("qps", QPS))
        if not isinstance(refresh := options.get("train_refresh", False), bool):
            raise ValueError(f"train_refresh is {refresh!r}: it is true or false")

    def start_stage(
        self, stage: Stage, index: int, count: int, finished_steps: int
    ) -> None:
        """Make ready for one row; see :meth:`CodecModule.start_stage`.

        Raises:
            ValueError: As there. Also if no frame is left after the one that a frozen
                intra model codes; or if both of divided models train and units are
                apart, each of which trains one of them only.
        """
        super().start_stage(stage, index, count, finished_steps)
        if self.codec.intra is None or stage is UNTRAINED:
            return
        if self._image_model_is_frozen and stage.frames < 2:
            raise ValueError(
                f"stage {stage.name!r} freezes the intra model, which codes the only "
                f"frame: set frames to at least 2, not {stage.frames}, or train intra"
            )
        together = not self._image_model_is_frozen and stage.frames > 1
        if together and stage.unroll == "unit":
            raise ValueError(
                f"stage {stage.name!r} trains both models and steps after each unit, "
                "which needs one of them only: set frozen to [intra], or unroll to clip"
            )

    @property
    def _image_model_is_frozen(self) -> bool:
        intra = self.codec.intra
        return intra is not None and not any(
            parameter.requires_grad for parameter in intra.parameters()
        )

    @property
    def _image_model_trains_alone(self) -> bool:
        return self.codec.intra is not None and not any(
            parameter.requires_grad for parameter in self.codec.network.parameters()
        )

    def draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        """Draw qp, first reference and place in the group of 8 for each sample.

        The first one or two frames of a training clip are the reference, the others
        are coded. Validation codes every frame, from a blank reference; where an image
        model trains alone, the first, for nothing has taught the others yet.
        """
        if not training:
            clip = clip[:, :1] if self._image_model_trains_alone else clip
            zeros = torch.zeros_like(seeds, device=clip.device)
            weights = self._frame_weights(zeros, clip.shape[1])
            groups = self._slots(clip)
            return Draw(clip, zeros, self.lmbda(zeros), weights, groups=groups)
        before, coded = self._split(clip)
        reference = None if self.codec.intra is not None else before
        shares = self._shares() if reference is not None else {"blank": 1.0}
        qps = self.stage.options.get("qps", QPS)
        draws = [_draw_sample(seed, shares, qps) for seed in seeds.tolist()]
        rate, kind, phase, deviation, refresh = (
            sent(torch.tensor(column), clip.device)
            for column in zip(*draws, strict=True)
        )
        seeds = sent(seeds, clip.device)
        conditions = {"seeds": seeds, "phase": phase}
        if reference is not None:
            noise = _gaussian(reference, seeds) * deviation[:, None, None, None, None]
            conditions["reference"] = (reference + noise).clamp(0.0, 1.0)
            conditions["blank"] = kind == 0
        elif before is not None:
            conditions["first"] = before
            conditions["phase"] = phase = phase + 1
        if self.stage.options.get("train_refresh", False):
            conditions["refresh_unit"] = refresh
        weights = self._frame_weights(phase, coded.shape[1])
        groups = self._slots(coded)
        for number, name in enumerate(REFERENCES):
            groups[name] = (kind == number)[:, None].expand(weights.shape)
        return Draw(coded, rate, self.lmbda(rate), weights, conditions, groups)

    def _shares(self) -> dict[str, float]:
        if not self.hybrid_references:
            return {"blank": 1.0}
        return dict(self.stage.options.get("references", REFERENCES))

    def _split(self, clip: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the frames that the first unit refers to, if any, and the others."""
        n, count = self.codec.frames_per_unit, clip.shape[1]
        if self.codec.intra is not None:
            given = int(self._image_model_is_frozen)
            return (clip[:, :given] if given else None), clip[:, given:]
        if count <= n:
            return None, clip
        given = n if (count - n) % n == 0 else 1
        reference = clip[:, :given].expand(-1, n, -1, -1, -1)
        return reference, clip[:, given:]

    def _frame_weights(self, phase: Tensor, count: int) -> Tensor:
        places = phase[:, None] + torch.arange(count, device=phase.device)
        weights = self.weights_in_group[places % len(FRAME_WEIGHTS)]
        if self.codec.intra is not None:
            # An image model's own loss; the others follow it in their group.
            weights = torch.where(places == 0, 1.0, weights)
        return weights

    def _slots(self, clip: Tensor) -> dict[str, Tensor]:
        n = self.codec.frames_per_unit
        slot = torch.arange(clip.shape[1], device=clip.device) % n
        shape = clip.shape[:2]
        return {f"slot{i + 1}": (slot == i).expand(shape) for i in range(n)}


def _check_lmbda_range(ends: Any) -> None:
    """Raise ``ValueError`` if they are not the Lagrangians of qp 0 and of the last."""
    numbers = isinstance(ends, list | tuple) and all(
        type(end) in (int, float) for end in ends
    )
    if not numbers or len(ends) != 2 or not 0 < ends[0] <= ends[1] < inf:
        shown = list(ends) if isinstance(ends, tuple) else ends
        raise ValueError(
            f"lmbda_range is {shown!r}: the Lagrangians of qp 0 and of qp "
            f"{QP_COUNT - 1} must be above 0, the first not above the second: for "
            "example [1, 768]"
        )


def _check_qps(qps: Any) -> None:
    """Raise ``ValueError`` if they are not the first and the last of some base qps."""
    numbers = isinstance(qps, list | tuple) and all(type(qp) is int for qp in qps)
    if not numbers or len(qps) != 2 or not 0 <= qps[0] <= qps[1] < QP_COUNT:
        raise ValueError(
            f"qps is {qps!r}: give the first and the last base qp of training clips, "
            f"whole numbers from 0 to {QP_COUNT - 1}: for example [0, 8]"
        )


def _are_shares(shares: Any) -> bool:
    return (
        isinstance(shares, dict)
        and shares.keys() <= REFERENCES.keys()
        and all(type(share) in (int, float) for share in shares.values())
        and all(0 <= share < inf for share in shares.values())
        and sum(shares.values()) > 0
    )


def _draw_sample(
    seed: int, shares: dict[str, float], qps: Sequence[int] = QPS
) -> tuple[float, ...]:
    """Return qp, kind of reference, phase, noise deviation and refreshed unit."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    rate = qps[0] + int(uniform[0] * (qps[1] - qps[0] + 1))
    edges = accumulate(shares.get(name, 0.0) for name in REFERENCES)
    place = uniform[1] * sum(shares.values())
    kind = next((i for i, edge in enumerate(edges) if place < edge), 0)
    # A blank reference starts a group; after a frame any even place is possible.
    phase = 0 if kind == 0 else 2 * int(uniform[2] * len(FRAME_WEIGHTS) / 2)
    deviation = NOISE_LIMIT * uniform[3] if kind == 2 else 0.0
    # One of the first units, so that AD_I meets decoded frames in short clips too.
    return rate, kind, phase, deviation, 1 + int(uniform[4] * 3)


def _gaussian(like: Tensor, seeds: Tensor) -> Tensor:
    """Return normal noise that is a function of the seeds (Box and Muller)."""
    radius = uniform_noise(like, seeds, REFERENCE_STREAM) + 0.5
    angle = uniform_noise(like, seeds, REFERENCE_STREAM + 1)
    return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * torch.pi * angle)
