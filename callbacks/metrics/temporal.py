"""tOF and tLP: is the change from frame to frame the source's own?

A flicker costs little PSNR and is seen at once. Both metrics look at pairs of
neighbouring frames, so a clip of T frames has T - 1 values; lower is better. They are
averaged over all pairs of all clips, and not multiplied by 100 as TecoGAN prints tLP.

A value of tOF holds for one estimator of motion only: of one clip, OpenCV's DIS and
Farneback flows, or two presets of DIS, differ by factors.

Source: TecoGAN (arXiv 1811.09393), section 5, and its published evaluation script.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.yuv import rgb_to_yuv
from lightning_modules.perceptual import Lpips, check_side

Luma: TypeAlias = npt.NDArray[np.uint8]
Flow: TypeAlias = npt.NDArray[np.float32]

TOF_SIDE = 48
"""Smallest side of tOF: OpenCV's DIS reads outside frames that leave it no second
scale, and crashes; TecoGAN's crop leaves nothing of smaller ones."""


def dis_flow(previous: Luma, frame: Luma) -> Flow:
    """Estimate the motion of all pixels (H, W, 2) by OpenCV's DIS."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return estimator.calc(previous, frame, None)


def teco_flow(previous: Luma, frame: Luma) -> Flow:
    """Estimate motion by Farneback's method, as TecoGAN's script does.

    Two departures from it are named in the metric's definition; its grey, BT.601's,
    reads 0.4 % higher on a 1080p JPEG pair.

    Returns:
        (h, w, 2): of the centre, sides cut to multiples of 32 that leave out at least
        16 pixels.
    """
    flow = cv2.calcOpticalFlowFarneback(
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
    kept = [(side - 16) // 32 * 32 for side in flow.shape[:2]]
    top, left = ((side - k) // 2 for side, k in zip(flow.shape, kept, strict=False))
    return flow[top : top + kept[0], left : left + kept[1]]


FLOWS = {"dis": dis_flow, "teco": teco_flow}
"""Flow in pixels from one 8-bit luma frame (H, W) to the next, by how it is estimated:
``dis`` is the default, ``teco`` TecoGAN's own. OpenCV gives the same whatever the
number of threads."""


class OfChange(ABC):
    """Compares how a reconstruction and its source change, each seen by itself.

    What was found of the source serves all its reconstructions.
    """

    @abstractmethod
    def of_clip(self, clip: Tensor) -> Any:
        """Return how a clip (B, T, 3, H, W), RGB in [0, 1], changes.

        Raises:
            UnavailableMetricError: Its frames are too small.
        """

    @abstractmethod
    def compare(self, decoded: Any, source: Any) -> Tensor:
        """Return one value per pair of frames, (B, T - 1), of what was found of both.

        Args:
            decoded: As :meth:`of_clip` gives it.
            source: Likewise.
        """

    def __call__(self, x_hat: Tensor, clip: Tensor) -> Tensor:
        """Return one value per pair of frames, (B, T - 1).

        Args:
            x_hat: (B, T, 3, H, W), RGB in [0, 1].
            clip: Like ``x_hat``.

        Raises:
            UnavailableMetricError: The frames are too small.
        """
        return self.compare(self.of_clip(x_hat), self.of_clip(clip))


class FlowOf:
    """The motion from each frame of a sequence to the next, frame by frame.

    Args:
        method: Name in ``FLOWS``.
    """

    def __init__(self, method: Literal["dis", "teco"] = "dis") -> None:
        self._flow = FLOWS[method]
        self._previous: Luma | None = None

    def add(self, frame: Luma) -> Flow | None:
        """Return the motion from the frame before to this one, None for the first.

        Args:
            frame: 8-bit luma (H, W).

        Raises:
            UnavailableMetricError: A side is below 48 pixels.
        """
        check_side("tof needs", frame.shape, TOF_SIDE)
        previous, self._previous = self._previous, frame
        return None if previous is None else self._flow(previous, frame)


def flow_distance(decoded: Flow, source: Flow) -> float:
    """Return the mean length of the difference of two flows, in pixels."""
    lengths = np.sqrt(np.square(decoded - source).sum(axis=-1))
    return float(lengths.mean(dtype=np.float64))


class TofStream:
    """tOF of one sequence, a frame at a time; holds the previous frames only.

    Args:
        method: Name in ``FLOWS``.
    """

    def __init__(self, method: Literal["dis", "teco"] = "dis") -> None:
        self._decoded, self._source = FlowOf(method), FlowOf(method)

    def add(self, decoded: Luma, source: Luma) -> float | None:
        """Return the value of this frame and the one before, None for the first.

        Args:
            decoded: 8-bit luma (H, W).
            source: Like ``decoded``.

        Raises:
            UnavailableMetricError: A side is below 48 pixels.
        """
        ours, theirs = self._decoded.add(decoded), self._source.add(source)
        if ours is None or theirs is None:
            return None
        return flow_distance(ours, theirs)


class Motion(NamedTuple):
    """How a clip moves.

    Attributes:
        flows: From each frame to the next, by sequence of the batch.
        finite: Whether both frames of a pair hold numbers only, bool (B, T - 1).
    """

    flows: list[list[Flow]]
    finite: Tensor


class Tof(OfChange):
    """By how many pixels the reconstruction moves unlike the source.

    Luma is rounded to 8 bits. Values are float64, NaN where a frame is not finite;
    ``table.METRICS`` has the definitions.

    Args:
        method: Name in ``FLOWS``.
    """

    def __init__(self, method: Literal["dis", "teco"] = "dis") -> None:
        self.method = method

    def of_clip(self, clip: Tensor) -> Motion:
        """Return how a clip moves; see :meth:`OfChange.of_clip`."""
        flows = []
        for frames in clip:
            found = list(map(FlowOf(self.method).add, luma(frames)))
            flows.append([flow for flow in found if flow is not None])
        finite = clip.isfinite().flatten(2).all(dim=-1)
        return Motion(flows, finite[:, :-1] & finite[:, 1:])

    def compare(self, decoded: Motion, source: Motion) -> Tensor:
        """Return one value per pair of frames; see :meth:`OfChange.compare`."""
        both = zip(decoded.flows, source.flows, strict=True)
        values = [list(map(flow_distance, *pair)) for pair in both]
        finite = decoded.finite & source.finite
        found = torch.tensor(values, dtype=torch.float64, device=finite.device)
        return found.masked_fill(~finite, torch.nan)


tof = Tof()
"""tOF as the table has it."""

tof_teco = Tof("teco")
"""tOF by TecoGAN's own estimator."""


def luma(frames: Tensor) -> Luma:
    """Return the 8-bit BT.709 full-range luma (..., H, W) of RGB (..., 3, H, W)."""
    y = rgb_to_yuv(frames.detach().float()).select(-3, 0)
    return y.nan_to_num().clamp(0, 1).mul(255).round().byte().cpu().numpy()


class Tlp(OfChange):
    """How much more or less the reconstruction changes than the source.

    ``|LPIPS(x_hat[t-1], x_hat[t]) - LPIPS(clip[t-1], clip[t])|``

    Args:
        net: Backbone, as ``Lpips`` takes it; name it beside the figure.
    """

    def __init__(self, net: str) -> None:
        self.lpips = Lpips(net)

    def of_clip(self, clip: Tensor) -> Tensor:
        """Return the LPIPS from each frame to the next; see :class:`OfChange`."""
        return self.lpips(clip[:, :-1], clip[:, 1:])

    def compare(self, decoded: Tensor, source: Tensor) -> Tensor:
        """Return one value per pair of frames; see :meth:`OfChange.compare`."""
        return (decoded - source).abs()
