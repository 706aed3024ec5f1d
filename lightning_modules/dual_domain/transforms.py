"""The transforms between pixels and latents.

:class:`Encoder` and :class:`Decoder` are shared by intra, inter and warped frames, and
have no argument for another frame. The conditional ones are the matched baseline of an
ablation.

Source: the shapes are those of ELIC (arXiv 2203.10886) without attention.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.dual_domain.design import Widths
from lightning_modules.float32 import Float32Ends
from lightning_modules.layers import Pointwise

LATENT_GAIN, Z_GAIN = 12.0, 24.0
"""Factors on the initial weights of a latent's and a hyper-latent's last layer: from
PyTorch's, they round to 0 everywhere, and what reads them has nothing to learn from."""


class ResidualBlock(nn.Module):
    """A bottleneck of half the channels, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            Pointwise(channels, half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(inplace=True),
            Pointwise(half, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y: Tensor = x + self.body(x)
        return y


def down(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a convolution that halves both sides, which must be even or 1."""
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Return a sub-pixel convolution that doubles both sides.

    It is CompressAI's ``subpel_conv3x3``, whose package takes seconds to import.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2)
    )


def blocks(channels: int, count: int) -> nn.Sequential:
    """Return ``count`` residual blocks in a row."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class Encoder(Float32Ends):
    """Pixels (B, inputs, H, W) to a latent (B, M, H/16, W/16)."""

    def __init__(self, widths: Widths, inputs: int = 3) -> None:
        layers: list[nn.Module] = []
        before = inputs
        for channels in widths.transform:
            layers += [down(before, channels), blocks(channels, widths.blocks)]
            before = channels
        last = down(before, widths.latent)
        last.weight.data *= LATENT_GAIN
        super().__init__(*layers, last, last=True)


class Decoder(Float32Ends):
    """A latent (B, M, h, w) to pixels (B, 3, 16 h, 16 w), about 0.5 at first."""

    def __init__(self, widths: Widths) -> None:
        layers: list[nn.Module] = []
        before = widths.latent
        for channels in reversed(widths.transform):
            layers += [up(before, channels), blocks(channels, widths.blocks)]
            before = channels
        super().__init__(*layers, up(before, 3), first=True)


class ConditionalDecoder(nn.Module):
    """A decoder that also sees features of a warped frame at 1/1, 1/2 and 1/4.

    Its pixels depend on other frames: errors propagate (ablation).
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        half, quarter, eighth = widths.transform
        self.up = nn.ModuleList(
            up(i, o)
            for i, o in ((widths.latent, eighth), (eighth, quarter), (quarter, half))
        )
        self.refine = nn.ModuleList(
            blocks(c, widths.blocks) for c in (eighth, quarter, half)
        )
        self.features = nn.ModuleList(
            (nn.Conv2d(3, half, 3, padding=1), down(half, half), down(half, quarter))
        )
        self.mix = nn.ModuleList(
            (nn.Conv2d(2 * quarter, quarter, 1), nn.Conv2d(2 * half, half, 1))
        )
        self.last = up(half, half)
        self.pixels = nn.Conv2d(2 * half, 3, 3, padding=1)

    def forward(self, y_hat: Tensor, warped: Tensor) -> Tensor:
        """Map (B, M, h, w) and (B, 3, 16 h, 16 w) to pixels of the latter's shape."""
        full = F.relu(self.features[0](warped - 0.5))
        half = F.relu(self.features[1](full))
        quarter = F.relu(self.features[2](half))
        x = self.refine[0](self.up[0](y_hat))
        x = self.mix[0](torch.cat([self.up[1](x), quarter], dim=1))
        x = self.mix[1](torch.cat([self.up[2](self.refine[1](x)), half], dim=1))
        pixels: Tensor = self.pixels(
            torch.cat([self.last(self.refine[2](x)), full], dim=1)
        )
        return pixels


class HyperEncoder(nn.Sequential):
    """A latent (B, C, h, w), h and w multiples of 4, to z (B, C_z, h/4, w/4)."""

    def __init__(self, channels: int, hidden: int, z: int) -> None:
        last = down(hidden, z)
        last.weight.data *= Z_GAIN
        super().__init__(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.ReLU(),
            down(hidden, hidden),
            nn.ReLU(),
            last,
        )


class HyperDecoder(nn.Sequential):
    """z (B, C_z, h, w) to features (B, C, 4 h, 4 w)."""

    def __init__(self, z: int, hidden: int, channels: int) -> None:
        super().__init__(
            up(z, hidden),
            nn.ReLU(),
            up(hidden, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 3, padding=1),
        )


def squash(x: Tensor) -> Tensor:
    """Return ``sgn(x) log(1 + |x|)``, which networks take better than latents."""
    return x.sign() * torch.log1p(x.abs())
