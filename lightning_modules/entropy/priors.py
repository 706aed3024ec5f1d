"""Distributions of latents, and the integer tables that they are coded with."""

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.entropy.estimates import lower_bound
from lightning_modules.entropy.scale_edges import ScaleEdges, find_edges
from lightning_modules.entropy.tables import (
    TAIL_MASS,
    CdfTables,
    gaussian_tables,
    tables_from_pmf,
)
from lightning_modules.layers import at_least_float32

HYPER_STRIDE = 4
"""Positions of a latent along each side of a position of its hyper-latent."""
Z_LIMITS = (-128, 127)
"""z is clamped to what one signed byte holds."""
PROBABILITY_FLOOR = 1e-9
"""No element of z costs more than its -log2: about what an escaped value does."""


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

    def edges(self, dtype: torch.dtype) -> ScaleEdges | None:
        """Return where :meth:`indices` rises, on a CPU; ``None`` if it falls too."""
        return _edges(self, dtype)

    def level(self, index: float) -> float:
        """Return the standard deviation of a level, or of one between two."""
        return exp(log(self.low) + self.step * index)

    def tables(self) -> CdfTables:
        """Return the Gaussian tables that :meth:`indices` points into."""
        return gaussian_tables(np.array([self.level(i) for i in range(self.count)]))


@lru_cache(maxsize=32)
def _edges(levels: ScaleLevels, dtype: torch.dtype) -> ScaleEdges | None:
    middles = [levels.level(i + 0.5) for i in range(levels.count - 1)]
    return find_edges(levels.indices, middles, dtype)


class HyperPrior(nn.Module, ABC):
    """A learned distribution of a hyper-latent, by channel and row.

    Args:
        rows: Number of quality indices that have distributions of their own.
        channels: Channels of z.
    """

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.rows = rows
        self.channels = channels

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A parameter: says device and dtype."""

    @abstractmethod
    def logits(self, x: Tensor, row: Tensor) -> Tensor:
        """Return the logits of P(Z < x), of the shape and dtype of x.

        Args:
            x: (B, C, ...).
            row: int64 (B,), which row each sample uses.
        """

    def shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of z for a latent of ``height`` x ``width``."""
        sides = -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE)
        return batch, self.channels, *sides

    def bits(self, z: Tensor, row: Tensor | None = None) -> Tensor:
        """Return -log2 of the mass of [z - 1/2, z + 1/2], elementwise.

        It is at most 29.9 bits. Its gradient is that of the mass, however small, so
        that what lies far out is still pulled back.

        Args:
            z: (B, C, ...).
            row: (B,), which row each sample uses; 0 by default.

        Returns:
            float32, >= 0, of the shape of ``z``.
        """
        if row is None:
            row = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            log_mass = _log_mass(self.logits(z - 0.5, row), self.logits(z + 0.5, row))
            return -lower_bound(log_mass, log(PROBABILITY_FLOOR)) / log(2)

    @torch.no_grad()
    def tables(self) -> CdfTables:
        """Return integer tables; row r and channel c have ``r * channels + c``."""
        low, high = Z_LIMITS
        edges = torch.arange(low, high + 2, dtype=torch.float64) - 0.5
        edges = edges.expand(self.rows, self.channels, -1)
        # Other devices round otherwise.
        logits = deepcopy(self).cpu().logits(edges, torch.arange(self.rows))
        cdf_np = logits.sigmoid().flatten(0, 1).numpy()
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
        return tables_from_pmf(pmf, length, first + low, tail)


class FactorisedPrior(HyperPrior):
    """Four layers with one unit between them, for each channel and row.

    ``x <- x softplus(h) + b; x <- x + tanh(x) tanh(a)`` (the last one affine only) and
    a sigmoid give the cumulative distribution: CompressAI's ``EntropyBottleneck`` with
    ``filters=(1, 1, 1)``, of which there may be several rows here.

    Args:
        rows: Number of quality indices.
        channels: Channels of z.

    Source: the public DCVC code; the layers are those of arXiv 1802.01436, section 6.1.
    """

    LAYERS = 4

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__(rows, channels)
        self.h = nn.Parameter(torch.randn(self.LAYERS, rows, channels) * 0.01)
        self.b = nn.Parameter(torch.randn(self.LAYERS, rows, channels) * 0.01)
        self.a = nn.Parameter(torch.randn(self.LAYERS - 1, rows, channels) * 0.01)

    @property
    def like(self) -> Tensor:
        """A parameter: says device and dtype."""
        return self.h

    def logits(self, x: Tensor, row: Tensor) -> Tensor:
        """Return the logits of P(Z < x), of the shape of x (B, C, ...)."""
        sides = (1,) * (x.ndim - 2)
        h, b, a = (
            w[:, row].to(x.dtype).unflatten(-1, (-1, *sides))
            for w in (self.h, self.b, self.a)
        )
        for layer in range(self.LAYERS):
            x = x * F.softplus(h[layer]) + b[layer]
            if layer < self.LAYERS - 1:
                x = x + torch.tanh(x) * torch.tanh(a[layer])
        return x


def _log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """Return log(sigmoid(upper) - sigmoid(lower)).

    As a product, whose logarithm is exact where the difference would be 0.
    """
    step = lower_bound(upper - lower, PROBABILITY_FLOOR)
    outside = F.logsigmoid(upper) + F.logsigmoid(-lower)
    return outside + torch.log(-torch.expm1(-step))
