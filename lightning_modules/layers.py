"""What two or more codecs share: upsampling, and how scales meet integer tables."""

from dataclasses import dataclass
from math import exp, log

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_modules.entropy import CdfTables, gaussian_tables


class SubpelUp(nn.Sequential):
    """Double both sides: a convolution to 4 c channels, then a pixel shuffle."""

    def __init__(self, inputs: int, channels: int, kernel: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, 4 * channels, kernel, padding=kernel // 2),
            nn.PixelShuffle(2),
        )


@dataclass(frozen=True)
class ScaleLevels:
    """Standard deviations at even distances of their logarithms, each with a table.

    Attributes:
        low: The smallest.
        high: The largest.
        count: How many.
    """

    low: float
    high: float
    count: int

    @property
    def step(self) -> float:
        """Difference of two neighbours' logarithms."""
        return (log(self.high) - log(self.low)) / (self.count - 1)

    def indices(self, scales: Tensor) -> Tensor:
        """Return the nearest level of each scale, int32 from 0 to ``count`` - 1."""
        above = scales.float().clamp_min(self.low).log() - log(self.low)
        levels = (above / self.step).round().clamp(0, self.count - 1)
        return levels.to(torch.int32)

    def tables(self) -> CdfTables:
        """Return the Gaussian tables that :meth:`indices` points into."""
        levels = [exp(log(self.low) + self.step * i) for i in range(self.count)]
        return gaussian_tables(np.array(levels))


def to_symbols(rounded: Tensor) -> npt.NDArray[np.int32]:
    """Return whole numbers as the entropy coder takes them.

    Raises:
        ValueError: One is not finite.
    """
    if not bool(rounded.isfinite().all()):
        raise ValueError(
            "the latent is not finite: the weights are untrained, damaged, or too "
            "large for this dtype"
        )
    symbols: npt.NDArray[np.int32] = rounded.to(torch.int32).cpu().numpy()
    return symbols
