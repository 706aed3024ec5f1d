"""The blocks that UI2C's networks are made of.

Source: DCVC-RT (arXiv 2502.20762), whose blocks UI2C (arXiv 2510.14431, section 3.3)
builds on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.layers import Pointwise, SubpelUp, is_quick, pointwise
from lightning_modules.numerics import KERNELS


class WSiLU(nn.Module):
    """``x * sigmoid(4 x)``: a SiLU that is closer to a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise."""
        # Four times what float16 holds is infinite.
        if KERNELS.generation == 0 or x.dtype == torch.float16:
            return x * torch.sigmoid(4.0 * x)
        return F.silu(4.0 * x) * 0.25


def four_wsilu_(x: Tensor) -> Tensor:
    """Put 4 times the :class:`WSiLU` of a tensor in its place, in two passes.

    Whoever multiplies by a quarter of his weights then gets the same to the last bit,
    for a quarter is exact, unless the product is below 2^-126.
    """
    return F.silu(x.mul_(4.0), inplace=True)


class DepthConvBlock(nn.Module):
    """A depthwise convolution, then a feed-forward part that folds its two halves.

    ``8 c^2 + 17 c`` parameters and ``8 c^2 + 9 c`` MACs per position, plus a 1x1
    adaptor when the widths differ.

    Args:
        inputs: Channels that come in.
        channels: Channels that go out, c.
        shortcut: Add the (adapted) input to the output once more.
        adaptor: Put the 1x1 adaptor even where the widths agree.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        *,
        shortcut: bool = False,
        adaptor: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.adaptor: nn.Module = (
            Pointwise(inputs, channels)
            if adaptor or inputs != channels
            else nn.Identity()
        )
        self.spatial = nn.Sequential(
            Pointwise(channels, channels),
            WSiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            Pointwise(channels, channels),
        )
        self.expand = nn.Sequential(Pointwise(channels, 4 * channels), WSiLU())
        self.reduce = Pointwise(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, channels, H, W)."""
        x = self.adaptor(x)
        # Of the integer twin nothing is as it is here.
        if is_quick(x) and isinstance(self.reduce, Pointwise):
            return self._quick(x)
        u = x + self.spatial(x)
        left, right = self.expand(u).chunk(2, dim=1)
        v: Tensor = u + self.reduce(left + right)
        return v + x if self.shortcut else v

    def _quick(self, x: Tensor) -> Tensor:
        """Do the same without gradients in as few tensors as possible."""
        enter, _, across, leave = self.spatial
        assert isinstance(across, nn.Conv2d)
        y = four_wsilu_(enter(x))
        y = F.conv2d(y, across.weight / 4, across.bias, padding=1, groups=y.shape[1])
        u: Tensor = leave(y).add_(x)
        left, right = four_wsilu_(self.expand[0](u)).chunk(2, dim=1)
        v = pointwise(left + right, self.reduce.weight / 4, self.reduce.bias).add_(u)
        return v.add_(x) if self.shortcut else v


class ResDown(nn.Sequential):
    """Halve both sides (which must be even), then one block with a shortcut."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, channels, 2, stride=2),
            DepthConvBlock(channels, channels, shortcut=True),
        )


class ResUp(nn.Sequential):
    """Double both sides, then one block with a shortcut."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(
            SubpelUp(inputs, channels),
            DepthConvBlock(channels, channels, shortcut=True),
        )


def trunk(inputs: int, channels: int, blocks: int) -> nn.Sequential:
    """Return ``blocks`` blocks in a row, the first of which changes the width."""
    return nn.Sequential(
        DepthConvBlock(inputs, channels),
        *(DepthConvBlock(channels, channels) for _ in range(blocks - 1)),
    )


BRANCH_GAIN = 0.2
"""DCVC's training code has gain 1 everywhere; from there the recurrence over units
overflows float32 within 7 frames, before the first step of a clip of several units."""


def start_prior(head: nn.Conv2d, channels: int, ones: int, before: int = 0) -> None:
    """Make a prior's last layer begin with nearly constant parameters.

    Steps and scales begin at 1: at 0, where DCVC's code begins, both sit below their
    lower bound, where a clamp passes no gradient; and a mean that follows the previous
    units strongly feeds the recurrence.

    Args:
        head: The layer.
        channels: Of each parameter map.
        ones: How many of the first maps begin at 1; the others begin at 0.
        before: Channels ahead of the maps, which begin at 0 too.
    """
    nn.init.xavier_normal_(head.weight, BRANCH_GAIN)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    nn.init.ones_(head.bias[before : before + ones * channels])


def gain_table(slots: int, rows: int, channels: int, spread: float) -> nn.Parameter:
    """Return gains (slots, rows, channels) that grow by ``spread`` over 64 rows.

    DCVC's tables begin at 1, and a row then learns from 1/64 of the samples; begun
    apart, the rates differ from the first step.
    """
    ramp = spread ** (torch.arange(rows) / 63 - 0.5)
    return nn.Parameter(ramp[None, :, None].repeat(slots, 1, channels))


def initialise(module: nn.Module) -> None:
    """Draw Xavier-normal weights and zero biases; residual branches start small."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for block in module.modules():
        if isinstance(block, DepthConvBlock):
            for end in (block.spatial[-1], block.reduce):
                assert isinstance(end, nn.Conv2d)
                nn.init.xavier_normal_(end.weight, BRANCH_GAIN)
