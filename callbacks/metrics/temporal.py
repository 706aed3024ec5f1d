"""tOF and tLP: is the change from frame to frame the source's own?

A flicker costs little PSNR and is seen at once. Both metrics look at pairs of
neighbouring frames, so a clip of T frames has T - 1 values; lower is better. They are
averaged over all pairs of all clips, and not multiplied by 100 as TecoGAN prints tLP.

A value of tOF holds for one estimator of motion only: of one clip, OpenCV's DIS and
Farneback flows, or two presets of DIS, differ by factors.

Source: TecoGAN (arXiv 1811.09393), section 5, and its published evaluation script.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.yuv import rgb_to_yuv
from lightning_modules.perceptual import Lpips, UnavailableMetricError

Luma: TypeAlias = npt.NDArray[np.uint8]
Flow: TypeAlias = npt.NDArray[np.float32]

TOF_SIDE = 48
"""Smallest side of tOF: OpenCV's DIS reads outside frames that leave it no second
scale, and crashes; TecoGAN's crop leaves nothing of smaller ones."""


class FlowMethod(NamedTuple):
    """How motion is estimated, and where it is compared.

    Attributes:
        estimate: Flow in pixels (H, W, 2) from one 8-bit luma frame (H, W) to the
            next. OpenCV's estimators give the same whatever the number of threads.
        crop: What of the flow is compared.
    """

    estimate: Callable[[Luma, Luma], Flow]
    crop: Callable[[Flow], Flow]


def _dis(previous: Luma, frame: Luma) -> Flow:
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return estimator.calc(previous, frame, None)


def _farneback(previous: Luma, frame: Luma) -> Flow:
    return cv2.calcOpticalFlowFarneback(
        previous,
        frame,
        None,
        pyr_scale=0.5,
        levels=3,
        winsize=15,
        iterations=3,
        poly_n=5,
        poly_sigma=1.2,
        flags=0,
    )


def _centre(flow: Flow) -> Flow:
    """Cut sides to multiples of 32 that leave out at least 16 pixels."""
    sides = [(side, (side - 16) // 32 * 32) for side in flow.shape[:2]]
    rows, columns = (
        slice((side - kept) // 2, (side - kept) // 2 + kept) for side, kept in sides
    )
    return flow[rows, columns]


FLOW_METHODS = {
    "dis": FlowMethod(estimate=_dis, crop=lambda flow: flow),
    # Two departures from the script, which the metric's definition names; its grey,
    # BT.601's, reads 0.4 % higher on a 1080p JPEG pair.
    "teco": FlowMethod(estimate=_farneback, crop=_centre),
}
"""Estimators by name: ``dis`` is the default, ``teco`` TecoGAN's own."""


class TofStream:
    """tOF of one sequence, a frame at a time; holds the previous frames only.

    Args:
        method: Name in ``FLOW_METHODS``.
    """

    def __init__(self, method: Literal["dis", "teco"] = "dis") -> None:
        self._method = FLOW_METHODS[method]
        self._previous: tuple[Luma, Luma] | None = None

    def add(self, decoded: Luma, source: Luma) -> float | None:
        """Return the value of this frame and the one before, None for the first.

        Args:
            decoded: 8-bit luma (H, W).
            source: Like ``decoded``.

        Raises:
            UnavailableMetricError: A side is below 48 pixels.
        """
        height, width = source.shape
        if min(height, width) < TOF_SIDE:
            raise UnavailableMetricError(
                f"tof needs frames of at least {TOF_SIDE}x{TOF_SIDE} pixels, "
                f"these have {width}x{height}"
            )
        previous, self._previous = self._previous, (decoded, source)
        if previous is None:
            return None
        flows = map(self._method.estimate, previous, self._previous)
        ours, theirs = (self._method.crop(flow) for flow in flows)
        lengths = np.sqrt(np.square(ours - theirs).sum(axis=-1))
        return float(lengths.mean(dtype=np.float64))


def tof(x_hat: Tensor, clip: Tensor, method: Literal["dis", "teco"] = "dis") -> Tensor:
    """Return by how many pixels the reconstruction moves unlike the source.

    Args:
        x_hat: (B, T, 3, H, W), RGB in [0, 1]; its luma is rounded to 8 bits.
        clip: Like ``x_hat``.
        method: Name in ``FLOW_METHODS``; ``table.METRICS`` has the definitions.

    Returns:
        (B, T - 1), float64, one value per pair of frames; NaN where a frame is not
        finite.

    Raises:
        UnavailableMetricError: A side is below 48 pixels.
    """
    pairs = [_tof_of_clip(*both, method) for both in zip(x_hat, clip, strict=True)]
    values = torch.tensor(pairs, dtype=torch.float64, device=x_hat.device)
    finite = (x_hat + clip).isfinite().all(dim=-1).all(dim=-1).all(dim=-1)
    return values.masked_fill(~(finite[:, :-1] & finite[:, 1:]), torch.nan)


def tof_teco(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return :func:`tof` by TecoGAN's own estimator."""
    return tof(x_hat, clip, "teco")


def _tof_of_clip(
    x_hat: Tensor, clip: Tensor, method: Literal["dis", "teco"]
) -> list[float]:
    stream = TofStream(method)
    frames = zip(luma(x_hat), luma(clip), strict=True)
    values = [stream.add(decoded, source) for decoded, source in frames]
    return [value for value in values if value is not None]


def luma(frames: Tensor) -> Luma:
    """Return the 8-bit BT.709 full-range luma (..., H, W) of RGB (..., 3, H, W)."""
    y = rgb_to_yuv(frames.detach().float()).select(-3, 0)
    return y.nan_to_num().clamp(0, 1).mul(255).round().byte().cpu().numpy()


def tlp(x_hat: Tensor, clip: Tensor, lpips: Lpips) -> Tensor:
    """Return how much more or less the reconstruction changes than the source.

    ``|LPIPS(x_hat[t-1], x_hat[t]) - LPIPS(clip[t-1], clip[t])|``

    Args:
        x_hat: (B, T, 3, H, W), RGB in [0, 1].
        clip: Like ``x_hat``.
        lpips: The distance; name its backbone beside the figure.

    Returns:
        (B, T - 1), one value per pair of frames.

    Raises:
        UnavailableMetricError: A side is below 32 pixels.
    """
    changes = [lpips(x[:, :-1], x[:, 1:]) for x in (x_hat, clip)]
    return (changes[0] - changes[1]).abs()


class Tlp:
    """:func:`tlp` with its own network.

    Args:
        net: Backbone, as ``Lpips`` takes it.
    """

    def __init__(self, net: str) -> None:
        self.lpips = Lpips(net)

    def __call__(self, x_hat: Tensor, clip: Tensor) -> Tensor:
        """Return the values of clips."""
        return tlp(x_hat, clip, self.lpips)
