"""DCVC-RT's image model, which codes the first frame of divided models."""

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.entropy.distributions import Factorised, Gaussians
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.priors import HYPER_STRIDE, FactorisedPrior
from lightning_modules.entropy.steps import step_masks, step_positions
from lightning_modules.float32 import Float32Ends, island_dtype
from lightning_modules.frames import pad_to_multiple
from lightning_modules.layers import Pointwise, at_least_float32, channels_last
from lightning_modules.ui2c.blocks import (
    DepthConvBlock,
    ResDown,
    ResUp,
    gain_table,
    initialise,
    start_prior,
    trunk,
)
from lightning_modules.ui2c.network import PATCH, QP_SPREAD, RESIDUAL_LIMITS, Y_LEVELS
from lightning_modules.ui2c.released import refuse_former

STEPS = 4
GAINS = 2
"""Maps ahead of the scales: what multiplies y in the encoder, and in the decoder."""


class IntraNetwork(nn.Module):
    """One frame on its own: transforms, hyperprior and a four-step spatial prior.

    At the paper's widths it has 45,651,314 parameters, as the published model.

    Args:
        channels: Width of the transforms at 1/8 of the frame's sides.
        latent_channels: Channels of y at 1/16.
        hyper_channels: Channels of z at 1/64.
        rows: Number of quality indices.
        skip_threshold: As :class:`~lightning_modules.ui2c.network.UI2CNetwork` takes
            it.

    Source: DCVC-RT (arXiv 2502.20762), the image model.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        hyper_channels: int,
        rows: int,
        skip_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.skip_threshold = skip_threshold
        self.latent_channels = latent_channels
        y, z = latent_channels, hyper_channels
        pixels = 3 * PATCH**2
        self.embed = DepthConvBlock(pixels, channels)
        self.q_encoder = gain_table(1, rows, channels, QP_SPREAD)
        self.encoder = Float32Ends(
            trunk(channels, channels, 6), nn.Conv2d(channels, y, 3, 2, 1), last=True
        )
        self.decoder = Float32Ends(
            ResUp(y, channels), trunk(channels, channels, 12), first=True
        )
        self.q_decoder = gain_table(1, rows, channels, 1 / QP_SPREAD)
        self.recon = nn.Sequential(
            DepthConvBlock(channels, pixels), nn.PixelShuffle(PATCH)
        )
        self.hyper_encoder = nn.Sequential(
            DepthConvBlock(y, z), ResDown(z, z), ResDown(z, z)
        )
        self.hyper_decoder = nn.Sequential(
            ResUp(z, z), ResUp(z, z), DepthConvBlock(z, y)
        )
        fusion_head, spatial_head = (
            Pointwise(2 * y, 2 * y + GAINS),
            Pointwise(2 * y, 2 * y),
        )
        self.fusion = nn.Sequential(trunk(y, 2 * y, 3), fusion_head)
        self.reduction = Pointwise(2 * y + GAINS, y)
        self.adaptors = nn.ModuleList(
            DepthConvBlock(2 * y, 2 * y, adaptor=True) for _ in range(3)
        )
        self.spatial_prior = nn.Sequential(trunk(2 * y, 2 * y, 3), spatial_head)
        self.gate = nn.Sigmoid()
        self.z_prior = FactorisedPrior(rows, z)
        initialise(self)
        start_prior(fusion_head, y, ones=1, before=GAINS)
        start_prior(spatial_head, y, ones=1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any
    ) -> None:
        refuse_former(state_dict.get(f"{prefix}reduction.weight"))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(
        self, frame: Tensor | None, qp: Tensor, port: Port, latent_size: tuple[int, int]
    ) -> Tensor:
        """Code one frame, or decode it where ``frame`` is ``None``.

        Args:
            frame: (B, 3, H, W), sides multiples of 16, YUV in network range.
            qp: int64 (B,).
            port: Takes or gives the symbols.
            latent_size: Height and width of y: H/16, W/16.

        Returns:
            The reconstruction, (B, 3, H, W) in network range.
        """
        y = z = None
        if frame is not None:
            embedded = self.embed(channels_last(F.pixel_unshuffle(frame, PATCH)))
            y = self.encoder(embedded * self.q_encoder[0, qp][..., None, None])
            z = self.hyper_encoder(pad_to_multiple(y, HYPER_STRIDE))
        z_hat = channels_last(port.code(z, self.hyper_latent(qp, *latent_size)))
        # Whole, for the layers see beyond what is cut off.
        prior = self.fusion(self.hyper_decoder(z_hat))
        cropped = channels_last(prior[..., : latent_size[0], : latent_size[1]])
        y_hat = self.code_latent(y, cropped, port)
        decoded = self.decoder(y_hat) * self.q_decoder[0, qp][..., None, None]
        reconstruction: Tensor = self.recon(decoded)
        return reconstruction

    def hyper_latent(self, qp: Tensor, height: int, width: int) -> Factorised:
        """Return the distributions of z, for y of a height and a width."""
        z_shape = self.z_prior.shape(len(qp), height, width)
        return Factorised(self.z_prior, z_shape, "z_intra", qp)

    def symbols(self, height: int, width: int) -> dict[str, int]:
        """Return how many symbols a y of a height and a width takes, by table."""
        z = prod(self.z_prior.shape(1, height, width))
        if self.skip_threshold:
            # What is not coded follows from symbols.
            return {"z_intra": z}
        return {"z_intra": z, "y": self.latent_channels * height * width}

    @property
    def note(self) -> str:
        """What is to be said where another network's latents are counted."""
        return f"the intra model of first frames has {self.latent_channels}"

    def code_latent(self, y: Tensor | None, prior: Tensor, port: Port) -> Tensor:
        """Walk through the four steps and return y_hat."""
        channels = (prior.shape[1] - GAINS) // 2
        gains, parameters = prior.split([GAINS, 2 * channels], dim=1)
        gains = self.gate(at_least_float32(gains)) * 1.5 + 0.5
        gain_encoder, gain_decoder = gains.chunk(2, dim=1)
        target = None if y is None else y * gain_encoder
        scale, mean = at_least_float32(parameters).chunk(2, dim=1)
        reduced = self.reduction(prior)
        walk = STEPS, channels, *prior.shape[-2:], prior.device
        masks, positions = step_masks(*walk), step_positions(*walk)
        y_hat = torch.zeros_like(mean)
        for step in range(STEPS):
            if step:
                decoded = torch.cat([channels_last(y_hat.to(prior.dtype)), reduced], 1)
                adapted = self.adaptors[step - 1](decoded)
                parameters = self.spatial_prior(adapted)
                scale, mean = at_least_float32(parameters).chunk(2, dim=1)
            residual = None if target is None else target - mean
            mask = keep = masks[step]
            at: Tensor | None = positions[step]
            if self.skip_threshold and not self.training:
                keep, at = mask & (scale > self.skip_threshold), None
            of = Gaussians(scale, Y_LEVELS, keep, limits=RESIDUAL_LIMITS, positions=at)
            y_hat = y_hat + (port.code(residual, of) + mean) * mask
        return channels_last((y_hat * gain_decoder).to(island_dtype(prior)))
