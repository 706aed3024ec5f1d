"""The space-channel context: what is known of a latent's elements before their bits.

Channels fall into groups of rising size, and the positions of each group into the two
colours of a checkerboard. A group's distribution follows from the hyper-latent and
from all groups before it; the second colour's also from the first colour of its own
group. Time is part of the batch: steps of one group of pictures see each other only
through the 3-D transforms.

Source: ELIC (arXiv 2203.10886), sections 3.2 and 4.1, whose latents are 2-D.
"""

import torch
from torch import Tensor, nn

from lightning_modules.entropy.distributions import Gaussians
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.priors import ScaleLevels
from lightning_modules.entropy.steps import checkerboard, checkerboard_positions
from lightning_modules.float32 import island_dtype
from lightning_modules.layers import at_least_float32

Y_LEVELS = ScaleLevels(0.11, 256.0, 64)
"""The field's usual 64 standard deviations (CompressAI's)."""

FIRST_GROUPS = (16, 16, 32, 64)
"""ELIC's; the last group has the channels that are left."""

CHANNEL_CONTEXT = (224, 128)
"""Widths inside a group's channel context (ELIC's)."""


def channel_groups(channels: int) -> tuple[int, ...]:
    """Return the sizes of the groups of so many channels.

    ELIC's rule is 16, 16, 32, 64 and the rest, for 320 channels; groups that would be
    empty are left out: 128 channels give 16, 16, 32, 64.
    """
    sizes: list[int] = []
    for size in (*FIRST_GROUPS, channels):
        left = channels - sum(sizes)
        if left:
            sizes.append(min(size, left))
    return tuple(sizes)


class GroupContext(nn.Module):
    """Mean and scale of one group, colour by colour.

    Args:
        size: Channels of the group.
        before: Channels of the groups before it.
        hyper: Channels that the hyper-decoder gives.
        inner: Widths inside the channel context.
    """

    def __init__(
        self, size: int, before: int, hyper: int, inner: tuple[int, int]
    ) -> None:
        super().__init__()
        self.channels = (
            nn.Sequential(
                nn.Conv2d(before, inner[0], 5, padding=2),
                nn.ReLU(),
                nn.Conv2d(inner[0], inner[1], 5, padding=2),
                nn.ReLU(),
                nn.Conv2d(inner[1], 2 * size, 5, padding=2),
            )
            if before
            else None
        )
        # No masked weights: the second colour is still 0 where this looks, so that it
        # sees the first one only.
        self.space = nn.Conv2d(size, 2 * size, 5, padding=2)
        known = 2 * size + hyper + (2 * size if before else 0)
        # Evenly from what is known to mean and scale, but not below the hyper-decoder.
        steps = (known - (known - 2 * size) * i / 3 for i in (1, 2))
        first, second = (max(hyper, round(width)) for width in steps)
        self.aggregate = nn.Sequential(
            nn.Conv2d(known, first, 1),
            nn.ReLU(),
            nn.Conv2d(first, second, 1),
            nn.ReLU(),
            nn.Conv2d(second, 2 * size, 1),
        )
        # Near 1: at the smallest scale a latent beyond 0 would cost what no gradient
        # can lower.
        bias = self.aggregate[-1].bias
        assert isinstance(bias, nn.Parameter)
        nn.init.ones_(bias.data[size:])

    def forward(self, space: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale, float32 at least, (N, size, h, w) each."""
        parameters: Tensor = self.aggregate(torch.cat([space, known], dim=1))
        mean, scale = at_least_float32(parameters).chunk(2, dim=1)
        return mean, scale


class SpaceChannelContext(nn.Module):
    """The walk through a latent: two steps for each group of channels.

    Args:
        groups: Their sizes.
        hyper: Channels that the hyper-decoder gives.
        inner: Widths inside a group's channel context.
    """

    def __init__(
        self, groups: tuple[int, ...], hyper: int, inner: tuple[int, int]
    ) -> None:
        super().__init__()
        self.sizes = groups
        self.groups = nn.ModuleList(
            GroupContext(size, sum(groups[:number]), hyper, inner)
            for number, size in enumerate(groups)
        )

    def forward(self, y: Tensor | None, hyper: Tensor, port: Port) -> Tensor:
        """Code a latent and return y_hat, (N, C, h, w).

        Args:
            y: (N, C, h, w); ``None`` to decode.
            hyper: (N, hyper, h, w).
            port: Takes or gives the symbols.
        """
        board = checkerboard(hyper.shape[-2], hyper.shape[-1], hyper.device)
        parts = [None] * len(self.sizes) if y is None else y.split(self.sizes, dim=1)
        decoded: list[Tensor] = []
        for context, part in zip(self.groups, parts, strict=True):
            decoded.append(_code_group(context, part, hyper, decoded, board, port))
        return torch.cat(decoded, dim=1)


def _bits(values: Tensor, scales: Tensor) -> Tensor:
    # It imports CompressAI, which takes seconds.
    from lightning_modules.entropy.bottleneck import conditional_bits

    return conditional_bits(values, scales)


def _code_group(
    context: nn.Module,
    part: Tensor | None,
    hyper: Tensor,
    before: list[Tensor],
    board: Tensor,
    port: Port,
) -> Tensor:
    assert isinstance(context, GroupContext)
    known = hyper
    if context.channels is not None:
        known = torch.cat([context.channels(torch.cat(before, dim=1)), hyper], dim=1)
    space = hyper.new_zeros(len(hyper), context.space.out_channels, *board.shape[1:])
    y_hat: Tensor | None = None
    every = checkerboard_positions(board.shape[-2], board.shape[-1], board.device)
    for keep, positions in zip(board, every, strict=True):
        mean, scale = context(space, known)
        residual = None if part is None else at_least_float32(part) - mean
        of = Gaussians(scale, Y_LEVELS, keep, rounded_bits=_bits, positions=positions)
        coded = port.code(residual, of)
        step = (coded + mean * keep).to(island_dtype(hyper))
        if y_hat is None:
            y_hat = step
            space = context.space(y_hat)
        else:
            y_hat = y_hat + step
    assert y_hat is not None
    return y_hat
