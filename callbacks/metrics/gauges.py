"""How ``evaluate`` measures a coded sequence, a frame at a time.

A gauge measures one or several metrics of the table. :class:`PerFrame` serves any row
that has a function; the others know the planes, or share work between metrics.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from callbacks.metrics.quality import ms_ssim_planes, six_one_one
from callbacks.metrics.source_memory import NOTHING_KEPT, SourceMemory
from callbacks.metrics.table import METRICS
from callbacks.metrics.temporal import TofStream
from datamodules.yuv import Planes
from lightning_modules.perceptual import Lpips, UnavailableMetricError
from lightning_modules.psnr import decibels

T = TypeVar("T")


class Frame(NamedTuple):
    """One frame in both colours, in 8-bit codes: 0 to 255, whole where rounded.

    Attributes:
        yuv: Y, U and V; 4:2:0 if that is what the codec takes, or else 4:4:4.
        rgb: (3, H, W).
    """

    yuv: Planes
    rgb: Tensor


class FramePair(NamedTuple):
    """A frame as it was decoded and as it was.

    Attributes:
        decoded: Rounded to 8 bits in the codec's colour and in RGB, as a decoder
            writes it.
        source: Likewise.
        unrounded: Both before rounding.
        number: Of the frame, from 0.
        memory: Of the source.
    """

    decoded: Frame
    source: Frame
    unrounded: tuple[Frame, Frame]
    number: int = 0
    memory: SourceMemory = NOTHING_KEPT

    def of_source(self, name: str, find: Callable[[], T]) -> T:
        """Return what is found of the source's frame alone, kept from another rate.

        Args:
            name: Another one for each way to find it.
            find: Finds it.
        """
        return self.memory.find(self.number, name, find)


class Gauge(ABC):
    """Measures some metrics of one sequence.

    Args:
        names: Keys of ``METRICS``, of one backbone.
        device: Where networks and MS-SSIM are computed.
    """

    def __init__(self, names: Sequence[str], device: str | torch.device) -> None:
        self.names = tuple(names)
        self.device = device

    @abstractmethod
    def add(self, pair: FramePair) -> dict[str, float]:
        """Return the values of the next frame by name; pairs have none at the first.

        Raises:
            UnavailableMetricError: These frames have none.
        """

    def close(self) -> dict[str, list[float]]:
        """Return the values that are known only after the last frame."""
        return {}


class PerFrame(Gauge):
    """Calls a row's function with each frame, or each pair of neighbours, in RGB."""

    def __init__(self, names: Sequence[str], device: str | torch.device) -> None:
        super().__init__(names, device)
        (self._name,) = names
        metric = METRICS[self._name]
        self._function = metric.load()
        self._window: deque[list[Tensor]] = deque(maxlen=2 if metric.pairs else 1)
        self._frames = 0

    def add(self, pair: FramePair) -> dict[str, float]:
        """Measure the frame, or it and the one before."""
        number, self._frames = self._frames, self._frames + 1
        both = (pair.decoded, pair.source)
        self._window.append([frame.rgb.to(self.device) / 255 for frame in both])
        if len(self._window) < (self._window.maxlen or 0):
            return {}
        x_hat, clip = (
            torch.stack(frames).unsqueeze(0)
            for frames in zip(*self._window, strict=True)
        )
        try:
            value = float(self._function(x_hat, clip))
        except UnavailableMetricError as error:
            raise UnavailableMetricError(f"frame {number}: {error}") from error
        if not math.isfinite(value):
            raise UnavailableMetricError(f"frame {number}: {self._name} is {value}")
        return {self._name: value}


class Psnr(Gauge):
    """PSNR of every plane and of their usual means.

    It comes from float64 sums on the CPU, exact ones where both sides are rounded: it
    depends on no device and no number of threads.
    """

    def add(self, pair: FramePair) -> dict[str, float]:
        """Measure the frame before and after rounding."""
        values: dict[str, float] = {}
        rounded = (pair.decoded, pair.source)
        for suffix, both in (("_unrounded", pair.unrounded), ("", rounded)):
            ours, theirs = ((*frame.yuv, frame.rgb) for frame in both)
            y, u, v, rgb = map(_psnr_of_codes, ours, theirs)
            own = {"y": y, "u": u, "v": v, "yuv": six_one_one(y, u, v), "rgb": rgb}
            values |= {f"psnr_{name}{suffix}": float(own[name]) for name in own}
        return values


def _psnr_of_codes(a: Tensor, b: Tensor) -> Tensor:
    # NumPy adds in one order, whatever the number of threads.
    squares = np.square(a.numpy() - b.numpy()).sum(dtype=np.float64)
    return decibels(torch.tensor(squares / (a.numel() * 255**2)))


class MsSsim(Gauge):
    """MS-SSIM of luma and of RGB, also in dB."""

    def add(self, pair: FramePair) -> dict[str, float]:
        """Measure the frame."""
        x_hat, x = (
            torch.cat([frame.yuv[0].unsqueeze(0), frame.rgb]).to(self.device) / 255
            for frame in (pair.decoded, pair.source)
        )
        planes = ms_ssim_planes(x_hat, x).cpu()
        values = {"ms_ssim_y": planes[0], "ms_ssim_rgb": planes[1:].mean()}
        values |= {f"{name}_db": decibels(1 - v) for name, v in values.items()}
        return {name: float(value) for name, value in values.items()}


class Flow(Gauge):
    """tOF of the luma that the codec has: of 4:2:0 its Y plane; flows are shared."""

    def __init__(self, names: Sequence[str], device: str | torch.device) -> None:
        super().__init__(names, device)
        self._stream = TofStream(*names)
        self._name = " ".join(["flow", *self._stream.methods])

    def add(self, pair: FramePair) -> dict[str, float]:
        """Measure the frame and the one before."""
        decoded, source = (
            frame.yuv[0].round().byte().numpy() for frame in (pair.decoded, pair.source)
        )
        return self._stream.add(
            decoded, source, lambda find: pair.of_source(self._name, find)
        )


class Perceptual(Gauge):
    """LPIPS and tLP of one backbone, from features that are computed once."""

    def __init__(self, names: Sequence[str], device: str | torch.device) -> None:
        super().__init__(names, device)
        self._net = METRICS[names[0]].net
        self._lpips = Lpips(self._net)
        # Of the previous frame: decoded and source.
        self._previous: list[list[Tensor]] = []

    def add(self, pair: FramePair) -> dict[str, float]:
        """Measure the frame, and it and the one before."""
        distance = self._lpips.distance

        def features(frame: Frame) -> list[Tensor]:
            return self._lpips.features(frame.rgb.unsqueeze(0).to(self.device) / 255)

        decoded = features(pair.decoded)
        source = pair.of_source(f"lpips {self._net}", lambda: features(pair.source))
        values = {f"lpips_{self._net}": float(distance(decoded, source))}
        if self._previous:
            ours = distance(self._previous[0], decoded)
            before = self._previous[1]
            theirs = pair.of_source(
                f"change in lpips {self._net}", lambda: distance(before, source)
            )
            values[f"tlp_{self._net}"] = float((ours - theirs).abs())
        self._previous = [decoded, source]
        return values
