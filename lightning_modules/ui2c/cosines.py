"""A start of UI2C's transforms as cosine transforms, in place of random ones.

Residual branches begin at nothing, so the network begins as two linear maps: frames to
their lowest frequencies, and back. From a random start that takes thousands of steps.
The paper names no start; this is ours, for trainings of hours.
"""

from collections.abc import Sequence
from math import log, prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.cosines import correlations, cosines, quarters, silence
from lightning_modules.ui2c.blocks import DepthConvBlock
from lightning_modules.ui2c.network import (
    LATENT_STRIDE,
    PATCH,
    QP_COUNT,
    UI2CNetwork,
)

CORRELATION = 0.95
"""Of neighbouring pixels, in the usual model of pictures, a Markov chain."""

TEMPORAL = 0.95
"""Of a pixel in neighbouring frames."""

VARIANCES = (0.06, 0.008, 0.008)
"""Of Y, U and V in photographs, about."""

WEIGHTS = (6.0, 1.0, 1.0)
"""Of the planes' errors in the loss."""

LARGEST = 40.0
"""Deviation of a latent at qp 63."""

LEAST_SCALE, MOST_SCALE = 0.15, 16.0
"""Of a latent's distribution at the start."""


def start_as_cosines(network: UI2CNetwork, lmbdas: tuple[float, float]) -> None:
    """Make a network begin as cosine transforms of its blocks, at ideal step sizes.

    The best step of a uniform quantiser at high rates follows from the Lagrangian:
    ``step^2 = 6 / (2.25 ln 2 lambda)``, where 2.25 is the weight of Y's error.

    Args:
        network: Of one or two frames a unit; its weights are replaced.
        lmbdas: Lagrangians of qp 0 and qp 63.
    """
    steps = [sqrt(6 / (2.25 * log(2) * lmbda)) for lmbda in lmbdas]
    latents = network.encoder_down.out_channels
    n = network.frames_per_unit
    basis, variances = _basis((n, LATENT_STRIDE, LATENT_STRIDE), latents)
    # Residuals end at 128, and those of qp 63 are the largest.
    large = (LARGEST * steps[1] / variances.sqrt()).clamp_max(1.0)
    middle = sqrt(steps[0] * steps[1])
    factors = large / middle
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, DepthConvBlock):
                silence(block.spatial[-1])
                silence(block.reduce)
        _begin_transforms(network, basis, factors)
        _begin_gains(network, steps)
        scales = (factors * variances.sqrt()).clamp(LEAST_SCALE, MOST_SCALE)
        _begin_prior(network.fusion, slice(latents, 2 * latents), scales)
        _begin_prior(network.spatial_prior, slice(0, latents), scales)


def _begin_transforms(network: Any, basis: Tensor, factors: Tensor) -> None:
    """Let layers be patches' transforms, and then a block's of its four patches."""
    n = network.frames_per_unit
    width, recon = network.encoder_down.in_channels, network.recon_out.in_channels
    first, _ = _basis((1, PATCH, PATCH), width // n)
    # Features beyond a patch's samples begin as nothing.
    first = F.pad(first, (0, 0, 0, width // n - len(first)))
    per_patch, same = torch.block_diag(*[first] * n), torch.eye(width)
    if isinstance(network.embed, nn.Identity):
        _begin(network.encoder[0].adaptor, per_patch)
    else:
        _begin(network.embed, per_patch)
        _begin(network.encoder[0].adaptor, same)
    # The latents' frequencies in features of patches, whose own are fewer.
    of_patches = quarters(3 * n, LATENT_STRIDE).T
    of_features = basis @ of_patches @ torch.block_diag(*[per_patch.T] * 4)
    down = factors[:, None] * of_features
    up = torch.linalg.pinv(down)
    network.encoder_down.weight.zero_()
    network.decoder_up[0].weight.zero_()
    for place in range(4):
        row, column = divmod(place, 2)
        part = slice(place * width, (place + 1) * width)
        network.encoder_down.weight[:, :, 1 + row, 1 + column] = down[:, part]
        network.decoder_up[0].weight[place::4, :, 1, 1] = up[part]
    _begin(network.decoder[0][0].adaptor, same)
    _begin(network.decoder[1], same)
    wider = torch.block_diag(*[torch.eye(recon // n, width // n)] * n)
    _begin(network.recon[0].adaptor, wider)
    _begin(network.recon_out, per_patch.T @ wider.T)


def _begin_gains(network: Any, steps: Sequence[float]) -> None:
    """Let each qp's gains be its ideal quantiser's, above qp 63 too."""
    rows = torch.arange(network.q_encoder.shape[1]) / (QP_COUNT - 1) - 0.5
    gains = (steps[0] / steps[1]) ** rows[None, :, None]
    network.q_encoder.copy_(gains.expand_as(network.q_encoder))
    network.q_decoder.copy_((1 / gains).expand_as(network.q_decoder))


def _begin_prior(prior: Any, part: slice, scales: Tensor) -> None:
    """Let a prior begin with the scales of pictures, whatever it is given."""
    # Its other biases stay: steps of 1, means of 0.
    prior[-1].weight.zero_()
    prior[-1].bias[part] = scales


def _begin(layer: Any, matrix: Tensor) -> None:
    """Make a 1x1 layer's first inputs go through a matrix, and nothing else."""
    silence(layer)
    layer.weight[:, : matrix.shape[1], 0, 0] = matrix


def _basis(block: tuple[int, int, int], count: int) -> tuple[Tensor, Tensor]:
    """Return the best frequencies of a block of YUV, and their variances.

    Returns:
        ``(count, samples)`` with orthonormal rows, and ``(count,)``; fewer where the
        block has fewer samples.
    """
    sides = [cosines(length) for length in block]
    spread = [
        _variances(own, rho)
        for own, rho in zip(sides, (TEMPORAL, CORRELATION, CORRELATION), strict=True)
    ]
    powers = torch.einsum("t,i,j->tij", *spread)
    planes = torch.tensor(VARIANCES)[:, None, None, None] * powers
    worth = torch.tensor(WEIGHTS)[:, None, None, None] * planes
    best = worth.flatten().argsort(descending=True, stable=True)[:count].sort().values
    rows = []
    for index in best.tolist():
        plane, place = divmod(index, prod(block))
        t, place = divmod(place, block[1] * block[2])
        i, j = divmod(place, block[2])
        vector = torch.zeros(block[0], 3, *block[1:])
        vector[:, plane] = torch.einsum(
            "t,i,j->tij", sides[0][t], sides[1][i], sides[2][j]
        )
        rows.append(vector.flatten())
    return torch.stack(rows), planes.flatten()[best]


def _variances(basis: Tensor, correlation: float) -> Tensor:
    """Return each frequency's variance in a Markov chain of variance 1."""
    return ((basis @ correlations(len(basis), correlation)) * basis).sum(dim=1)
