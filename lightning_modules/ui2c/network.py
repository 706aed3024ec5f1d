"""UI2C's network: unified intra and inter coding, two frames at once.

::

    frames (pair) --cat, unshuffle 8--> encoder --> y --> stepwise entropy model
                                          ^                     |
    reference --AD_I or AD_P--> FE1 --> FE2 (context)           v
                                          |                   y_hat
                                          v                     |
    frames (pair) <-- recon generator <-- decoder <-------------+
                                          |
                                          +--> feature: the next unit's reference

Source: arXiv 2510.14431, sections 3.2 to 3.4; blocks and entropy model from DCVC-RT
(arXiv 2502.20762). The widths are not public: they are the ones, among 11.9 million
tried, that give the paper's three published complexity figures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.entropy.distributions import Factorised, Gaussians
from lightning_modules.entropy.ports import Port, SilentPort
from lightning_modules.entropy.priors import HYPER_STRIDE, FactorisedPrior, ScaleLevels
from lightning_modules.entropy.steps import step_masks, step_positions
from lightning_modules.float32 import in_float32, island_dtype
from lightning_modules.frames import pad_to_multiple
from lightning_modules.latents import Latents
from lightning_modules.layers import (
    Pointwise,
    SubpelUp,
    at_least_float32,
    channels_last,
)
from lightning_modules.ui2c.blocks import (
    DepthConvBlock,
    ResDown,
    ResUp,
    gain_table,
    initialise,
    start_prior,
    trunk,
)

PATCH = 8
LATENT_STRIDE = 16
QP_COUNT = 64
QP_BIAS = (0, 8, 0, 4, 0, 4, 0, 4)
"""Added to the base qp by position in the group of 8 (section 4.1)."""
QP_ROWS = QP_COUNT + max(QP_BIAS)
QP_SPREAD = 768**0.25
"""Latents of qp 63 begin so much larger than those of qp 0. An ideal quantiser's step
goes with lambda ** -0.5; half of that in the encoder trained best in 400 steps."""
STEPS = 2
Y_LEVELS = ScaleLevels(0.11, 16.0, 128)
"""DCVC-RT takes the next lower level of a scale; the nearest costs fewer bits."""
RESIDUAL_LIMITS = (-128.0, 127.0)


@dataclass(frozen=True)
class Widths:
    """Channels and depths of one size of the network.

    Attributes:
        trunk: Features at 1/8 of the frame's sides.
        recon: Features of the reconstruction generator, at 1/8.
        latent: y, at 1/16.
        hyper: z, at 1/64.
        embed: Whether a 1x1 convolution embeds the patches before the encoder.
        encoder: Blocks of the encoder.
        decoder: Blocks of the decoder.
        recon_blocks: Blocks of the reconstruction generator.
        extractor: Blocks of FE1 and FE2.
        prior: Features of what y's distributions are computed from. DCVC-RT's are as
            wide as all that goes in and out (2, 3 and 4 times ``latent``), which is
            the default, ``None``; most of a small network would lie there.
        image_latent: y of the image model of divided models.
    """

    trunk: int
    recon: int
    latent: int = 128
    hyper: int = 128
    embed: bool = False
    encoder: int = 6
    decoder: int = 2
    recon_blocks: int = 8
    extractor: tuple[int, int] = (2, 4)
    prior: int | None = None
    image_latent: int = 256


SIZES: dict[str, dict[int, Widths]] = {
    # By frames per unit. 1 is DCVC-RT's P model: 20,691,456 parameters, 142.4 / 166.8
    # kMACs per pixel; 2 is the paper's: 46,713,856 and 157.0 / 233.0.
    "paper": {
        1: Widths(256, 320, embed=True, encoder=3, decoder=3, recon_blocks=4),
        2: Widths(384, 512),
    },
    # Hours on a CPU: as many latents a pixel as up to 1 bit a pixel needs (README),
    # and little else, so that 2.5 M weights of 16 bits ship in 6 MB.
    "small": {
        1: Widths(80, 96, 192, 32, True, 3, 3, 4, (1, 2), prior=96, image_latent=96),
        2: Widths(96, 128, 192, 32, False, 4, 2, 4, (1, 2), prior=96),
    },
    # What "small" was at first: 48 latents end below 30 dB. For checkpoints of it.
    "small_48": {
        1: Widths(64, 80, 48, 48, True, 3, 3, 4, image_latent=96),
        2: Widths(96, 128, 48, 48, encoder=4, recon_blocks=4),
    },
    # Minutes on a CPU: shows that everything works, not how well.
    "tiny": {
        1: Widths(32, 40, 16, 16, True, 2, 2, 2, (1, 2), image_latent=32),
        2: Widths(48, 64, 32, 16, False, 2, 2, 2, (1, 2)),
    },
}


def size_of(name: str, latents: int) -> str:
    """Return what a preset is called now that had a name and so many latents."""
    return f"{name}_{latents}" if f"{name}_{latents}" in SIZES else name


def widths_of(size: str, frames_per_unit: int) -> Widths:
    """Return the widths of a preset.

    Raises:
        ValueError: There is none of that name, or not for so many frames.
    """
    if size not in SIZES:
        raise ValueError(f"size {size!r} is unknown: choose from {list(SIZES)}")
    if frames_per_unit not in SIZES[size]:
        raise ValueError(f"frames_per_unit is {frames_per_unit}: choose 1 or 2")
    return SIZES[size][frames_per_unit]


@dataclass
class Unit:
    """One coded unit.

    Attributes:
        frames: (B, n, 3, H, W) padded, YUV in network range; ``None`` if not asked.
        feature: (B, C, H/8, W/8), what the next unit refers to.
    """

    frames: Tensor | None
    feature: Tensor


class UI2CNetwork(nn.Module):
    """The transforms of one unit; knows nothing of colour, padding or bytes.

    Args:
        widths: Channels and depths.
        frames_per_unit: 2 (the paper) or 1 (DCVC-RT's P model).
        skip_threshold: Residuals whose scale is not above this are not coded but
            taken as 0, outside training; 0 codes all. DCVC-RT suggests 0.12.
    """

    def __init__(
        self, widths: Widths, frames_per_unit: int, skip_threshold: float = 0.0
    ) -> None:
        super().__init__()
        w, n = widths, frames_per_unit
        self.frames_per_unit = n
        self.skip_threshold = skip_threshold
        pixels, y = 3 * n * PATCH**2, w.latent
        self.adaptor_i = DepthConvBlock(pixels, w.trunk)
        self.adaptor_p = Pointwise(w.trunk, w.trunk)
        self.extractor_1 = trunk(w.trunk, w.trunk, w.extractor[0])
        self.extractor_2 = trunk(w.trunk, w.trunk, w.extractor[1])
        self.embed = Pointwise(pixels, w.trunk) if w.embed else nn.Identity()
        embedded = w.trunk if w.embed else pixels
        self.encoder = trunk(embedded + w.trunk, w.trunk, w.encoder)
        self.encoder_down = nn.Conv2d(w.trunk, y, 3, stride=2, padding=1)
        self.hyper_encoder = nn.Sequential(
            DepthConvBlock(y, w.hyper),
            ResDown(w.hyper, w.hyper),
            ResDown(w.hyper, w.hyper),
        )
        hyper, temporal, prior = y, 2 * y, 3 * y
        if w.prior is not None:
            hyper = temporal = prior = w.prior
        self.hyper_decoder = nn.Sequential(
            ResUp(w.hyper, w.hyper),
            ResUp(w.hyper, w.hyper),
            DepthConvBlock(w.hyper, hyper),
        )
        self.temporal_prior = ResDown(w.trunk, temporal)
        fusion_head, spatial_head = Pointwise(prior, 3 * y), Pointwise(prior, 2 * y)
        self.fusion = nn.Sequential(trunk(hyper + temporal, prior, 3), fusion_head)
        self.spatial_prior = nn.Sequential(trunk(4 * y, prior, 2), spatial_head)
        self.decoder_up = SubpelUp(y, w.trunk, kernel=3)
        self.decoder = nn.Sequential(
            trunk(2 * w.trunk, w.trunk, w.decoder), Pointwise(w.trunk, w.trunk)
        )
        self.recon = trunk(w.trunk, w.recon, w.recon_blocks)
        self.recon_out = Pointwise(w.recon, pixels)
        self.z_prior = FactorisedPrior(QP_ROWS, w.hyper)
        # One table per slot; its channels scale that slot's share of the features.
        self.q_encoder = gain_table(n, QP_ROWS, w.trunk // n, QP_SPREAD)
        self.q_decoder = gain_table(n, QP_ROWS, w.trunk // n, 1 / QP_SPREAD)
        self.q_feature = gain_table(n, QP_ROWS, w.trunk // n, 1.0)
        self.q_recon = gain_table(n, QP_ROWS, w.recon // n, 1.0)
        initialise(self)
        start_prior(fusion_head, y, ones=2)
        start_prior(spatial_head, y, ones=1)

    def refer_to_pixels(self, frames: Tensor) -> Tensor:
        """Adapt n frames (B, n, 3, H, W), or zeros for blank: AD_I."""
        adapted: Tensor = self.adaptor_i(_patches(frames))
        return adapted

    def refer_to_feature(self, feature: Tensor) -> Tensor:
        """Adapt the previous unit's feature: AD_P."""
        adapted: Tensor = self.adaptor_p(feature)
        return adapted

    def forward(
        self,
        frames: Tensor | None,
        reference: Tensor,
        qps: Tensor,
        port: Port,
        reconstruct: bool = True,
    ) -> Unit:
        """Code one unit, or decode one where ``frames`` is ``None``.

        Args:
            frames: (B, n, 3, H, W), sides multiples of 16, YUV in network range.
            reference: (B, C, H/8, W/8), adapted.
            qps: int64 (B, n), quality index of each slot, 0..71.
            port: Takes or gives the symbols.
            reconstruct: Whether frames are wanted, or the feature is enough.
        """
        feature_1 = self.extractor_1(reference)
        context = self.extractor_2(feature_1)
        prior_context = feature_1 * _scales(self.q_feature, qps)
        y = None
        if frames is not None:
            patches = self.embed(_patches(frames))
            encoded = self.encoder(torch.cat([patches, context], dim=1))
            scaled = encoded * _scales(self.q_encoder, qps)
            y = in_float32(self.encoder_down, scaled)
        y_hat = self.code_latent(y, prior_context, qps, port)
        decoded = torch.cat([in_float32(self.decoder_up, y_hat), context], dim=1)
        feature = self.decoder(decoded) * _scales(self.q_decoder, qps)
        return Unit(self.generate(feature, qps) if reconstruct else None, feature)

    def code_latent(
        self, y: Tensor | None, prior_context: Tensor, qps: Tensor, port: Port
    ) -> Tensor:
        """Walk through the entropy model and return y_hat (B, C, H/16, W/16)."""
        temporal = self.temporal_prior(prior_context)
        height, width = temporal.shape[-2:]
        z = None
        if y is not None:
            z = self.hyper_encoder(pad_to_multiple(y, HYPER_STRIDE))
        z_hat = channels_last(port.code(z, self.hyper_latent(qps, height, width)))
        hyper = self.hyper_decoder(z_hat)[..., :height, :width]
        prior = self.fusion(torch.cat([hyper, temporal], dim=1))
        # Rounding needs more digits than bfloat16 has, whatever the layers run in.
        quant_step, scale, mean = at_least_float32(prior).chunk(3, dim=1)
        quant_step = quant_step.clamp_min(0.5)
        target = None if y is None else y / quant_step
        walk = STEPS, scale.shape[1], height, width, scale.device
        masks, positions = step_masks(*walk), step_positions(*walk)
        y_hat = torch.zeros_like(mean)
        for step in range(STEPS):
            if step:
                decoded = torch.cat([channels_last(y_hat.to(prior.dtype)), prior], 1)
                parameters = self.spatial_prior(decoded)
                scale, mean = at_least_float32(parameters).chunk(2, dim=1)
            mask = keep = masks[step]
            at: Tensor | None = positions[step]
            if self.skip_threshold and not self.training:
                keep, at = mask & (scale > self.skip_threshold), None
            residual = None if target is None else target - mean
            of = Gaussians(scale, Y_LEVELS, keep, limits=RESIDUAL_LIMITS, positions=at)
            y_hat = y_hat + (port.code(residual, of) + mean) * mask
        return channels_last((y_hat * quant_step).to(island_dtype(prior)))

    def hyper_latent(self, qps: Tensor, height: int, width: int) -> Factorised:
        """Return the distributions of z, for y of a height and a width."""
        # The last slot's row: with the offsets of the group it reaches every row.
        z_shape = self.z_prior.shape(len(qps), height, width)
        return Factorised(self.z_prior, z_shape, row=qps[:, -1])

    def symbols(self, height: int, width: int) -> dict[str, int]:
        """Return how many symbols a y of a height and a width takes, by table."""
        z = prod(self.z_prior.shape(1, height, width))
        if self.skip_threshold:
            # What is not coded follows from symbols.
            return {"z": z}
        return {"z": z, "y": self.encoder_down.out_channels * height * width}

    def latents(self, note: str) -> Latents:
        """Return what a unit's pixels are made of, with a note."""
        block = self.frames_per_unit, LATENT_STRIDE, LATENT_STRIDE
        return Latents(block, {"y": self.encoder_down.out_channels}, note)

    def generate(self, feature: Tensor, qps: Tensor) -> Tensor:
        """Turn a feature into its n frames (B, n, 3, H, W)."""
        pixels = self.recon_out(self.recon(feature) * _scales(self.q_recon, qps))
        pixels = F.pixel_shuffle(pixels, PATCH)
        return pixels.unflatten(1, (self.frames_per_unit, 3))

    def unused_adaptors(self) -> Tensor:
        """Return 0 that depends on both adaptors, of which a unit uses one."""
        both = self.adaptor_i, self.adaptor_p
        weights = [p for part in both for p in part.parameters() if p.requires_grad]
        zero = self.recon_out.weight.new_zeros(())
        return 0.0 * sum((p.sum() for p in weights), start=zero)

    def passes(
        self, size: tuple[int, int], qps: Tensor
    ) -> dict[str, Callable[[], object]]:
        """Return a steady-state unit's encode and decode, which code nothing.

        Args:
            size: Padded height and width.
            qps: As :meth:`forward` takes them.
        """
        rows, columns = size
        frames = self.q_recon.new_zeros(1, self.frames_per_unit, 3, rows, columns)
        channels = self.q_feature.shape[0] * self.q_feature.shape[2]
        feature = self.q_recon.new_zeros(1, channels, rows // PATCH, columns // PATCH)
        port = SilentPort()

        def run(coded: Tensor | None, reconstruct: bool) -> Unit:
            unit: Unit = self(
                coded, self.refer_to_feature(feature), qps, port, reconstruct
            )
            return unit

        return {
            "encode": partial(run, frames, False),
            "decode": partial(run, None, True),
        }


def latent_size(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the height and width of the y of padded frames."""
    return size[0] // LATENT_STRIDE, size[1] // LATENT_STRIDE


def _patches(frames: Tensor) -> Tensor:
    # Frame-major channels: slot 1 is the first half, as in the tables.
    return channels_last(F.pixel_unshuffle(frames.flatten(1, 2), PATCH))


def _scales(table: Tensor, qps: Tensor) -> Tensor:
    slots = [table[slot][qps[:, slot]] for slot in range(table.shape[0])]
    return torch.cat(slots, dim=1)[..., None, None]
