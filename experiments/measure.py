"""The metrics of one coded sequence, frame by frame, as ``results.METRICS`` defines.

Planes come as a codec takes and gives them: 4:2:0, or R, G and B. A frame is compared
as a decoder writes it, rounded to 8 bits; PSNR also before rounding.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from callbacks.brisque import brisque, check_brisque
from callbacks.quality import (
    Lpips,
    UnavailableMetricError,
    decibels,
    ms_ssim_planes,
    six_one_one,
)
from callbacks.temporal_metrics import TOF_NAMES, TofStream
from datamodules.yuv import (
    Codes,
    Colour,
    Planes,
    chroma_size,
    planes_to_rgb,
    quantise,
    rgb_to_yuv,
)
from experiments.results.result import METRICS

MS_SSIM = ("ms_ssim_y", "ms_ssim_rgb", "ms_ssim_y_db", "ms_ssim_rgb_db")


class _Frame(NamedTuple):
    """One frame in both colours, in 8-bit codes: 0 to 255, whole where rounded.

    Attributes:
        yuv: Y, U and V; 4:2:0 if that is what the codec takes, or else 4:4:4.
        rgb: (3, H, W).
    """

    yuv: Planes
    rgb: Tensor


class Meter:
    """Measures one sequence at one rate.

    PSNR comes from float64 sums on the CPU, exact ones where both sides are rounded:
    it depends on no device and no number of threads.

    Args:
        colour: What the planes are.
        height: Rows of a frame.
        width: Columns of a frame.
        lpips_net: Backbone of LPIPS and tLP, as ``Lpips`` takes it; ``None`` leaves
            both out.
        device: Where MS-SSIM and LPIPS are computed.
        flows: Estimators of tOF: ``dis``, ``teco``.
        with_brisque: Whether BRISQUE is measured.

    Attributes:
        missing: Metrics for which something is missing on this machine, and what.
        undefined: Metrics that these frames have not, and why.

    Raises:
        ValueError: LPIPS has no such backbone.
    """

    def __init__(
        self,
        colour: Colour,
        height: int,
        width: int,
        lpips_net: str | None = "alex",
        device: str | torch.device = "cpu",
        flows: Sequence[Literal["dis", "teco"]] = ("dis",),
        with_brisque: bool = False,
    ) -> None:
        self.missing: dict[str, str] = {}
        self.undefined: dict[str, str] = {}
        self._colour = colour
        chroma = chroma_size(height, width) if colour == "yuv420" else (height, width)
        self._shapes = [(height, width), chroma, chroma]
        self._device = device
        self._frames = 0
        self._values: dict[str, list[float]] = {}
        self._tof = {TOF_NAMES[flow]: TofStream(flow) for flow in flows}
        self._lpips: Lpips | None = None
        self._lpips_names: tuple[str, ...] = ()
        # What LPIPS compares, of the previous frame: decoded and source.
        self._previous: list[list[Tensor]] = []
        if lpips_net is not None:
            self._lpips_names = (f"lpips_{lpips_net}", f"tlp_{lpips_net}")
            try:
                self._lpips = Lpips(lpips_net)
            except UnavailableMetricError as error:
                self.missing |= dict.fromkeys(self._lpips_names, str(error))
        self._with_brisque = with_brisque
        if with_brisque:
            try:
                check_brisque()
            except UnavailableMetricError as error:
                self.missing["brisque"] = str(error)
                self._with_brisque = False

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
        frame = self._frame(_as_floats(source))
        y, u, v = (plane.float().cpu().clamp(0, 1) * 255 for plane in decoded)
        psnr = _psnr(self._frame((y, u, v)), frame)
        self._add({f"{name}_unrounded": value for name, value in psnr.items()})

        # Both sides the same way: pictures of 8 bits.
        frame = frame._replace(rgb=frame.rgb.round())
        output = self._frame(_as_floats(quantise(decoded)))
        output = output._replace(rgb=output.rgb.round())
        self._add(_psnr(output, frame))
        self._try(MS_SSIM, self._ms_ssim, output, frame)
        for name in self._tof:
            self._try((name,), partial(self._temporal_flow, name), output, frame)
        if self._lpips is not None:
            self._try(self._lpips_names, self._perceptual, output, frame)
        if self._with_brisque:
            self._try(("brisque",), self._brisque, output, frame)
        self._frames += 1

    def close(self) -> dict[str, list[float]]:
        """Return the values of every metric that has some, one per frame.

        ``tof`` and ``tlp`` compare a frame with the one before: they have none for the
        first.

        Raises:
            ValueError: There was no frame.
        """
        if not self._frames:
            raise ValueError("no frame was measured: at least one is needed")
        if self._frames == 1:
            for name in (*self._tof, *self._lpips_names[1:]):
                if name not in self.unavailable:
                    reason = f"{name} needs two frames, the sequence has one"
                    self.undefined[name] = reason
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

    def _frame(self, planes: Planes) -> _Frame:
        if self._colour == "yuv420":
            y, u, v = (plane / 255 for plane in planes)
            return _Frame(planes, planes_to_rgb((y, u, v), self._colour) * 255)
        rgb = torch.stack(planes)
        y, u, v = (rgb_to_yuv(rgb / 255) * 255).unbind()
        return _Frame((y, u, v), rgb)

    def _ms_ssim(self, output: _Frame, source: _Frame) -> dict[str, float]:
        x_hat, x = (
            torch.cat([frame.yuv[0].unsqueeze(0), frame.rgb]).to(self._device) / 255
            for frame in (output, source)
        )
        planes = ms_ssim_planes(x_hat, x).cpu()
        y, rgb = planes[0], planes[1:].mean()
        values = (y, rgb, decibels(1 - y), decibels(1 - rgb))
        return dict(zip(MS_SSIM, map(float, values), strict=True))

    def _temporal_flow(
        self, name: str, output: _Frame, source: _Frame
    ) -> dict[str, float]:
        decoded, original = (
            frame.yuv[0].round().byte().numpy() for frame in (output, source)
        )
        value = self._tof[name].add(decoded, original)
        return {} if value is None else {name: value}

    def _perceptual(self, output: _Frame, source: _Frame) -> dict[str, float]:
        assert self._lpips is not None
        lpips, tlp = self._lpips_names
        distance = self._lpips.distance
        features = [
            self._lpips.features(frame.rgb.unsqueeze(0).to(self._device) / 255)
            for frame in (output, source)
        ]
        values = {lpips: distance(*features)}
        if self._previous:
            decoded, original = map(distance, self._previous, features)
            values[tlp] = (decoded - original).abs()
        self._previous = features
        return {name: float(value) for name, value in values.items()}

    def _brisque(self, output: _Frame, source: _Frame) -> dict[str, float]:
        try:
            return {"brisque": float(brisque(output.rgb.to(self._device) / 255))}
        except UnavailableMetricError as error:
            # A mean over the frames that have one would be another measure.
            self._values.pop("brisque", None)
            raise UnavailableMetricError(f"frame {self._frames}: {error}") from error

    def _try(
        self,
        names: tuple[str, ...],
        measure: Callable[[_Frame, _Frame], dict[str, float]],
        output: _Frame,
        source: _Frame,
    ) -> None:
        """Add what can be measured; what cannot is reported, and not tried again."""
        if names[0] in self.unavailable:
            return
        try:
            self._add(measure(output, source))
        except UnavailableMetricError as error:
            self.undefined |= dict.fromkeys(names, str(error))

    def _add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)


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
        re.sub("^(tof|tlp)", r"\1_boundary", name): math.fsum(
            values[frame - 1] for frame in boundaries
        )
        / len(boundaries)
        for name, values in per_frame.items()
        if boundaries and (name == "tof" or name.startswith("tlp_"))
    }


def _as_floats(codes: Codes) -> Planes:
    y, u, v = (torch.from_numpy(plane.astype(np.float32)) for plane in codes)
    return y, u, v


def _psnr(output: _Frame, source: _Frame) -> dict[str, float]:
    """Return the PSNR of every plane and of their usual means."""
    ours, theirs = ((*frame.yuv, frame.rgb) for frame in (output, source))
    y, u, v, rgb = map(_psnr_of_codes, ours, theirs)
    values = {"y": y, "u": u, "v": v, "yuv": six_one_one(y, u, v), "rgb": rgb}
    return {f"psnr_{name}": float(value) for name, value in values.items()}


def _psnr_of_codes(a: Tensor, b: Tensor) -> Tensor:
    # NumPy adds in one order, whatever the number of threads.
    squares = np.square(a.numpy() - b.numpy()).sum(dtype=np.float64)
    return decibels(torch.tensor(squares / (a.numel() * 255**2)))
