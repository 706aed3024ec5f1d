"""CV-VAE: the convolutional backbone, causal in its encoder's convolutions.

Source: arXiv 2405.20279, the variant for SD 2.1. The head for a variance is left out:
a codec does not sample.

A group normalisation over the clip, as the released weights need it, sees every frame
and all of the picture: then no latent step is free of later frames, and coding in
tiles changes the result.
"""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.video_vae.backbone import Backbone, Norm, Run
from lightning_modules.video_vae.cv_vae_blocks import (
    Attention,
    Downsample,
    ResidualBlock,
    Upsample,
    convolution,
    normalisation,
)

CV_VAE_WIDTHS = {"paper": 128, "small": 64, "mini": 16, "tiny": 4}
"""Channels at full size, by the names that ``build_backbone`` takes."""

MULTIPLES = (1, 2, 4, 4)
"""Of those channels, by level from the finest."""

HALVES_TIME = (True, False, True)
"""Whether the step from a level to the next halves the frames, too."""


class CVEncoder(nn.Module):
    """From a clip to its latent; built of what :class:`CVVAE` is."""

    def __init__(self, channels: int, width: int, half_3d: bool, norm: Norm) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, True, half_3d, norm)

        self.first = convolution(3, width, causal=True)
        self.levels = nn.ModuleList()
        inputs = width
        for number, multiple in enumerate(MULTIPLES):
            outputs = width * multiple
            level = nn.Sequential(block(inputs, outputs), block(outputs, outputs))
            if number < len(HALVES_TIME):
                level.append(Downsample(outputs, HALVES_TIME[number]))
            self.levels.append(level)
            inputs = outputs
        self.middle = nn.Sequential(
            block(inputs, inputs), Attention(inputs, time=False), block(inputs, inputs)
        )
        self.norm = normalisation(inputs, norm)
        self.last = convolution(inputs, channels, causal=True)

    def forward(self, clip: Tensor, run: Run) -> Tensor:
        """Map (B, 3, 4 n + 1, H, W) in [-1, 1] to (B, c, n + 1, H / 8, W / 8)."""
        x = _apply([*self.levels, self.middle], self.first(clip), run)
        return self.last(F.silu(self.norm(x), inplace=True))


class CVDecoder(nn.Module):
    """From a latent back to its clip, not causal; built of what :class:`CVVAE` is."""

    def __init__(self, channels: int, width: int, half_3d: bool, norm: Norm) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, False, half_3d, norm)

        inputs = width * MULTIPLES[-1]
        self.first = convolution(channels, inputs, causal=False)
        self.middle = nn.Sequential(
            block(inputs, inputs), Attention(inputs, time=True), block(inputs, inputs)
        )
        self.levels = nn.ModuleList()
        for number in reversed(range(len(MULTIPLES))):
            outputs = width * MULTIPLES[number]
            level = nn.Sequential(
                block(inputs, outputs), block(outputs, outputs), block(outputs, outputs)
            )
            if number:
                level.append(Upsample(outputs, HALVES_TIME[number - 1]))
            self.levels.append(level)
            inputs = outputs
        self.norm = normalisation(inputs, norm)
        self.last = convolution(inputs, 3, causal=False)

    def forward(self, latent: Tensor, run: Run) -> Tensor:
        """Map (B, c, n + 1, h, w) to (B, 3, 4 n + 1, 8 h, 8 w), near [-1, 1]."""
        x = _apply([self.middle, *self.levels], self.first(latent), run)
        return self.last(F.silu(self.norm(x), inplace=True))


class CVVAE(Backbone):
    """The convolutional backbone, 182 M parameters at the paper's size.

    Args:
        channels: Of the latent.
        width: Channels at full size; 128 in the paper.
        half_3d: Whether the second convolution of a block sees one frame only.
        norm: What a group normalisation takes its statistics from.
    """

    encoder: CVEncoder
    decoder: CVDecoder
    low = -1.0
    high = 1.0

    def __init__(
        self, channels: int, width: int, *, half_3d: bool = True, norm: Norm = "clip"
    ) -> None:
        super().__init__(channels)
        self.encoder = CVEncoder(channels, width, half_3d, norm)
        self.decoder = CVDecoder(channels, width, half_3d, norm)

    def _encode(self, clip: Tensor) -> Tensor:
        return self.encoder(clip, self.run)

    def _decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent, self.run)


def _apply(levels: Iterable[nn.Module], x: Tensor, run: Run) -> Tensor:
    for level in levels:
        assert isinstance(level, nn.Sequential)
        for part in level:
            x = run(part, x)
    return x
