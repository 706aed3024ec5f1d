"""UI2C's entropy model: the factorised prior of z and the stepwise one of y.

Source: DCVC-RT (arXiv 2502.20762), section 3; kept by UI2C (arXiv 2510.14431).
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.entropy import CdfTables, tables_from_pmf
from lightning_modules.layers import ScaleLevels

Y_LEVELS = ScaleLevels(0.11, 16.0, 128)
Z_LIMIT = 127
"""z is clamped to what one signed byte holds."""
PROBABILITY_FLOOR = 1e-6


def scale_indices(scales: Tensor) -> Tensor:
    """Return the nearest table of each scale, int32 in 0..127.

    DCVC-RT takes the next lower level; the nearest costs fewer bits.
    """
    return Y_LEVELS.indices(scales)


def y_tables() -> CdfTables:
    """Return the Gaussian tables that :func:`scale_indices` points into."""
    return Y_LEVELS.tables()


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


TILES = {2: [[0, 1], [1, 0]], 4: [[0, 1], [2, 3]]}
"""The places of a 2 x 2 tile by the number of coding steps."""


@lru_cache(maxsize=8)
# Cached tensors serve validation and training alike: autograd refuses those that were
# made in inference mode.
@torch.inference_mode(False)
def step_masks(
    steps: int, channels: int, height: int, width: int, device: torch.device
) -> Tensor:
    """Return which elements of a latent each coding step codes.

    The channels fall into ``steps`` groups and the positions into as many places of
    a 2 x 2 tile (the two colours of a checkerboard for 2 steps, a quad-tree for 4).

    Returns:
        bool (steps, channels, height, width); over the steps each element once.
    """
    places = torch.tensor(TILES[steps]).repeat(height // 2 + 1, width // 2 + 1)
    places = places[:height, :width]
    step, group = torch.arange(steps)[:, None], torch.arange(steps)[None, :]
    # Exclusive or: in every step the groups sit on different places, and over all
    # steps each group visits every place once.
    masks = places == (step ^ group)[:, :, None, None]
    return masks.repeat_interleave(channels // steps, dim=1).to(device)
