"""What the codecs' starts as cosine transforms have in common.

Each codec's own ``cosines.py`` says which layers hold which frequencies.
"""

from math import cos, pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

OPPONENTS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
"""Directions of RGB that hardly correlate in photographs, not yet of length 1."""


def cosines(length: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II), one frequency a row."""
    table = [
        [
            sqrt((1 if k == 0 else 2) / length) * cos(pi * k * (2 * i + 1) / 2 / length)
            for i in range(length)
        ]
        for k in range(length)
    ]
    return torch.tensor(table)


def correlations(length: int, rho: float) -> Tensor:
    """Return how pixels of a row correlate in a Markov chain, (length, length).

    Args:
        length: Of the row.
        rho: Correlation of neighbours.
    """
    places = torch.arange(length)
    powers: Tensor = rho ** (places[:, None] - places).abs()
    return powers


def opponents() -> Tensor:
    """Return the directions of RGB, orthonormal, one a row."""
    return F.normalize(torch.tensor(OPPONENTS), dim=1)


def quarters(planes: int, side: int) -> Tensor:
    """Return which sample of a block each one of its four quarters' samples is.

    Quarters row by row; within them, and in the block, samples plane by plane.

    Args:
        planes: Of the block: its colours, for each of its frames.
        side: Of the block, in pixels.
    """
    size, half = planes * side**2, side // 2
    block = torch.arange(size).reshape(planes, 2, half, 2, half)
    order = block.permute(1, 3, 0, 2, 4).reshape(-1)
    return torch.eye(size)[order]


def silence(layer: Any) -> None:
    """Let a layer begin as nothing, whatever it is given."""
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
