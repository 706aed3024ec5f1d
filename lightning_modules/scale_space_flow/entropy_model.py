"""CompressAI's models of probabilities, as the suite's entropy coder takes them.

``EntropyBottleneck`` and the scales of ``GaussianConditional`` keep their meaning and
their weights. Ports, tables and checksums are the suite's.

Source: arXiv 1802.01436; ``compressai.entropy_models`` (CompressAI 1.2.8).
"""

from copy import deepcopy
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.entropy.distributions import Distributions, Gaussians, Whole
from lightning_modules.entropy.estimates import lower_bound
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.priors import Z_LIMIT, ScaleLevels
from lightning_modules.entropy.tables import CdfTables, tables_from_pmf
from lightning_modules.layers import at_least_float32

LEVELS = ScaleLevels(0.11, 256.0, 64)
"""CompressAI's ``get_scale_table``."""
SMALLEST_MASS = 1e-9
"""What CompressAI takes for the smallest probability."""
HYPER_STRIDE = 8
"""Positions of a latent along each side of a position of its hyper-latent."""


class Bottleneck(Distributions):
    """Of a hyper-latent less its medians, by channel.

    Args:
        prior: An ``EntropyBottleneck``.
        shape: Of the hyper-latent, (N, C, h, w).
        part: Name of the part and of the tables.
    """

    def __init__(self, prior: Any, shape: tuple[int, ...], part: str) -> None:
        like = at_least_float32(prior.quantiles.new_empty(shape))
        super().__init__(like, part, part)
        self.prior = prior

    def bits(self, values: Tensor) -> Tensor:
        """Estimate what values cost."""
        prior = self.prior
        if prior.quantiles.dtype not in (torch.float32, torch.float64):
            prior = deepcopy(prior).float()
        with torch.autocast(values.device.type, enabled=False):
            by_channel = (values + medians(prior)).transpose(0, 1)
            mass, *_ = prior._likelihood(by_channel.flatten(1)[:, None])
            bits = -torch.log2(lower_bound(mass, SMALLEST_MASS))
        return bits.view_as(by_channel).transpose(0, 1)

    def choose(self) -> tuple[Whole, Whole | int]:
        """Return the table of each element of one sample."""
        _, channels, *sides = self.like.shape
        return np.repeat(np.arange(channels, dtype=np.int32), prod(sides)), 0


def medians(prior: Any) -> Tensor:
    """Return what hyper-latents are rounded around, (C, 1, 1), float32 at least.

    They learn by the bottleneck's own loss, not by what they do to frames.
    """
    return at_least_float32(prior.quantiles.detach()[:, 0, 1, None, None])


def code_latent(
    hyperprior: Any, part: str, y: Tensor | None, shape: tuple[int, ...], port: Port
) -> Tensor:
    """Code a latent with its hyper-latent and return it, rounded.

    Args:
        hyperprior: One of CompressAI's network.
        part: Its name there.
        y: The latent, of the weights' dtype; ``None`` to decode.
        shape: Of the latent, (N, C, h, w).
        port: Takes or gives the symbols.
    """
    prior = hyperprior.entropy_bottleneck
    like, middle = prior.quantiles, medians(prior)
    height, width = shape[-2:]
    z_shape = *shape[:2], -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE)
    z = rest = None
    # On a CPU the gradient of a kernel that sees one position is wrong in bfloat16, now
    # and then NaN (oneDNN of torch 2.15).
    with torch.autocast("cpu", enabled=False):
        if y is not None:
            y = y.to(like)
            z = at_least_float32(hyperprior.hyper_encoder(y)) - middle
        z_hat = (port.code(z, Bottleneck(prior, z_shape, part)) + middle).to(like)
        mean, scale = (
            at_least_float32(decoder(z_hat)[..., :height, :width])
            for decoder in (
                hyperprior.hyper_decoder_mean,
                hyperprior.hyper_decoder_scale,
            )
        )
        if y is not None:
            rest = at_least_float32(y) - mean
        of = Gaussians(scale, LEVELS, part=part)
        return (port.code(rest, of) + mean).to(like)


@torch.no_grad()
def bottleneck_tables(prior: Any) -> CdfTables:
    """Return integer tables of an ``EntropyBottleneck``, one per channel."""
    prior = deepcopy(prior).cpu().double()
    values = torch.arange(-Z_LIMIT, Z_LIMIT + 1.0, dtype=torch.float64)
    mass, *_ = prior._likelihood(values + medians(prior))
    pmf = mass[:, 0].numpy()
    channels, count = pmf.shape
    return tables_from_pmf(
        pmf,
        np.full(channels, count),
        np.full(channels, -Z_LIMIT),
        np.maximum(1 - pmf.sum(1), 0.0),
    )
