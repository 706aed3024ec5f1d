"""A start of DHVC's transforms as cosine transforms, in place of random ones.

Residual branches begin at nothing, so the network begins linear. Encoder and spatial
reference hold the lowest frequencies of each scale's blocks. A scale's latent is what
the reference lacks of them, along the directions in which pictures vary most there.
Priors expect what the last frame shows in the same place, and the deviations of
photographs. A random start takes thousands of steps for this. The paper names no start;
this is ours, for trainings of hours.
"""

from dataclasses import dataclass
from itertools import product
from math import log, sqrt
from typing import Any

import torch
from torch import Tensor

from lightning_modules.cosines import (
    OPPONENTS,
    correlations,
    cosines,
    opponents,
    silence,
)
from lightning_modules.dhvc.blocks import PredictionBlock, ResBlock
from lightning_modules.dhvc.entropy_model import SOFTPLUS_SHIFT
from lightning_modules.dhvc.network import DHVCNetwork

CHAINS = (
    (0, 0.48, 0.987),
    (0, 0.19, 0.81),
    (1, 0.035, 0.984),
    (2, 0.007, 0.984),
)
"""What photographs, RGB in [-1, 1], are taken to be a sum of: the number of a colour, a
variance, and the correlation of neighbours, down and across, of a Markov chain.

So they correlate as measured: by 0.94 and 0.47 at distances of 1 and 32, along the
first colour. Its variance is around mid grey. Those of the others are around a
photograph's own mean, which few latents hold."""

LEAST_DEVIATION = 0.11
"""Of a latent, in steps of the finest quantiser."""

TEMPORAL = 0.4
"""Deviation of what the last frame does not show, over that of the picture."""

STEPS_SEEN, RIDGE = 64, 1e-3
"""Lambdas at which steps are fitted to the embedding, and how much weights count."""

QUARTERS = tuple(product(range(2), repeat=2))
"""Of a block, by row and column, in the order of a pixel shuffle."""


@dataclass(frozen=True)
class _Level:
    """The lowest frequencies of square blocks, most important first.

    Attributes:
        side: Of a block, in pixels.
        basis: (n, 3, side, side), orthonormal.
        kinds: (n,), equal where frequencies have the same colour, and the same symmetry
            down and across.
    """

    side: int
    basis: Tensor
    kinds: Tensor

    def quarter(self, row: int, column: int) -> Tensor:
        """Return the basis in one quarter of the block, (n, samples)."""
        return _quarter(self.basis, row, column).flatten(1)


def start_as_cosines(network: DHVCNetwork, lmbdas: tuple[float, float]) -> None:
    """Make a network begin as cosine transforms of its blocks.

    Args:
        network: In the structure of DHVC 2.0, with attention as predictor and decoded
            features as references; its weights are replaced. Where its steps are
            ``learned``, they begin as the best ones of a uniform quantiser at high
            rates, for the mean squared error of RGB in [0, 1]:
            ``step^2 = 18 / (ln 2 lambda)``. Otherwise they are those of the middle
            lambda.
        lmbdas: Smallest and largest lambda.

    Raises:
        ValueError: The network is another one.
    """
    options = network.options
    if (options.structure, options.predictor, options.reference) != (
        "dhvc2",
        "attention",
        "decoded",
    ):
        raise ValueError(
            "initial: cosines is for DHVC 2.0 with predictor: attention and reference: "
            f"decoded, not for structure {options.structure!r}, predictor "
            f"{options.predictor!r} and reference {options.reference!r}; use initial: "
            "random"
        )
    learned = options.steps == "learned"
    finest = lmbdas[1] if learned else sqrt(lmbdas[0] * lmbdas[1])
    # Pixels of the network span 1 - black, not 1.
    step = (1.0 - options.layout.black) * sqrt(18 / (log(2) * finest))
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, ResBlock):
                silence(block.reduce)
            elif isinstance(block, PredictionBlock):
                silence(block.norm_attention)
                silence(block.mlp[-1])
        observed = _begin_encoder(network)
        _begin_scales(network, observed, step)
        if learned:
            _begin_steps(network, lmbdas)


def _begin_encoder(network: Any) -> list[Tensor]:
    """Let the encoder see each scale's lowest frequencies.

    Returns:
        For each scale, coarsest first, what its features are of a block's samples,
        (C, 3, side, side).
    """
    encoder = network.encoder
    level = _lowest(encoder.stem.kernel_size[0], encoder.stem.out_channels)
    _begin(encoder.stem, level.basis)
    seen = level.basis
    found: list[Tensor] = []
    for down in encoder.down:
        level = _lowest(2 * level.side, down.out_channels)
        # Features of quarters hold their lowest frequencies only.
        back = torch.linalg.pinv(seen.flatten(1))
        silence(down)
        whole = torch.zeros_like(level.basis)
        for row, column in QUARTERS:
            matrix = level.quarter(row, column) @ back
            down.weight[: len(matrix), : len(seen), row, column] = matrix
            part = (matrix @ seen.flatten(1)).unflatten(1, seen.shape[1:])
            _quarter(whole, row, column).copy_(part)
        seen = whole
        found.insert(0, seen)
    return found


def _begin_scales(network: Any, observed: list[Tensor], step: float) -> None:
    """Let each scale code what the ones before it leave, and the tail show it.

    Args:
        network: All of it.
        observed: As :func:`_begin_encoder` returns it.
        step: The finest one of the quantiser.
    """
    side = network.options.strides[0]
    coarser: _Level | None = None
    # By the place of a scale's block in the first quarter of a coarsest one: what the
    # spatial reference is there of that one's samples, (n, 3, side, side). The other
    # quarters are its mirror images.
    known: dict[tuple[int, int], Tensor] = {}
    for number, seen in enumerate(observed, start=1):
        block: Any = network.scale(number)[0]
        level = _lowest(seen.shape[-1], block.prior.in_channels)
        own = level.basis.flatten(1) @ torch.linalg.pinv(seen.flatten(1))
        if coarser is not None:
            _begin_up(block.up_spatial, coarser, level)
            _begin_up(block.up_decoded, coarser, level)
        expected: dict[tuple[int, int], Tensor] = {}
        lacking: dict[tuple[int, int], Tensor] = {}
        count = max(1, side // level.side // 2)
        for place in product(range(count), range(count)):
            expected[place] = level.basis.new_zeros(len(level.basis), 3, side, side)
            lacking[place] = expected[place].clone()
            rows, columns = (slice(i * level.side, (i + 1) * level.side) for i in place)
            lacking[place][:, :, rows, columns] = torch.tensordot(own, seen, 1)
            if coarser is not None:
                row, column = place
                up = _child(coarser, level, row % 2, column % 2)
                expected[place] = torch.tensordot(up, known[row // 2, column // 2], 1)
                lacking[place] -= expected[place]
        spread = torch.stack([_covariance(each) for each in lacking.values()]).mean(0)
        # Mirror images differ in the signs of frequencies of other symmetry.
        spread *= level.kinds[:, None] == level.kinds
        powers, vectors = torch.linalg.eigh(spread)
        # The last of its features tells apart whether there is an earlier frame.
        count = min(block.restore.in_channels, block.prior.in_channels - 1)
        directions = vectors.T.flip(0)[:count]
        _begin_latent(block, directions, own, powers.flip(0)[:count], step)
        kept = directions.T @ directions
        known = {
            place: expected[place] + torch.tensordot(kept, lack, 1)
            for place, lack in lacking.items()
        }
        coarser = level
    assert coarser is not None
    tail = network.tail
    finest = _lowest(tail.stem, tail.out.in_channels)
    _begin_up(tail.up, coarser, finest)
    _begin(tail.out, finest.basis.flatten(1).T)


def _begin_latent(
    block: Any, directions: Tensor, own: Tensor, powers: Tensor, step: float
) -> None:
    """Let a scale code its latent, in steps of the finest quantiser.

    Args:
        block: Of the scale.
        directions: (z, n), of what the reference lacks; orthonormal.
        own: (n, observed), from the encoder's features to the reference's.
        powers: (z,), variances along the directions.
        step: Of the quantiser.
    """
    z, n = directions.shape
    c, latents = block.prior.in_channels, block.restore.in_channels
    merge, mu = block.posterior[0], block.posterior[1]
    seen = own.shape[1]
    observed = merge.in_channels - c
    merge.weight[:z] = 0
    merge.bias[:z] = 0
    merge.weight[:z, :seen, 0, 0] = directions @ own / step
    merge.weight[:z, observed : observed + n, 0, 0] = -directions / step
    silence(mu)
    mu.weight[:z, :z, 1, 1] = torch.eye(z)
    enter, prior = block.predictor[0], block.prior
    silence(enter)
    silence(prior)
    prior.bias[latents:] = _raw(torch.zeros(latents))
    scales = slice(latents, latents + z)
    prior.bias[scales] = _raw(powers.clamp_min(0).sqrt() / step)
    expects = z if block.sees_itself else 0
    enter.weight[expects:, : c - expects, 0, 0] = torch.eye(c - expects)
    if block.sees_itself:
        # The least important frequency, of which no latent expects anything, tells
        # apart whether there is an earlier frame.
        flag, last = n - 1, block.slots * c
        expected = directions.clone()
        expected[:, flag] = 0
        enter.weight[:z, :n, 0, 0] = -expected / step
        enter.weight[:z, last : last + n, 0, 0] = expected / step
        prior.weight[:z, :z, 0, 0] = torch.eye(z)
        enter.weight[-1] = 0
        enter.weight[-1, flag] = -1
        enter.weight[-1, last + flag] = 1
        block.temporal_constant[:, flag] = 1
        alone = prior.bias[scales].clone()
        prior.bias[scales] = _raw(TEMPORAL * powers.clamp_min(0).sqrt() / step)
        prior.weight[scales, -1, 0, 0] = alone - prior.bias[scales]
    _begin(block.restore, directions.T * step)
    silence(block.merge)
    block.merge.weight[:, 2 * c :, 0, 0] = torch.eye(c)


def _raw(deviations: Tensor) -> Tensor:
    """Return what a prior says for deviations in steps of the finest quantiser."""
    shifted = deviations.clamp_min(LEAST_DEVIATION).log() + SOFTPLUS_SHIFT
    return shifted.expm1().log() - SOFTPLUS_SHIFT


def _begin_steps(network: Any, lmbdas: tuple[float, float]) -> None:
    """Let steps fall with the root of lambda, to 1 at the largest."""
    low, high = (log(lmbda) for lmbda in lmbdas)
    grid = torch.linspace(low, high, STEPS_SEEN)
    seen = network.embed(grid.exp())
    seen = torch.cat([seen, torch.ones(STEPS_SEEN, 1)], dim=1)
    # Small weights: the embedding moves in training.
    ridge = RIDGE * torch.eye(seen.shape[1])
    fit = torch.linalg.solve(seen.T @ seen + ridge, seen.T @ ((high - grid) / 2))
    for number in range(1, network.count + 1):
        head = network.scale(number)[0].log_step
        head.weight.copy_(fit[:-1].expand_as(head.weight))
        head.bias.fill_(fit[-1])


def _begin_up(up: Any, coarser: _Level, level: _Level) -> None:
    """Let a layer give each quarter of a block its frequencies."""
    layer = up[0]
    silence(layer)
    for place, (row, column) in enumerate(QUARTERS):
        matrix = _child(coarser, level, row, column)
        part = layer.weight[place :: len(QUARTERS)]
        part[: len(matrix), : matrix.shape[1], 0, 0] = matrix


def _child(coarser: _Level, level: _Level, row: int, column: int) -> Tensor:
    """Return the matrix from a block's frequencies to those of one quarter."""
    return level.basis.flatten(1) @ coarser.quarter(row, column).T


def _begin(layer: Any, matrix: Tensor) -> None:
    """Make a layer's first channels go through a matrix, and nothing else."""
    silence(layer)
    target = layer.weight[: len(matrix), : matrix.shape[1]]
    target.copy_(matrix.reshape(target.shape))


def _quarter(blocks: Tensor, row: int, column: int) -> Tensor:
    """Return a view of one quarter of blocks (..., side, side)."""
    half = blocks.shape[-1] // 2
    rows = slice(row * half, (row + 1) * half)
    return blocks[..., rows, column * half : (column + 1) * half]


def _lowest(side: int, count: int) -> _Level:
    """Return the strongest frequencies of a block; fewer where it has fewer samples."""
    waves = cosines(side)
    worth = torch.zeros(len(OPPONENTS), side, side)
    for colour, variance, rho in CHAINS:
        powers = ((waves @ correlations(side, rho)) * waves).sum(dim=1)
        worth[colour] += variance * powers[:, None] * powers
    worth = worth.flatten()
    best = worth.argsort(descending=True, stable=True)[:count]
    plane, place = best // side**2, best % side**2
    i, j = place // side, place % side
    basis = torch.einsum("nc,nh,nw->nchw", opponents()[plane], waves[i], waves[j])
    return _Level(side, basis, 4 * plane + 2 * (i % 2) + j % 2)


def _covariance(maps: Tensor) -> Tensor:
    """Return how maps (n, 3, side, side) of photographs' pixels covary, (n, n)."""
    colours = torch.einsum("kc,nchw->nkhw", opponents(), maps)
    smooth = torch.zeros_like(colours)
    for colour, variance, rho in CHAINS:
        along = correlations(maps.shape[-1], rho)
        smooth[:, colour] += variance * (along @ colours[:, colour] @ along)
    return smooth.flatten(1) @ colours.flatten(1).T
