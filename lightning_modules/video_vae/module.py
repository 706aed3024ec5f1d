"""VideoVAE's training: one lambda, squared error and LPIPS, and a stage without bits.

Source: the paper's section on the optimisation, equations 1 and 2.
"""

import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.base import CodecModule, Draw
from lightning_modules.perceptual import LpipsNet
from lightning_modules.stages import UNTRAINED, Stage
from lightning_modules.video_vae.codec import VideoVAECodec
from lightning_modules.video_vae.cosines import start_as_cosines
from lightning_modules.video_vae.gops import padded_length

SQUARED_ERROR = {"255": "mse_255", "sum01": "sse"}
"""Distortions by the scale that alpha is meant for."""


class VideoVAE(CodecModule):
    """VideoVAE: perceptual coding of groups of pictures on a video VAE.

    The loss is ``rate + lmbda (alpha MSE + beta LPIPS)``, its terms ``rate``,
    ``distortion`` and ``lpips``. A stage that gives ``rate`` the weight 0 trains the
    video VAE alone, on its own latent and without lambda (equation 1); its latent codec
    must not train.

    Args:
        alpha: Weight of the distortion.
        beta: Weight of LPIPS; 0 leaves it out.
        mse_scale: What alpha is meant for: the mean of squares on the scale from 0 to
            ``255``, or their sum over a frame in [0, 1] (``sum01``). The paper does
            not say; with alpha 1e-3 the first is a balance, and the second three times
            as much at a crop of 256.
        distortion: Another row of ``losses.TERMS`` in place of the squared error.
        initial: Weights begin ``random``, or with transforms that are ``cosines``, of
            LeanVAE, at the step size that is best for alpha on the scale to 255: see
            :func:`.cosines.start_as_cosines`.
        lpips: Backbone of LPIPS: ``alex``, ``vgg`` or ``squeeze``, whose weights must
            be on this machine; or ``random``, a stand-in for rehearsals and tests.
        weight_decay: Of AdamW, for weights of more than one dimension.
        architecture: Arguments of :class:`VideoVAECodec`.
    """

    codec: VideoVAECodec

    def __init__(
        self,
        alpha: float = 1e-3,
        beta: float = 1.0,
        mse_scale: Literal["255", "sum01"] = "255",
        distortion: str | None = None,
        initial: Literal["random", "cosines"] = "random",
        lpips: LpipsNet = "alex",
        weight_decay: float = 0.01,
        **architecture: Any,
    ) -> None:
        super().__init__(
            VideoVAECodec(**architecture),
            distortion or SQUARED_ERROR[mse_scale],
            weight_decay,
            lpips,
            {"distortion": alpha, "lpips": beta},
        )
        # On the meta device there are no weights, only their shapes.
        if initial == "cosines" and not self.codec.like.is_meta:
            start_as_cosines(self.codec, self.codec.rate_knob.high * alpha)

    def start_stage(
        self, stage: Stage, index: int, count: int, finished_steps: int
    ) -> None:
        """Make ready for one row; see :meth:`CodecModule.start_stage`.

        Raises:
            ValueError: As there; also if it codes nothing and yet trains the latent
                codec.
        """
        super().start_stage(stage, index, count, finished_steps)
        if not stage.codes and any(
            p.requires_grad for p in self.codec.latent_codec.parameters()
        ):
            raise ValueError(
                f"stage {stage.name!r} gives the rate no weight, so it codes nothing "
                "and its latent codec cannot train: set trainable to [backbone]"
            )
        if stage is UNTRAINED:
            return
        trained, coded = padded_length(stage.frames), self.codec.frames_per_unit
        if trained < coded:
            warnings.warn(
                f"stage {stage.name!r} trains groups of {trained} frames, but {coded} "
                "will be coded together, at a poor quality: set frames of the "
                f"stage (or of shrink) to {coded}, or frames_per_unit to {trained}",
                stacklevel=2,
            )

    def weight_groups(self) -> list[dict[str, Any]]:
        """Return the weights that train: all but matrices and kernels do not decay."""
        prior = set(self.codec.latent_codec.prior.parameters())
        flat = [p for p in self.codec.parameters() if p.ndim <= 1 or p in prior]
        return self.split_weights(flat, weight_decay=0.0)

    def lmbda(self, rate: Tensor) -> Tensor:
        """Return the rate: it is the Lagrangian itself; 1 where there are no bits."""
        return rate.float() if self.stage.codes else torch.ones_like(rate)

    def draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        """Draw nothing but noise; all frames weigh the same."""
        conditions = {"seeds": seeds} if training else {}
        if not self.stage.codes:
            conditions["uncoded"] = torch.tensor(True)
        shape = clip.shape[:2]
        rate = torch.full(shape[:1], self.codec.rate_knob.high, device=clip.device)
        weights = torch.ones(shape, device=clip.device)
        return Draw(clip, rate, self.lmbda(rate), weights, conditions)
