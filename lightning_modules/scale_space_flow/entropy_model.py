"""CompressAI's models of probabilities, as the suite's entropy coder takes them.

``EntropyBottleneck`` and the scales of ``GaussianConditional`` keep their meaning and
their weights. Ports, tables and checksums are the suite's.

Source: arXiv 1802.01436; ``compressai.entropy_models`` (CompressAI 1.2.8).
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from lightning_modules.entropy.distributions import Factorised, Gaussians
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.priors import HyperPrior, ScaleLevels
from lightning_modules.layers import at_least_float32

LEVELS = ScaleLevels(0.11, 256.0, 64)
"""CompressAI's ``get_scale_table``."""
HYPER_STRIDE = 8
"""Positions of a latent along each side of a position of its hyper-latent."""


class Bottleneck(HyperPrior):
    """The distribution of a hyper-latent less its medians, by channel.

    The cumulative distribution is the library's, of which the base class makes masses
    that keep their gradients and integer tables.

    Args:
        library: An ``EntropyBottleneck``.
    """

    def __init__(self, library: Any) -> None:
        super().__init__(1, library.channels)
        self.library = library

    @property
    def like(self) -> Tensor:
        """Quantiles in float32 at least: say device and dtype."""
        return at_least_float32(self.library.quantiles.detach())

    def logits(self, x: Tensor, row: Tensor) -> Tensor:
        """Return the logits of P(Z < x), of the shape of x (B, C, ...)."""
        library = self.library
        if library.quantiles.dtype != x.dtype:
            library = deepcopy(library).to(x.dtype)
        by_channel = x.transpose(0, 1)
        values = by_channel.reshape(self.channels, 1, -1) + medians(library)
        logits: Tensor = library._logits_cumulative(values, stop_gradient=False)
        return logits.view_as(by_channel).transpose(0, 1)


def medians(prior: Any) -> Tensor:
    """Return what hyper-latents are rounded around, (C, 1, 1), float32 at least.

    They learn by the bottleneck's own loss, not by what they do to frames.
    """
    return at_least_float32(prior.quantiles.detach()[:, 0, 1, None, None])


def hyper_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the hyper-latent of a latent (N, C, h, w)."""
    height, width = shape[-2:]
    return *shape[:2], -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE)


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
    z = rest = None
    # On a CPU the gradient of a kernel that sees one position is wrong in bfloat16, now
    # and then NaN (oneDNN of torch 2.15).
    with torch.autocast("cpu", enabled=False):
        if y is not None:
            y = y.to(like)
            z = at_least_float32(hyperprior.hyper_encoder(y)) - middle
        of_z = Factorised(Bottleneck(prior), hyper_shape(shape), part)
        z_hat = (port.code(z, of_z) + middle).to(like)
        mean, scale = (
            at_least_float32(decoder(z_hat)[..., :height, :width])
            for decoder in (
                hyperprior.hyper_decoder_mean,
                hyperprior.hyper_decoder_scale,
            )
        )
        if y is not None:
            rest = at_least_float32(y) - mean
        of_y = Gaussians(scale, LEVELS, part=part)
        return (port.code(rest, of_y) + mean).to(like)
