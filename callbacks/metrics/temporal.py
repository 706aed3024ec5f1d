"""tOF and tLP: is the change from frame to frame the source's own?

A flicker costs little PSNR and is seen at once. Both metrics look at pairs of
neighbouring frames, so a clip of T frames has T - 1 values; lower is better. They are
averaged over all pairs of all clips, and not multiplied by 100 as TecoGAN prints tLP.

A value of tOF holds for one estimator of motion only: of one clip, OpenCV's DIS and
Farneback flows, or two presets of DIS, differ by factors. It holds for one norm only
too: TecoGAN's script takes the length of the flows' difference (L2), "Perceptual Neural
Video Compression with Video Variational Autoencoder at Low Bitrates" the sum of its
components (L1), which is 1 to 1.41 times as much, on real clips about 1.2 times.

Source: TecoGAN (arXiv 1811.09393), section 5, and its published evaluation script.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

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


class Tof(NamedTuple):
    """What a kind of tOF consists of.

    Attributes:
        flow: Name in ``FLOWS``.
        length: Of the vectors (..., 2) by which two flows differ.
    """

    flow: str
    length: Callable[[Flow], Flow]


TOFS = {
    "tof": Tof("dis", length_l2),
    "tof_l1": Tof("dis", length_l1),
    "tof_teco": Tof("teco", length_l2),
}
"""Every kind of tOF by its name in ``table.METRICS``, which has the definitions."""


class TofStream:
    """tOF of one sequence, a frame at a time; holds the previous frames only.

    Kinds of one flow share it: estimating motion is what takes long.

    Args:
        names: Of ``TOFS``.
    """

    def __init__(self, *names: str) -> None:
        self._tofs = {name: TOFS[name] for name in names}
        self._previous: tuple[Luma, Luma] | None = None

    def add(self, decoded: Luma, source: Luma) -> dict[str, float]:
        """Return the values of this frame and the one before, none for the first.

        Args:
            decoded: 8-bit luma (H, W).
            source: Like ``decoded``.

        Raises:
            UnavailableMetricError: A side is below 48 pixels.
        """
        check_side("tof needs", source.shape, TOF_SIDE)
        previous, self._previous = self._previous, (decoded, source)
        if previous is None:
            return {}
        differences: dict[str, Flow] = {}
        for method in dict.fromkeys(tof.flow for tof in self._tofs.values()):
            ours, theirs = map(FLOWS[method], previous, self._previous)
            differences[method] = ours - theirs
        return {
            name: float(tof.length(differences[tof.flow]).mean(dtype=np.float64))
            for name, tof in self._tofs.items()
        }


def tof(x_hat: Tensor, clip: Tensor, name: str = "tof") -> Tensor:
    """Return by how many pixels the reconstruction moves unlike the source.

    Args:
        x_hat: (B, T, 3, H, W), RGB in [0, 1]; its luma is rounded to 8 bits.
        clip: Like ``x_hat``.
        name: Of ``TOFS``.

    Returns:
        (B, T - 1), float64, one value per pair of frames; NaN where a frame is not
        finite.

    Raises:
        UnavailableMetricError: A side is below 48 pixels.
    """
    pairs = []
    for both in zip(x_hat, clip, strict=True):
        # Before the first frame there is none to move from.
        own = list(map(TofStream(name).add, *map(luma, both)))[1:]
        pairs.append([values[name] for values in own])
    values = torch.tensor(pairs, dtype=torch.float64, device=x_hat.device)
    finite = (x_hat + clip).isfinite().all(dim=-1).all(dim=-1).all(dim=-1)
    return values.masked_fill(~(finite[:, :-1] & finite[:, 1:]), torch.nan)


def tof_l1(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return :func:`tof` in the L1 norm."""
    return tof(x_hat, clip, "tof_l1")


def tof_teco(x_hat: Tensor, clip: Tensor) -> Tensor:
    """Return :func:`tof` by TecoGAN's own estimator."""
    return tof(x_hat, clip, "tof_teco")


def luma(frames: Tensor) -> Luma:
    """Return the 8-bit BT.709 full-range luma (..., H, W) of RGB (..., 3, H, W)."""
    y = rgb_to_yuv(frames.detach().float()).select(-3, 0)
    return y.nan_to_num().clamp(0, 1).mul(255).round().byte().cpu().numpy()


class Tlp:
    """How much more or less the reconstruction changes than the source.

    ``|LPIPS(x_hat[t-1], x_hat[t]) - LPIPS(clip[t-1], clip[t])|``

    Args:
        net: Backbone, as ``Lpips`` takes it; name it beside the figure.
    """

    def __init__(self, net: str) -> None:
        self.lpips = Lpips(net)

    def __call__(self, x_hat: Tensor, clip: Tensor) -> Tensor:
        """Return one value per pair of frames, (B, T - 1).

        Args:
            x_hat: (B, T, 3, H, W), RGB in [0, 1].
            clip: Like ``x_hat``.

        Raises:
            UnavailableMetricError: A side is below 32 pixels.
        """
        changes = [self.lpips(x[:, :-1], x[:, 1:]) for x in (x_hat, clip)]
        return (changes[0] - changes[1]).abs()
