"""Distortions, per frame, so that a step can weigh each frame by itself.

Every function maps a clip (B, T, 3, H, W) and its reconstruction, RGB in [0, 1], to
(B, T). A loss ablation is a name here and a number in a stage's ``weights``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.yuv import rgb_to_yuv

Distortion = Callable[[Tensor, Tensor], Tensor]


def mse(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return the mean squared error over the three RGB planes."""
    return (clip - x_hat).square().mean(dim=(-3, -2, -1))


def _plane_errors(clip: Tensor, x_hat: Tensor) -> tuple[Tensor, ...]:
    error = rgb_to_yuv(clip) - rgb_to_yuv(x_hat)
    return error.square().mean(dim=(-2, -1)).unbind(dim=-1)


def yuv(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return ``3 (6 Y + U + V) / 8`` of the plane errors in BT.709 YUV 4:4:4.

    6:1:1 is the test metric's weighting. The factor 3 keeps lambda on the scale of
    the published range 1 to 768, which belongs to a sum over three planes.
    """
    y, u, v = _plane_errors(clip, x_hat)
    return 3.0 * (6.0 * y + u + v) / 8.0


def yuv_rgb(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return 0.8 of :func:`yuv` and 0.2 of the sum of the RGB plane errors.

    Source: DCVC-FM (arXiv 2402.17414), its mix of colour spaces.
    """
    return 0.8 * yuv(clip, x_hat) + 0.2 * 3.0 * mse(clip, x_hat)


def uf(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return DCVC-UF's distortion: a geometric mean of planes, mixed with RGB.

    ``0.8 * 3 exp((10 ln Y + ln U + ln V) / 12) + 0.2 (R + G + B)``; planes below 1e-6
    count as 1e-6.
    """
    y, u, v = (plane.clamp_min(1e-6).log() for plane in _plane_errors(clip, x_hat))
    planes = 3.0 * torch.exp((10.0 * y + u + v) / 12.0)
    return 0.8 * planes + 0.2 * 3.0 * mse(clip, x_hat)


DISTORTIONS: dict[str, Distortion] = {
    "mse": mse,
    "yuv": yuv,
    "yuv_rgb": yuv_rgb,
    "uf": uf,
}


def distortion(name: str) -> Distortion:
    """Return the distortion called ``name``.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in DISTORTIONS:
        raise ValueError(
            f"distortion {name!r} is unknown: choose from {list(DISTORTIONS)}"
        )
    return DISTORTIONS[name]
