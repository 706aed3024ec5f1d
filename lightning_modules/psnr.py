"""PSNR: one formula and one cap, for the log of training and for every metric."""

import math

from torch import Tensor

MAX_PSNR = 99.9
"""Decibels of a perfect frame, so that means stay finite (field's convention)."""


def psnr(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return each frame's PSNR in RGB, in dB, at most ``MAX_PSNR``.

    Args:
        x_hat: (..., 3, H, W), RGB in [0, 1].
        clip: Like ``x_hat``.
    """
    return decibels((x_hat.float() - clip.float()).square().mean(dim=(-3, -2, -1)))


def psnr_8_bit(x_hat: Tensor, clip: Tensor) -> float:
    """Return the RGB PSNR in dB of one picture as files of 8 bits hold both sides.

    Args:
        x_hat: (3, H, W), RGB in [0, 1]; what lies outside is clamped.
        clip: Like ``x_hat``.
    """
    a, b = (
        x.float().cpu().clamp(0, 1).mul(255).round().double() for x in (x_hat, clip)
    )
    error = (a - b).square().mean().item() / 255**2
    # Python's logarithm: torch's has another last digit, and result files hold this.
    return min(MAX_PSNR, -10 * math.log10(error)) if error else MAX_PSNR


def decibels(error: Tensor) -> Tensor:
    """Return ``-10 log10(error)``, at most ``MAX_PSNR``: PSNR of a peak of 1."""
    return (-10 * error.log10()).clamp(max=MAX_PSNR)
