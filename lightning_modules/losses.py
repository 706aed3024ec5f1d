"""Losses of reconstructions by name, for every codec.

Each maps a clip (B, T, 3, H, W) and its reconstruction, RGB in [0, 1], to (B, T), so
that a step can weigh each frame by itself. A codec's ``distortion`` is one of them; the
``weights`` of a stage add others. A new one is a function and its row in :data:`TERMS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.yuv import rgb_to_yuv
from lightning_modules.perceptual import (
    Lpips,
    LpipsNet,
    UnavailableMetricError,
    check_lpips,
)

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity"."""
WINDOW, WINDOW_SIGMA = 11, 1.5
SMALLEST_CONTRAST = 1e-4
"""A power below 1 has no gradient at 0."""


def mse(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return the mean squared error over the three RGB planes."""
    return (clip - x_hat).square().mean(dim=(-3, -2, -1))


def mse_255(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return the mean squared error over the RGB planes on the scale from 0 to 255."""
    return mse(clip, x_hat) * 255.0**2


def sse(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return the sum of squared errors over the RGB planes; it grows with the size."""
    return (clip - x_hat).square().sum(dim=(-3, -2, -1))


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


def ms_ssim(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return 1 - MS-SSIM, the mean over the three RGB planes.

    Five scales, or as many as leave room for the window of 11 pixels, with the weights
    of the first ones scaled to a sum of 1.

    The metric ``callbacks.metrics.quality.ms_ssim`` is another function: it follows the
    DCVC family, which takes four scales with weights of their own below 176 pixels,
    none below 88, and repeats odd edges. Those rules would leave small crops without a
    loss. And the metric counts a negative similarity as 0, which has no gradient.

    Raises:
        ValueError: A side is below 11 pixels.
    """
    shape = clip.shape[:-2]
    side = min(clip.shape[-2:])
    if side < WINDOW:
        raise ValueError(f"ms_ssim needs sides of at least {WINDOW}, this has {side}")
    scales = min(len(MS_SSIM_WEIGHTS), (side // WINDOW).bit_length())
    # On the CPU, for exponents: a copy to the device would wait for all of its work.
    weights = torch.tensor(MS_SSIM_WEIGHTS[:scales])
    # A convolution would be of half precision under autocast.
    with torch.autocast(clip.device.type, enabled=False):
        x, y = (v.float().reshape(-1, 1, *v.shape[-2:]) for v in (clip, x_hat))
        similarity = x.new_ones(len(x))
        for number, weight in enumerate(weights / weights.sum(), start=1):
            luminance, contrast = _ssim(x, y)
            part = contrast if number < scales else luminance * contrast
            part = part.mean(dim=(-3, -2, -1)).clamp_min(SMALLEST_CONTRAST)
            similarity = similarity * part**weight
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return 1.0 - similarity.reshape(shape).mean(dim=-1)


def _ssim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luminance and the contrast-structure term of each window."""
    place = torch.arange(WINDOW, device=x.device, dtype=torch.float32) - WINDOW // 2
    window = torch.exp(-0.5 * (place / WINDOW_SIGMA).square())
    window = window / window.sum()

    def blur(z: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(z, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    mean_x, mean_y = blur(x), blur(y)
    product = mean_x * mean_y
    squares = mean_x.square() + mean_y.square()
    variances = blur(x.square() + y.square()) - squares
    covariance = blur(x * y) - product
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2.0 * product + c1) / (squares + c1)
    return luminance, (2.0 * covariance + c2) / (variances + c2)


def lpips(clip: Tensor, x_hat: Tensor, network: Lpips) -> Tensor:
    """Return LPIPS, the learned perceptual distance of ``network``."""
    return network(x_hat, clip)


@dataclass(frozen=True)
class Term:
    """A row of the table.

    Attributes:
        function: Maps a clip (B, T, 3, H, W) and its reconstruction, RGB in [0, 1], to
            (B, T); it gets what it ``needs`` after them.
        needs: The perceptual network without which it cannot be computed.
    """

    function: Callable[..., Tensor]
    needs: Literal["lpips"] | None = None


TERMS: dict[str, Term] = {
    "mse": Term(mse),
    "mse_255": Term(mse_255),
    "sse": Term(sse),
    "yuv": Term(yuv),
    "yuv_rgb": Term(yuv_rgb),
    "uf": Term(uf),
    "ms_ssim": Term(ms_ssim),
    "lpips": Term(lpips, needs="lpips"),
}


class Losses:
    """Computes rows of the table, and holds the networks that some need.

    It is no ``nn.Module``: a model that registered those networks would train and save
    them.

    Args:
        net: Backbone of LPIPS, or its stand-in ``random``.
    """

    def __init__(self, net: LpipsNet = "alex") -> None:
        self.net = net

    def lacks(self, name: str) -> str | None:
        """Return what a row needs that is not on this machine, or ``None``.

        Raises:
            ValueError: There is no such row.
        """
        if find_term(name).needs:
            try:
                check_lpips(self.net)
            except UnavailableMetricError as error:
                return f"{error}; for a rehearsal, --model.lpips random does without"
        return None

    def __call__(self, name: str, clip: Tensor, x_hat: Tensor) -> Tensor:
        """Return a row's loss of each frame, (B, T)."""
        term = find_term(name)
        return term.function(clip, x_hat, *([self.lpips] if term.needs else []))

    @cached_property
    def lpips(self) -> Lpips:
        """The perceptual distance, loaded when it is first needed."""
        return Lpips(self.net)


def find_term(name: str) -> Term:
    """Return the row called ``name``.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in TERMS:
        raise ValueError(f"distortion {name!r} is unknown: choose from {list(TERMS)}")
    return TERMS[name]
