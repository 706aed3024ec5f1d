"""Pictures of chosen frames, source and decoded, beside a result file."""

from datamodules.writing import to_rgb8, write_png
from datamodules.yuv import Codes, Planes, dequantise, planes_to_rgb, quantise
from experiments.evaluate.job import Job
from experiments.evaluate.options import JobOptions


class Gallery:
    """Keeps chosen frames as PNG, source and decoded.

    Args:
        job: What is coded.
        options: Which frames are kept, and beside which result file.
        scales: How many were decoded; None for all.
        written: Path of each frame of the source that this process has written, by its
            number; those are not written again.

    Attributes:
        source: Path of each kept frame of the source, relative to the result file.
        decoded: The same of the decoded frames.
    """

    def __init__(
        self,
        job: Job,
        options: JobOptions,
        scales: int | None = None,
        written: dict[str, str] | None = None,
    ) -> None:
        self._written = {} if written is None else written
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
        if str(number) not in self._written:
            self._written[str(number)] = self._write(number, "source", source)
        self.source[str(number)] = self._written[str(number)]
        decoded = self._write(number, self._label, quantise(planes))
        self.decoded[str(number)] = decoded

    def _write(self, number: int, name: str, codes: Codes) -> str:
        path = self._folder / f"{number:05d}.{name}.png"
        rgb = planes_to_rgb(dequantise(codes), self._colour)
        write_png(to_rgb8(rgb), path)
        return path.relative_to(self._root).as_posix()
