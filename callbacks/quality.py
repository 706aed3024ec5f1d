"""Quality of a reconstruction, one value per frame: the functions behind every figure.

Each takes a reconstruction and its source, (..., 3, H, W) RGB in [0, 1], and returns
one value per frame, (...). The quality of a sequence is the arithmetic mean over its
frames, never the quality of the mean error.

They measure what they are given. Validation gives unrounded reconstructions, which
read up to 0.17 dB better at high rates than the 8-bit frames that a decoder writes
and that ``experiments.evaluate`` measures; do not mix the two in one table.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from datamodules.yuv import rgb_to_yuv

MAX_PSNR = 99.9
"""Decibels of a perfect frame, so that means stay finite (field's convention)."""

MS_SSIM_WEIGHTS = {
    # Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity".
    5: (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
    # The convention of the DCVC family for frames with a side below 176.
    4: (0.0517, 0.3295, 0.3462, 0.2726),
}
MS_SSIM_SIDE = 88
"""Smallest side of MS-SSIM: four scales leave its 11-tap window one position."""

LPIPS_SIDE = 32
"""Smallest side of LPIPS: below it the backbones run out of pixels."""

LPIPS_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
FRAMES_AT_ONCE = 8
"""Frames that MS-SSIM and LPIPS take together: bounds memory at 1080p."""


class UnavailableMetricError(ValueError):
    """A metric cannot be measured here; the message says what it lacks."""


def psnr(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return each frame's PSNR in RGB, in dB, at most ``MAX_PSNR``.

    Args:
        x_hat: (..., 3, H, W), RGB in [0, 1].
        clip: Like ``x_hat``.
    """
    return _decibels((x_hat.float() - clip.float()).square().mean(dim=(-3, -2, -1)))


def psnr_yuv(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return each frame's (6 Y + U + V) / 8 of the planes' PSNR, in dB.

    The planes are BT.709 full-range YUV 4:4:4; on 4:2:0 planes chroma reads higher.

    Args:
        x_hat: (..., 3, H, W), RGB in [0, 1].
        clip: Like ``x_hat``.
    """
    error = rgb_to_yuv(x_hat.float()) - rgb_to_yuv(clip.float())
    planes = _decibels(error.square().mean(dim=(-2, -1)))
    return (planes * planes.new_tensor([6.0, 1.0, 1.0])).sum(dim=-1) / 8


def _decibels(mse: Tensor) -> Tensor:
    return (-10 * mse.log10()).clamp(max=MAX_PSNR)


def ms_ssim(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return each frame's MS-SSIM, the mean of its three RGB planes' values.

    Five scales, or four where a side is below 176 pixels; Gaussian window of 11 taps
    and sigma 1.5; negative contrasts count as 0.

    Args:
        x_hat: (..., 3, H, W), RGB in [0, 1].
        clip: Like ``x_hat``.

    Raises:
        UnavailableMetricError: A side is below 88 pixels.
    """
    height, width = x_hat.shape[-2:]
    if min(height, width) < MS_SSIM_SIDE:
        raise UnavailableMetricError(
            f"ms_ssim needs frames of at least {MS_SSIM_SIDE}x{MS_SSIM_SIDE} pixels, "
            f"these have {width}x{height}"
        )
    weights = MS_SSIM_WEIGHTS[4 if min(height, width) < 176 else 5]

    def planes(x: Tensor, y: Tensor) -> Tensor:
        # A plane is an image of one channel: scales multiply before planes average.
        x, y = (v.float().reshape(-1, 1, height, width) for v in (x, y))
        score = x.new_ones(len(x))
        for scale, weight in enumerate(weights, start=1):
            both = structural_similarity_index_measure(
                x, y, data_range=1.0, reduction=None, return_contrast_sensitivity=True
            )
            similarity = both[0] if scale == len(weights) else both[1]
            score = score * similarity.reshape(-1).relu() ** weight
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return score.reshape(-1, 3).mean(dim=-1)

    return _over_frames(planes, x_hat, clip)


class Lpips:
    """Learned perceptual distance of frames; owns its network outside any module.

    The network is frozen, in evaluation mode, and belongs to no ``nn.Module``: a
    model that owned it would train its heads and save its backbone.

    Args:
        net: Backbone: ``alex``, ``vgg`` or ``squeeze``; name it beside the figure.

    Raises:
        UnavailableMetricError: The backbone's weights are not on this machine. They
            are never downloaded.

    Source: arXiv 1801.03924, version 0.1 of the linear heads.
    """

    def __init__(self, net: str = "alex") -> None:
        file = lpips_file(net)
        if not file.is_file():
            raise UnavailableMetricError(
                f"lpips needs the backbone weights {file.name}, put them at {file} "
                "(or set TORCH_HOME to the folder that holds hub/checkpoints)"
            )
        import lpips

        with warnings.catch_warnings():
            # lpips 0.1.4 speaks torchvision's old dialect.
            warnings.simplefilter("ignore")
            network: nn.Module = lpips.LPIPS(net=net, verbose=False)
        self.network = network.eval().requires_grad_(False)

    def __call__(self, x_hat: Tensor, clip: Tensor) -> Tensor:
        """Return each frame's distance, 0 for equal frames.

        Args:
            x_hat: (..., 3, H, W), RGB in [0, 1].
            clip: Like ``x_hat``.

        Raises:
            UnavailableMetricError: A side is below 32 pixels.
        """
        height, width = x_hat.shape[-2:]
        if min(height, width) < LPIPS_SIDE:
            raise UnavailableMetricError(
                f"lpips needs frames of at least {LPIPS_SIDE}x{LPIPS_SIDE} pixels, "
                f"these have {width}x{height}"
            )
        self.network.to(x_hat.device)

        def distance(x: Tensor, y: Tensor) -> Tensor:
            result: Tensor = self.network(x.float() * 2 - 1, y.float() * 2 - 1)
            return result.flatten()

        return _over_frames(distance, x_hat, clip)


def lpips_file(net: str) -> Path:
    """Return where the backbone's weights must lie; the same file for every library.

    Raises:
        ValueError: ``net`` is no backbone of LPIPS.
    """
    if net not in LPIPS_FILES:
        raise ValueError(f"lpips has no backbone {net!r}, choose {list(LPIPS_FILES)}")
    return Path(torch.hub.get_dir(), "checkpoints", LPIPS_FILES[net]).absolute()


def _over_frames(
    function: Callable[[Tensor, Tensor], Tensor], x_hat: Tensor, clip: Tensor
) -> Tensor:
    """Apply a function of (N, 3, H, W) to (..., 3, H, W), a few frames at a time."""
    x_frames, y_frames = (v.reshape(-1, *v.shape[-3:]) for v in (x_hat, clip))
    values = [
        function(x_frames[i : i + FRAMES_AT_ONCE], y_frames[i : i + FRAMES_AT_ONCE])
        for i in range(0, len(x_frames), FRAMES_AT_ONCE)
    ]
    return torch.cat(values).reshape(x_hat.shape[:-3])
