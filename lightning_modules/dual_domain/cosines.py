"""A start of DualDomain's transforms as cosine transforms, in place of random ones.

Residual blocks begin as nothing, so transforms begin as linear maps: pixels to their
lowest frequencies, level by level, and back. The same is done for flows, whose steps
are then parts of a pixel. From a random start that takes thousands of steps. The start
is ours, for trainings of hours.
"""

from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.cosines import cosines, opponents, quarters, silence
from lightning_modules.dual_domain.design import LATENT_STRIDE, lagrangian
from lightning_modules.dual_domain.entropy_model import LEVELS
from lightning_modules.dual_domain.experts import SLOPE
from lightning_modules.dual_domain.network import DualDomainNetwork
from lightning_modules.dual_domain.transforms import ResidualBlock

MEANS = (36.0, 4.8, 1.0)
"""Variances along the directions of RGB of the means of 16x16 blocks of photographs,
times 256."""

POWERS, DECAYS = (6.5, 0.33, 0.086), (1.43, 1.95, 1.8)
"""Of all other frequencies ``(i, j)``: ``power / (1 + i^2 + j^2) ** decay``, a line
through the logarithms of what the photographs have that models train on. Of neighbours
in a Markov chain, the usual model, another 192 frequencies are best, which show the
same photographs by 4.2 dB worse."""

FLOW_MEAN, FLOW_POWER, FLOW_DECAY = 256.0, 16.0, 2.0
"""The same of flows in pixels: they hardly change within a block."""

FLOW_STEP = 8.0
"""Of a flow's frequencies at quality 0: half a pixel of a block's mean."""

LEAST_SCALE, MOST_SCALE = 0.15, 60.0
"""Of a symbol's distribution at the start, within what tables hold."""

TRUST = 2.0
"""Logit of the share of the prediction in an inter frame's means, 0.88."""


def start_as_cosines(network: DualDomainNetwork) -> None:
    """Make a network begin as cosine transforms of its blocks, at ideal step sizes.

    The best step of a uniform quantiser at high rates follows from the Lagrangian:
    ``step^2 = 18 / (ln 2 lambda)``, for lambda weighs the mean over three planes. Its
    course over quality is the one that gains begin with. Experts begin silent, and
    an inter frame's prediction as its mean. The transforms of the ablation
    ``separate`` stay random.

    Args:
        network: Its weights are replaced.
    """
    step = sqrt(18.0 / (log(2.0) * float(lagrangian(torch.zeros(())))))
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, ResidualBlock):
                silence(block.body[-1])
        variances = _begin_transforms(
            network.encoder,
            network.decoder,
            _Planes(opponents(), *map(torch.tensor, (MEANS, POWERS, DECAYS))),
            step,
        )
        for steps in (network.encoder_steps, network.decoder_steps):
            if steps is not None and steps.experts is not None:
                silence(steps.experts.expert_out)
        gained = network.options.scales == "gained"
        raw = _raw_scales(variances.sqrt() / step, 0.0 if gained else 0.5)
        sizes = network.context.sizes
        for group, own in zip(network.context.groups, raw.split(sizes), strict=True):
            _begin_group(group, own)
        if network.options.pixel_alignment:
            _begin_motion(network)


@dataclass(frozen=True)
class _Planes:
    """Frequencies of square blocks of several planes.

    Attributes:
        mix: (planes, planes), orthonormal rows: which mixtures of planes vary alone.
        means: (planes,), variance of a block's mean in each mixture, times its size.
        powers: (planes,), of the other frequencies, see :data:`POWERS`.
        decays: (planes,), likewise.
    """

    mix: Tensor
    means: Tensor
    powers: Tensor
    decays: Tensor

    def basis(self, side: int, count: int) -> tuple[Tensor, Tensor]:
        """Return the frequencies of a block that vary most, and their variances.

        Returns:
            ``(count, planes * side * side)`` with orthonormal rows, and ``(count,)``;
            fewer where the block has fewer samples.
        """
        own = cosines(side)
        places = torch.arange(side) * LATENT_STRIDE / side
        distance = 1.0 + places[:, None].square() + places.square()
        spread = self.powers[:, None, None] / distance ** self.decays[:, None, None]
        spread[:, 0, 0] = self.means
        rows = torch.einsum("pc,ia,jb->pijcab", self.mix, own, own).flatten(0, 2)
        best = spread.flatten().argsort(descending=True, stable=True)[:count]
        return rows.flatten(1)[best], spread.flatten()[best]


def _begin_transforms(
    encoder: nn.Sequential, decoder: nn.Sequential, planes: _Planes, step: float
) -> Tensor:
    """Let an encoder give frequencies in units of a step, and a decoder invert it.

    Each level turns the frequencies of four blocks into those of the block that they
    make up. Features beyond a block's samples stay random, and nothing reads them yet.

    Returns:
        Variances of the frequencies that the latent has.
    """
    downs = [each for each in encoder if isinstance(each, nn.Conv2d)]
    rows = [each for each in decoder if isinstance(each, nn.Sequential)]
    ups = [row[0] for row in rows if isinstance(row[0], nn.Conv2d)]
    known = torch.eye(len(planes.mix))
    for level, (down, up) in enumerate(zip(downs, reversed(ups), strict=True), start=1):
        side = 2**level
        wanted, variances = planes.basis(side, down.out_channels)
        parts = quarters(len(planes.mix), side)
        # (frequencies, features of four blocks), quarter by quarter.
        there = wanted @ parts.T @ torch.block_diag(*[known.T] * 4)
        if level == len(downs):
            there = there / step
        back = torch.linalg.pinv(there)
        _begin_down(down, there.unflatten(1, (4, -1)))
        _begin_up(up, back.unflatten(0, (4, -1)))
        known = wanted
    return variances


def _begin_down(layer: nn.Conv2d, matrices: Tensor) -> None:
    """Let a 5x5 layer of stride 2 map four positions, (outputs, 4, inputs)."""
    count, _, inputs = matrices.shape
    assert layer.bias is not None
    layer.weight[:count].zero_()
    layer.weight[:, inputs:].zero_()
    layer.bias[:count].zero_()
    for place in range(4):
        row, column = divmod(place, 2)
        layer.weight[:count, :inputs, 2 + row, 2 + column] = matrices[:, place]


def _begin_up(layer: nn.Conv2d, matrices: Tensor) -> None:
    """Let a sub-pixel layer map a position to four, (4, outputs, inputs)."""
    _, count, inputs = matrices.shape
    assert layer.bias is not None
    for place in range(4):
        # Of each feature, four channels in a row are its four positions.
        own = slice(place, 4 * count, 4)
        layer.weight[own].zero_()
        layer.bias[own].zero_()
        layer.weight[own, :inputs, 1, 1] = matrices[place]
    layer.weight[:, inputs:].zero_()


def _begin_group(group: Any, raw: Tensor) -> None:
    """Let a group's means be 0, or the prediction, and its scales those of pictures."""
    silence(group.mix[-1])
    mean, scale, gate = group.mix[-1].bias.chunk(3)
    mean.zero_()
    scale.copy_(raw)
    gate.fill_(TRUST)


def _begin_motion(network: DualDomainNetwork) -> None:
    """Let flows begin as none, and their codec as a transform of their blocks."""
    for level in network.flow.levels:
        silence(list(level.children())[-1])
    encoder, decoder = network.motion_encoder, network.motion_decoder
    course = FLOW_MEAN, FLOW_POWER, FLOW_DECAY
    planes = _Planes(torch.eye(2), *(torch.full((2,), value) for value in course))
    variances = _begin_transforms(encoder.encoder, decoder.decoder, planes, FLOW_STEP)
    last: Any = decoder.hyper_decoder[-1]
    silence(last)
    _, scale = last.bias.chunk(2)
    scale.copy_(_raw_scales(variances.sqrt() / FLOW_STEP, 0.5))


def _raw_scales(deviations: Tensor, quality: float) -> Tensor:
    """Return what gives these deviations at a quality.

    Args:
        deviations: In units of the steps at quality 0.
        quality: In [0, 1].
    """
    middle = (exp(SLOPE * quality) * deviations).clamp(LEAST_SCALE, MOST_SCALE)
    above = middle.log() - log(LEVELS.low)
    return above + torch.log(-torch.expm1(-above)) + log(LEVELS.low)
