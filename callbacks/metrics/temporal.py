"""tOF and tLP: is the change from frame to frame the source's own?

A flicker costs little PSNR and is seen at once. Both metrics look at pairs of
neighbouring frames, so a clip of T frames has T - 1 values; lower is better. They are
averaged over all pairs of all clips, and not multiplied by 100 as TecoGAN prints tLP.

A value of tOF holds for one estimator of motion only: of one clip, OpenCV's DIS and
Farneback flows, or two presets of DIS, differ by factors. It holds for one norm only
too: TecoGAN's script takes the length of the flows' difference (L2). "Perceptual Neural
Video Compression with Video Variational Autoencoder at Low Bitrates" takes the sum of
its components (L1): 1 to 1.41 times as much, on real clips about 1.2 times.

Source: TecoGAN (arXiv 1811.09393), section 5, and its published evaluation script.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

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


def length_l1(vectors: Flow) -> Flow:
    """Return |u| + |v| of vectors (..., 2)."""
    return np.abs(vectors).sum(axis=-1)


def length_l2(vectors: Flow) -> Flow:
    """Return the Euclidean length of vectors (..., 2)."""
    return np.sqrt(np.square(vectors).sum(axis=-1))


class TofKind(NamedTuple):
    """What a kind of tOF consists of.

    Attributes:
        flow: Name in ``FLOWS``.
        length: Of the vectors (..., 2) by which two flows differ.
    """

    flow: str
    length: Callable[[Flow], Flow]


TOFS = {
    "tof": TofKind("dis", length_l2),
    "tof_l1": TofKind("dis", length_l1),
    "tof_teco": TofKind("teco", length_l2),
}
"""Every kind of tOF by its name in ``table.METRICS``, which has the definitions."""


class OfChange(ABC):
    """Compares how a reconstruction and its source change, each seen by itself.

    What was found of a source serves all its reconstructions.

    Attributes:
        looks_at: What :meth:`of_clip` finds; metrics of one name find the same.
    """

    looks_at: str

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


Flows: TypeAlias = dict[str, Flow]
"""Motion by the method that estimated it."""


class FlowOf:
    """The motion from each frame of a sequence to the next, frame by frame.

    Args:
        methods: Names in ``FLOWS``.
    """

    def __init__(self, *methods: str) -> None:
        self._methods = methods
        self._previous: Luma | None = None

    def add(
        self,
        frame: Luma,
        find: Callable[[Callable[[], Flows]], Flows] = lambda estimate: estimate(),
    ) -> Flows:
        """Return the motion from the frame before to this one, none for the first.

        Args:
            frame: 8-bit luma (H, W).
            find: Returns what its argument estimates, which it may know already.

        Raises:
            UnavailableMetricError: A side is below 48 pixels.
        """
        check_side("tof needs", frame.shape, TOF_SIDE)
        previous, self._previous = self._previous, frame
        if previous is None:
            return {}
        return find(lambda: {m: FLOWS[m](previous, frame) for m in self._methods})


class TofStream:
    """tOF of one sequence, a frame at a time; holds the previous frames only.

    Kinds of one flow share it: estimating motion is what takes long.

    Args:
        names: Of ``TOFS``.

    Attributes:
        methods: Names in ``FLOWS``.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self.methods = tuple(dict.fromkeys(TOFS[name].flow for name in names))
        self._decoded, self._source = FlowOf(*self.methods), FlowOf(*self.methods)

    def add(
        self,
        decoded: Luma,
        source: Luma,
        find: Callable[[Callable[[], Flows]], Flows] = lambda estimate: estimate(),
    ) -> dict[str, float]:
        """Return the values of this frame and the one before, none for the first.

        Args:
            decoded: 8-bit luma (H, W).
            source: Like ``decoded``.
            find: Returns the source's motion, which its argument estimates.

        Raises:
            UnavailableMetricError: A side is below 48 pixels.
        """
        ours, theirs = self._decoded.add(decoded), self._source.add(source, find)
        if not ours:
            return {}
        return {name: _mean_length(name, ours, theirs) for name in self._names}


def _mean_length(name: str, ours: Flows, theirs: Flows) -> float:
    kind = TOFS[name]
    lengths = kind.length(ours[kind.flow] - theirs[kind.flow])
    return float(lengths.mean(dtype=np.float64))


class Motion(NamedTuple):
    """How a clip moves.

    Attributes:
        flows: From each frame to the next, by method; of each sequence of the batch.
        finite: Whether both frames of a pair hold numbers only, bool (B, T - 1).
    """

    flows: list[list[Flows]]
    finite: Tensor


class Tof(OfChange):
    """By how many pixels the reconstruction moves unlike the source.

    Luma is rounded to 8 bits. Values are float64, NaN where a frame is not finite.

    Args:
        name: Of ``TOFS``; ``table.METRICS`` has the definitions.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.looks_at = f"flow {TOFS[name].flow}"

    def of_clip(self, clip: Tensor) -> Motion:
        """Return how a clip moves; see :meth:`OfChange.of_clip`."""
        flows = []
        for frames in clip:
            # Before the first frame there is none to move from.
            flow = FlowOf(TOFS[self.name].flow)
            flows.append(list(map(flow.add, luma(frames)))[1:])
        finite = clip.isfinite().flatten(2).all(dim=-1)
        return Motion(flows, finite[:, :-1] & finite[:, 1:])

    def compare(self, decoded: Motion, source: Motion) -> Tensor:
        """Return one value per pair of frames; see :meth:`OfChange.compare`."""
        values = [
            [_mean_length(self.name, *pair) for pair in zip(*both, strict=True)]
            for both in zip(decoded.flows, source.flows, strict=True)
        ]
        finite = decoded.finite & source.finite
        found = torch.tensor(values, dtype=torch.float64, device=finite.device)
        return found.masked_fill(~finite, torch.nan)


tof, tof_l1, tof_teco = map(Tof, TOFS)
"""Each kind as the table has it."""


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
        self.looks_at = f"lpips {net}"

    def of_clip(self, clip: Tensor) -> Tensor:
        """Return the LPIPS from each frame to the next; see :class:`OfChange`."""
        return self.lpips(clip[:, :-1], clip[:, 1:])

    def compare(self, decoded: Tensor, source: Tensor) -> Tensor:
        """Return one value per pair of frames; see :meth:`OfChange.compare`."""
        return (decoded - source).abs()
