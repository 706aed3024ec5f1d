"""What two or more codecs share: upsampling, priors, how scales meet integer tables."""

from dataclasses import dataclass
from math import exp, log, pi, sqrt

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.entropy import CdfTables, gaussian_tables, tables_from_pmf

Z_LIMIT = 127
"""z is clamped to what one signed byte holds."""
PROBABILITY_FLOOR = 1e-6
SMALL_MASS = 1e-6


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
        self.h = nn.Parameter(torch.randn(self.LAYERS, rows, channels) * 0.01)
        self.b = nn.Parameter(torch.randn(self.LAYERS, rows, channels) * 0.01)
        self.a = nn.Parameter(torch.randn(self.LAYERS - 1, rows, channels) * 0.01)

    def bits(self, z: Tensor, row: Tensor) -> Tensor:
        """Return -log2 of the mass of [z - 1/2, z + 1/2], elementwise, >= 0.

        Args:
            z: (B, C, H, W).
            row: (B,), which row each sample uses.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            weights = [w[:, row].float()[..., None, None] for w in self.weights]
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
    def tables(self, tail_mass: float = 1e-4) -> CdfTables:
        """Return integer tables; row r and channel c have ``r * channels + c``."""
        rows, channels = self.h.shape[1:]
        edges = torch.arange(-Z_LIMIT, Z_LIMIT + 2, dtype=torch.float64) - 0.5
        weights = [w.detach().cpu().double()[..., None] for w in self.weights]
        cdf = torch.sigmoid(_logits(edges.expand(rows, channels, -1), *weights))
        cdf_np = cdf.reshape(rows * channels, -1).numpy()
        symbols = cdf_np.shape[1] - 1
        first = np.clip((cdf_np < tail_mass / 2).sum(1) - 1, 0, symbols - 1)
        last = np.clip((cdf_np < 1 - tail_mass / 2).sum(1), first + 1, symbols)
        length = last - first
        columns = first[:, None] + np.arange(length.max())
        inside = columns < last[:, None]
        mass = np.diff(cdf_np, axis=1)
        pmf = np.take_along_axis(mass, np.minimum(columns, symbols - 1), axis=1)
        pmf = np.where(inside, pmf, 0.0)
        tail = np.maximum(1.0 - pmf.sum(1), 0.0)
        return tables_from_pmf(pmf, length, first - Z_LIMIT, tail)


def training_bits(values: Tensor, sigma: Tensor) -> Tensor:
    """Estimate what values with noise cost, in bits, element by element.

    The mass of [v - 1/2, v + 1/2]; below 1e-6 the density instead, whose gradient does
    not vanish however far a value lies from 0.

    Args:
        values: Any shape, less their mean.
        sigma: Of the same shape.

    Source: arXiv 2410.02598, equation 14; the switch to the density is QARV's.
    """
    spread = sigma * sqrt(2)
    # Both ends in the half where erfc is accurate: 1 - small would lose it.
    distance = values.abs()
    nearer = torch.erfc((distance - 0.5) / spread)
    farther = torch.erfc((distance + 0.5) / spread)
    mass = 0.5 * (nearer - farther)
    log_density = -0.5 * (values / sigma).square() - sigma.log() - 0.5 * log(2 * pi)
    log_mass = mass.clamp_min(SMALL_MASS).log()
    return torch.where(mass > SMALL_MASS, log_mass, log_density) / -log(2)


class OverflowingError(ValueError):
    """The networks give NaN or infinity, of which no picture can be made."""


def to_symbols(rounded: Tensor) -> npt.NDArray[np.int32]:
    """Return whole numbers as the entropy coder takes them.

    Raises:
        OverflowingError: One is not finite.
    """
    if not bool(rounded.isfinite().all()):
        raise OverflowingError(
            "the latent is not finite: the weights are untrained, damaged, or too "
            "large for this dtype"
        )
    symbols: npt.NDArray[np.int32] = rounded.to(torch.int32).cpu().numpy()
    return symbols
