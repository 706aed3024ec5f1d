"""Quality of a reconstruction, one value per frame: the functions behind every figure.

Each takes a reconstruction and its source, (..., 3, H, W) RGB in [0, 1], and returns
one value per frame, (...). The quality of a sequence is the arithmetic mean over its
frames, never the quality of the mean error.

They measure what they are given. Validation gives unrounded reconstructions, which
read up to 0.17 dB better at high rates than the 8-bit frames that a decoder writes
and that ``experiments.evaluate`` measures; do not mix the two in one table.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.yuv import rgb_to_yuv
from lightning_modules.perceptual import check_side, in_groups
from lightning_modules.psnr import decibels

MS_SSIM_WEIGHTS = {
    # Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity".
    5: (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
    # The convention of the DCVC family for frames with a side below 176.
    4: (0.0517, 0.3295, 0.3462, 0.2726),
}
MS_SSIM_SIDE = 88
"""Smallest side of MS-SSIM: four scales leave its 11-tap window one position."""

SSIM_TAPS = 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def psnr_yuv(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return each frame's (6 Y + U + V) / 8 of the planes' PSNR, in dB.

    The planes are BT.709 full-range YUV 4:4:4; on 4:2:0 planes chroma reads higher.

    Args:
        x_hat: (..., 3, H, W), RGB in [0, 1].
        clip: Like ``x_hat``.
    """
    error = rgb_to_yuv(x_hat.float()) - rgb_to_yuv(clip.float())
    y, u, v = decibels(error.square().mean(dim=(-2, -1))).unbind(-1)
    return six_one_one(y, u, v)


def six_one_one(y: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return the field's mean of what was measured on the planes of YUV."""
    return (6 * y + u + v) / 8


def ms_ssim(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return each frame's MS-SSIM, the mean of its three RGB planes' values.

    Args:
        x_hat: (..., 3, H, W), RGB in [0, 1].
        clip: Like ``x_hat``.

    Raises:
        UnavailableMetricError: A side is below 88 pixels.
    """
    return ms_ssim_planes(x_hat, clip).mean(dim=-1)


def ms_ssim_planes(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return each plane's MS-SSIM.

    Five scales, or four where a side is below 176 pixels; Gaussian window of 11 taps
    and sigma 1.5, only where it lies inside the plane; halved by 2 x 2 means, an odd
    edge counting twice; a negative mean counts as 0. This is what the DCVC family
    computes. On one JPEG-coded 1080p frame pytorch_msssim, which pads odd sizes with
    black, reads 0.0004 higher, and torchmetrics, whose window leaves the plane at
    the last scale, 0.0002 lower.

    The loss ``losses.ms_ssim`` is another function. Crops of training are small and
    need gradients, so it takes as few scales as fit, drops odd edges, and never
    multiplies by 0. Where every scale of five has even sides, both agree to 1e-5.

    Args:
        x_hat: (..., H, W), in [0, 1].
        clip: Like ``x_hat``.

    Returns:
        (...), float64, so that what is missing to 1 keeps its digits.

    Raises:
        UnavailableMetricError: A side is below 88 pixels.

    Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity".
    """
    check_side("ms_ssim needs", x_hat.shape[-2:], MS_SSIM_SIDE)
    weights = MS_SSIM_WEIGHTS[4 if min(x_hat.shape[-2:]) < 176 else 5]

    def of_planes(x: Tensor, y: Tensor) -> Tensor:
        x, y = x.float(), y.float()
        score = torch.ones(len(x), dtype=torch.float64, device=x.device)
        for scale, weight in enumerate(weights, start=1):
            last = scale == len(weights)
            score = score * _similarity(x, y, luminance=last).relu() ** weight
            x, y = (F.avg_pool2d(v, 2, ceil_mode=True) for v in (x, y))
        return score

    return in_groups(of_planes, x_hat.unsqueeze(-3), clip.unsqueeze(-3))


def _similarity(x: Tensor, y: Tensor, *, luminance: bool) -> Tensor:
    """Return the mean contrast term of planes (N, 1, H, W), or their mean SSIM.

    What is averaged is the terms' distance to 1, from the variance of ``x - y``. The
    textbook's form subtracts nearly equal numbers where planes are alike.
    """
    error = x - y
    mean, mean_error = _blur(x), _blur(error)
    mean_power = mean.square() + (mean - mean_error).square()
    bias = mean_error.square()
    variance = _blur(x.square() + y.square()) - mean_power
    missing = (_blur(error.square()) - bias) / (variance + SSIM_C2)
    if luminance:
        darker = bias / (mean_power + SSIM_C1)
        missing = missing + darker - missing * darker
    return 1 - missing.mean(dim=(-3, -2, -1), dtype=torch.float64)


def _blur(x: Tensor) -> Tensor:
    """Weigh (..., H, W) by SSIM's window at its (..., H - 10, W - 10) positions.

    Sums of shifted planes: on a CPU faster than a convolution of one channel, and on
    a GPU never rounded to TF32.
    """
    centre = SSIM_TAPS // 2
    taps = [
        math.exp(-((k - centre) ** 2) / (2 * SSIM_SIGMA**2)) for k in range(SSIM_TAPS)
    ]
    for dim in (-2, -1):
        size = x.shape[dim] - SSIM_TAPS + 1
        total = x.narrow(dim, centre, size) * (taps[centre] / sum(taps))
        for k in range(centre):
            for start in (k, SSIM_TAPS - 1 - k):
                total.add_(x.narrow(dim, start, size), alpha=taps[k] / sum(taps))
        x = total
    return x
