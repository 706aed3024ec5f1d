"""The Haar wavelet transform with unnormalised bands: plain signed sums."""

from collections.abc import Sequence

import torch
from torch import Tensor

FRAME_AXES = (-1, -2)
"""Of single frames: the band number counts height fastest, then width."""

PAIR_AXES = (-3, -2, -1)
"""Of pairs of frames: the band number counts width fastest, then height and time."""


def haar(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Split a signal into its bands, lowest first.

    Args:
        x: (B, C, T, H, W); even along each of ``axes``.
        axes: Negative numbers of the dimensions to halve; the first is the slowest in
            the number of a band.

    Returns:
        (B, 2^n C, ...): the bands one after the other, each a sum of 2^n samples with
        signs, so 2^(n / 2) times an orthonormal transform's.
    """
    for number, axis in enumerate(axes, start=1):
        first, second = x.unflatten(axis, (-1, 2)).unbind(axis)
        x = torch.stack((first + second, first - second), dim=number)
    return x.flatten(1, len(axes) + 1)


def inverse_haar(bands: Tensor, axes: Sequence[int]) -> Tensor:
    """Undo :func:`haar`.

    Args:
        bands: (B, 2^n C, T, H, W).
        axes: As there.

    Returns:
        (B, C, ...), twice as long along each of ``axes``.
    """
    x = bands.unflatten(1, (*[2] * len(axes), -1)) * 0.5 ** len(axes)
    for number, axis in reversed(list(enumerate(axes, start=1))):
        low, high = x.unbind(number)
        x = torch.stack((low + high, low - high), dim=axis).flatten(axis - 1, axis)
    return x
