"""Pictures of chosen frames, source and decoded, beside a result file."""

from pathlib import Path

import cv2

from datamodules.whole_files import whole_or_nothing
from datamodules.yuv import (
    Codes,
    Colour,
    Planes,
    dequantise,
    planes_to_rgb,
    quantise,
)
from experiments.evaluate.job import Job
from experiments.evaluate.options import JobOptions


class Gallery:
    """Keeps chosen frames as PNG, source and decoded.

    Args:
        job: What is coded.
        options: Which frames are kept, and beside which result file.
        scales: How many were decoded; None for all.

    Attributes:
        source: Path of each kept frame of the source, relative to the result file.
        decoded: The same of the decoded frames.
    """

    def __init__(
        self, job: Job, options: JobOptions, scales: int | None = None
    ) -> None:
        self.source: dict[str, str] = {}
        self.decoded: dict[str, str] = {}
        self._root = options.output.parent
        self._colour = options.colour
        self._wanted = options.pictures
        self._folder = options.output.with_suffix(".frames") / job.stem
        value = job.rate.value
        # Short, unless that would be another rate.
        shown = f"{value:g}" if float(f"{value:g}") == value else repr(value)
        self._label = f"{job.rate.unit}{shown}"
        if scales is not None:
            self._label += f".scales{scales}"

    def add(self, number: int, source: Codes, planes: Planes) -> None:
        """Keep a frame if it is one of the chosen."""
        if number not in self._wanted:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for kept, name, codes in (
            (self.source, "source", source),
            (self.decoded, self._label, quantise(planes)),
        ):
            path = self._folder / f"{number:05d}.{name}.png"
            _write_png(path, dequantise(codes), self._colour)
            kept[str(number)] = path.relative_to(self._root).as_posix()


def _write_png(path: Path, planes: Planes, colour: Colour) -> None:
    rgb = planes_to_rgb(planes, colour).mul(255).round().byte().permute(1, 2, 0)
    done, png = cv2.imencode(".png", rgb.numpy()[..., ::-1])
    assert done, "OpenCV encodes every 8-bit picture"
    with whole_or_nothing(path) as temporary:
        temporary.write_bytes(png.tobytes())
