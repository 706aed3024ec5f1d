"""Distributions of latents, and the integer tables that they are coded with."""

from dataclasses import dataclass
from math import exp, log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.entropy.tables import (
    TAIL_MASS,
    CdfTables,
    gaussian_tables,
    tables_from_pmf,
)
from lightning_modules.layers import at_least_float32

HYPER_STRIDE = 4
"""Positions of a latent along each side of a position of its hyper-latent."""
Z_LIMIT = 127
"""z is clamped to what one signed byte holds."""
PROBABILITY_FLOOR = 1e-6


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
        above = at_least_float32(scales).clamp_min(self.low).log() - log(self.low)
        levels = (above / self.step).round().clamp(0, self.count - 1)
        return levels.to(torch.int32)

    def tables(self) -> CdfTables:
        """Return the Gaussian tables that :meth:`indices` points into."""
        levels = [exp(log(self.low) + self.step * i) for i in range(self.count)]
        return gaussian_tables(np.array(levels))


def _logits(x: Tensor, h: Tensor, b: Tensor, a: Tensor) -> Tensor:
    for layer in range(h.shape[0]):
        x = x * F.softplus(h[layer]) + b[layer]
        if layer < a.shape[0]:
            x = x + torch.tanh(x) * torch.tanh(a[layer])
    return x


class FactorisedPrior(nn.Module):
    """A learned distribution per channel and row (a row is a quality index).

    Four layers ``x <- x softplus(h) + b; x <- x + tanh(x) tanh(a)`` (the last one
    affine only) and a sigmoid give the cumulative distribution.

    Args:
        rows: Number of quality indices.
        channels: Channels of z.
    """

    LAYERS = 4

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.h = nn.Parameter(torch.randn(self.LAYERS, rows, channels) * 0.01)
        self.b = nn.Parameter(torch.randn(self.LAYERS, rows, channels) * 0.01)
        self.a = nn.Parameter(torch.randn(self.LAYERS - 1, rows, channels) * 0.01)

    def shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of z for a latent of ``height`` x ``width``."""
        sides = -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE)
        return batch, self.channels, *sides

    def bits(self, z: Tensor, row: Tensor | None = None) -> Tensor:
        """Return -log2 of the mass of [z - 1/2, z + 1/2], elementwise, >= 0.

        Args:
            z: (B, C, ...).
            row: (B,), which row each sample uses; 0 by default.
        """
        if row is None:
            row = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        sides = (1,) * (z.ndim - 2)
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            weights = [
                w[:, row].float().unflatten(-1, (-1, *sides)) for w in self.weights
            ]
            lower, upper = _logits(z - 0.5, *weights), _logits(z + 0.5, *weights)
            # Where both sigmoids are small their difference is exact.
            sign = torch.where(lower + upper > 0, -1.0, 1.0)
            mass = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
            return -torch.log2(mass.clamp_min(PROBABILITY_FLOOR))

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """The slopes h, the offsets b and the curvatures a."""
        return self.h, self.b, self.a

    @torch.no_grad()
    def tables(self) -> CdfTables:
        """Return integer tables; row r and channel c have ``r * channels + c``."""
        rows, channels = self.h.shape[1:]
        edges = torch.arange(-Z_LIMIT, Z_LIMIT + 2, dtype=torch.float64) - 0.5
        weights = [w.detach().cpu().double()[..., None] for w in self.weights]
        cdf = torch.sigmoid(_logits(edges.expand(rows, channels, -1), *weights))
        cdf_np = cdf.reshape(rows * channels, -1).numpy()
        symbols = cdf_np.shape[1] - 1
        first = np.clip((cdf_np < TAIL_MASS / 2).sum(1) - 1, 0, symbols - 1)
        last = np.clip((cdf_np < 1 - TAIL_MASS / 2).sum(1), first + 1, symbols)
        length = last - first
        columns = first[:, None] + np.arange(length.max())
        inside = columns < last[:, None]
        mass = np.diff(cdf_np, axis=1)
        pmf = np.take_along_axis(mass, np.minimum(columns, symbols - 1), axis=1)
        pmf = np.where(inside, pmf, 0.0)
        tail = np.maximum(1.0 - pmf.sum(1), 0.0)
        return tables_from_pmf(pmf, length, first - Z_LIMIT, tail)
