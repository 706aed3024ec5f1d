"""A start of UI2C's transforms as cosine transforms, in place of random ones.

Residual branches begin at nothing, so the network begins as two linear maps: frames to
their lowest frequencies, and back. From a random start that takes thousands of steps.
The paper names no start; this is ours, for trainings of hours.
"""

from math import cos, log, pi, prod, sqrt

import torch
from torch import Tensor, nn

from lightning_modules.ui2c.blocks import DepthConvBlock
from lightning_modules.ui2c.network import LATENT_STRIDE, PATCH, UI2CNetwork

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
    n = network.frames_per_unit
    width = network.encoder_down.in_channels
    latent = network.encoder_down.out_channels
    first, _ = _basis((1, PATCH, PATCH), width // n)
    whole, variances = _basis((n, LATENT_STRIDE, LATENT_STRIDE), latent)
    patches = _patch_matrix(n)
    per_patch = torch.block_diag(*[first] * n)
    # What the latents' frequencies are in features of the block's four patches.
    back = whole @ patches.T @ torch.block_diag(*[per_patch.T] * 4)
    step = [sqrt(6 / (2.25 * log(2) * lmbda)) for lmbda in lmbdas]
    middle = sqrt(step[0] * step[1])
    # Residuals end at 128, and those of qp 63 are the largest.
    large = (LARGEST * step[1] / variances.sqrt()).clamp_max(1.0)
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, DepthConvBlock):
                for end in (block.spatial[-1], block.reduce):
                    nn.init.zeros_(end.weight)  # type: ignore[arg-type]
        enter: nn.Module = network.embed
        if isinstance(enter, nn.Identity):
            enter = network.encoder[0].adaptor  # type: ignore[union-attr]
        else:
            _begin(network.encoder[0].adaptor, torch.eye(width))  # type: ignore[union-attr]
        _begin(enter, per_patch)
        down = torch.zeros_like(network.encoder_down.weight)
        up = torch.zeros_like(network.decoder_up[0].weight)  # type: ignore[arg-type]
        back = large[:, None] * back
        forth = torch.linalg.pinv(back)
        for place in range(4):
            row, column = divmod(place, 2)
            part = slice(place * width, (place + 1) * width)
            down[:, :, 1 + row, 1 + column] = back[:, part] / middle
            up[place::4, :, 1, 1] = forth[part] * middle
        network.encoder_down.weight.copy_(down)
        network.decoder_up[0].weight.copy_(up)  # type: ignore[operator, union-attr]
        _begin(network.decoder[0][0].adaptor, torch.eye(width))  # type: ignore[index]
        _begin(network.decoder[1], torch.eye(width))
        recon = network.recon_out.in_channels
        wider = torch.block_diag(*[torch.eye(recon // n, width // n)] * n)
        _begin(network.recon[0].adaptor, wider)  # type: ignore[union-attr]
        _begin(network.recon_out, per_patch.T @ wider.T)
        ramp = torch.linspace(-0.5, 0.5, 64)
        rows = torch.cat([ramp, ramp[-1] + (1 + torch.arange(8)) / 63])
        gains = (step[0] / step[1]) ** rows
        network.q_encoder.copy_(gains[None, :, None].expand_as(network.q_encoder))
        network.q_decoder.copy_((1 / gains)[None, :, None].expand_as(network.q_decoder))
        scales = (large * variances.sqrt() / middle).clamp(LEAST_SCALE, MOST_SCALE)
        for head in network.fusion[1], network.spatial_prior[1]:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
        network.fusion[1].bias[latent : 2 * latent] = scales  # type: ignore[index]
        network.spatial_prior[1].bias[:latent] = scales  # type: ignore[index]


def _begin(layer: nn.Module, matrix: Tensor) -> None:
    """Make a 1x1 layer's first inputs go through a matrix, and nothing else."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    weight.zero_()
    weight[:, : matrix.shape[1], 0, 0] = matrix


def _basis(block: tuple[int, int, int], count: int) -> tuple[Tensor, Tensor]:
    """Return the best frequencies of a block of YUV, and their variances.

    Returns:
        ``(count, samples)`` with orthonormal rows, and ``(count,)``.
    """
    sides = [_cosines(length) for length in block]
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


def _cosines(length: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II), one frequency a row."""
    table = [
        [
            sqrt((1 if k == 0 else 2) / length) * cos(pi * k * (2 * i + 1) / 2 / length)
            for i in range(length)
        ]
        for k in range(length)
    ]
    return torch.tensor(table)


def _variances(basis: Tensor, correlation: float) -> Tensor:
    """Return each frequency's variance in a Markov chain of variance 1."""
    places = torch.arange(len(basis))
    covariance = correlation ** (places[:, None] - places).abs()
    return ((basis @ covariance) * basis).sum(dim=1)


def _patch_matrix(frames: int) -> Tensor:
    """Return which sample of a block each one of its four patches' features is.

    Patches row by row, each as ``pixel_unshuffle`` orders a unit's frames.
    """
    size = frames * 3 * LATENT_STRIDE**2
    block = torch.arange(size).reshape(frames * 3, 2, PATCH, 2, PATCH)
    order = block.permute(1, 3, 0, 2, 4).reshape(-1)
    return torch.eye(size)[order]
