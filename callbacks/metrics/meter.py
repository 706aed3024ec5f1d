"""The metrics of one coded sequence, frame by frame, as ``table.METRICS`` defines.

Planes come as a codec takes and gives them: 4:2:0, or R, G and B. A frame is compared
as a decoder writes it, rounded to 8 bits; PSNR also before rounding.
"""

import math
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name

import numpy as np
import torch

from callbacks.metrics.gauges import Frame, FramePair, Gauge, PerFrame
from callbacks.metrics.source_memory import NOTHING_KEPT, SourceMemory
from callbacks.metrics.table import METRICS
from datamodules.yuv import (
    Codes,
    Colour,
    Planes,
    chroma_size,
    planes_to_rgb,
    quantise,
    rgb_to_yuv,
)
from lightning_modules.perceptual import UnavailableMetricError


class Meter:
    """Measures one sequence at one rate.

    Args:
        colour: What the planes are.
        height: Rows of a frame.
        width: Columns of a frame.
        names: Keys of ``METRICS``; of those, the ones that a frame or a pair has.
        device: Where networks and MS-SSIM are computed.
        memory: What is known of the source from other rates, and is added to.

    Attributes:
        missing: Metrics for which something is missing on this machine, and what.
        undefined: Metrics that these frames have not, and why.

    Raises:
        ValueError: There is no metric of one of these names.
    """

    def __init__(
        self,
        colour: Colour,
        height: int,
        width: int,
        names: Sequence[str],
        device: str | torch.device = "cpu",
        memory: SourceMemory = NOTHING_KEPT,
    ) -> None:
        self._memory = memory
        self.missing: dict[str, str] = {}
        self.undefined: dict[str, str] = {}
        self._colour = colour
        chroma = chroma_size(height, width) if colour == "yuv420" else (height, width)
        self._shapes = [(height, width), chroma, chroma]
        self._frames = 0
        self._values: dict[str, list[float]] = {}
        if unknown := sorted(set(names) - set(METRICS)):
            raise ValueError(f"no metrics {unknown}, choose from {list(METRICS)}")
        self._names = [n for n in METRICS if n in names and METRICS[n].per_frame]
        for name in self._names:
            if reason := METRICS[name].lacks():
                self.missing[name] = reason
        self._gauges = make_gauges(
            [name for name in self._names if name not in self.missing], device
        )

    @property
    def unavailable(self) -> dict[str, str]:
        """Why a metric has no values, by name."""
        return self.missing | self.undefined

    @torch.inference_mode()
    def add(self, source: Codes, decoded: Planes) -> None:
        """Measure the next frame.

        Args:
            source: 8-bit planes.
            decoded: The same planes in [0, 1], not rounded, on any device; what lies
                outside is clamped.

        Raises:
            ValueError: A plane has another size than the sequence's, or the decoded
                ones hold what is no number.
        """
        self._check(source, decoded)
        y, u, v = (plane.float().cpu().clamp(0, 1) * 255 for plane in decoded)
        original = self._frame(_as_floats(source))
        # Both sides the same way: pictures of 8 bits.
        pair = FramePair(
            _as_8_bit_rgb(self._frame(_as_floats(quantise(decoded)))),
            _as_8_bit_rgb(original),
            unrounded=(self._frame((y, u, v)), original),
            number=self._frames,
            memory=self._memory,
        )
        for gauge in list(self._gauges):
            try:
                values = gauge.add(pair)
            except UnavailableMetricError as error:
                # A mean over the frames that have a value would be another measure.
                for name in gauge.names:
                    self._values.pop(name, None)
                    self.undefined[name] = str(error)
                self._gauges.remove(gauge)
                continue
            for name in gauge.names:
                if name in values:
                    self._values.setdefault(name, []).append(values[name])
        self._frames += 1

    def close(self) -> dict[str, list[float]]:
        """Return the values of every metric that has some, one per frame.

        Metrics of pairs compare a frame with the one before: they have none for the
        first.

        Raises:
            ValueError: There was no frame.
        """
        if not self._frames:
            raise ValueError("no frame was measured: at least one is needed")
        if self._frames == 1:
            for name in self._names:
                if METRICS[name].pairs and name not in self.unavailable:
                    reason = f"{name} needs two frames, the sequence has one"
                    self.undefined[name] = reason
        for gauge in self._gauges:
            self._values |= gauge.close()
        return {name: self._values[name] for name in METRICS if name in self._values}

    def _check(self, source: Codes, decoded: Planes) -> None:
        for name, planes in (("source", source), ("decoded", decoded)):
            shapes = [tuple(plane.shape) for plane in planes]
            if shapes != self._shapes:
                raise ValueError(
                    f"frame {self._frames}: the {name} planes are {shapes}, "
                    f"{self._colour} of this sequence has {self._shapes}"
                )
        if not all(bool(plane.isfinite().all()) for plane in decoded):
            raise ValueError(
                f"frame {self._frames}: the decoded planes hold NaN or infinity, "
                "which is no picture"
            )

    def _frame(self, planes: Planes) -> Frame:
        if self._colour == "yuv420":
            y, u, v = (plane / 255 for plane in planes)
            return Frame(planes, planes_to_rgb((y, u, v), self._colour) * 255)
        rgb = torch.stack(planes)
        y, u, v = (rgb_to_yuv(rgb / 255) * 255).unbind()
        return Frame((y, u, v), rgb)


def make_gauges(names: Sequence[str], device: str | torch.device) -> list[Gauge]:
    """Return what measures these metrics; rows of one gauge and backbone share one."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        metric = METRICS[name]
        key = (metric.gauge, metric.net) if metric.gauge else (name, "")
        groups.setdefault(key, []).append(name)
    gauges = []
    for own in groups.values():
        path = METRICS[own[0]].gauge
        kind: type[Gauge] = resolve_name(path) if path else PerFrame
        gauges.append(kind(own, device))
    return gauges


def means(per_frame: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the mean of each metric's values: a sequence's quality."""
    return {name: math.fsum(values) / len(values) for name, values in per_frame.items()}


def at_boundaries(
    per_frame: Mapping[str, list[float]], boundaries: Sequence[int]
) -> dict[str, float]:
    """Return tOF and tLP over the pairs of frames that cross a boundary.

    Args:
        per_frame: As :meth:`Meter.close` gives it.
        boundaries: Number of each frame that begins a unit; see
            ``VideoCodec.boundaries``.
    """
    # The first value is of the frames 0 and 1.
    return {
        name: math.fsum(per_frame[metric.boundary_of][n - 1] for n in boundaries)
        / len(boundaries)
        for name, metric in METRICS.items()
        if boundaries and metric.boundary_of in per_frame
    }


def _as_floats(codes: Codes) -> Planes:
    y, u, v = (torch.from_numpy(plane.astype(np.float32)) for plane in codes)
    return y, u, v


def _as_8_bit_rgb(frame: Frame) -> Frame:
    return frame._replace(rgb=frame.rgb.round())
