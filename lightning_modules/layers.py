"""What networks of two or more codecs share: an upsampling, and enough digits."""

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is in float64.

    Rounding and probabilities need more digits than half precision has. In float32
    nothing is on autocast's list, so what follows stays float32.
    """
    return x if x.dtype == torch.float64 else x.float()


class SubpelUp(nn.Sequential):
    """Double both sides: a convolution to 4 c channels, then a pixel shuffle."""

    def __init__(self, inputs: int, channels: int, kernel: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, 4 * channels, kernel, padding=kernel // 2),
            nn.PixelShuffle(2),
        )
