"""One job: code a sequence at a rate, decode it, and compare it with the source."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from callbacks.metrics.table import METRICS
from experiments.evaluate.coder import Coder, Cost, Settings
from experiments.evaluate.parts import Job
from experiments.results.origin import versions
from experiments.results.result import Point, Result, SequenceResult

if TYPE_CHECKING:
    from datamodules.yuv import Codes, Planes
    from experiments.evaluate.features import SampleFeatures


def measure(job: Job, coder: Coder, settings: Settings, output: Path) -> Result:
    """Do one job: code, decode, compare with the source.

    Raises:
        ValueError: The codec fails, or gives another number of frames.
    """
    from datamodules.sequences.files import read_codes, source_kind
    from experiments.evaluate.features import SampleFeatures

    sequence, colour = job.sequence, settings.colour

    def codes() -> Iterator["Codes"]:
        return read_codes(sequence, colour, settings.max_frames)

    # Beside the parts: --overwrite removes it should this process be killed.
    scratch = output.with_suffix(".parts")
    scratch.mkdir(parents=True, exist_ok=True)

    def assess(scales: int | None = None) -> Assessment:
        gallery = Gallery(output, job, settings, scales)
        device = coder.metric_device
        samples = SampleFeatures(scratch, job, settings, device, scales)
        return Assessment(job, coder, settings, gallery, samples)

    with TemporaryDirectory(prefix="coding-", dir=scratch) as name:
        folder = Path(name)
        target = job.rate.target_bpp(sequence)
        rate = job.rate.value
        if target is not None:
            rate = coder.find_rate(sequence, codes, colour, target, folder)
        whole = assess()
        cost = coder.code(sequence, codes, colour, rate, folder, whole.add)
        points = [whole.point(rate, cost)]
        for scales in job.scales:
            part = assess(scales)
            part_cost = coder.decode_scales(scales, cost, colour, folder, part.add)
            points.append(replace(part.point(rate, part_cost), scales=scales))
    shown = SequenceResult(
        sequence.set,
        sequence.name,
        sequence.width,
        sequence.height,
        sequence.fps,
        whole.count,
        points,
        source_kind(sequence),
        whole.gallery.source,
        coder.boundaries(whole.count),
    )
    definitions = {name: METRICS[name].definition for name in points[0].metrics}
    return Result(
        coder.name,
        coder.describe(),
        replace(settings.protocol(), definitions=definitions),
        {**versions(), **coder.environment(), "unavailable": whole.unavailable},
        [shown],
    )


class Assessment:
    """Compares decoded frames, one by one, with the source's.

    Args:
        job: What was coded.
        coder: What coded it.
        settings: How it is measured.
        gallery: Keeps chosen frames.
        samples: Leaves what FID and KID compare.

    Attributes:
        count: Frames so far.
    """

    def __init__(
        self,
        job: Job,
        coder: Coder,
        settings: Settings,
        gallery: "Gallery",
        samples: "SampleFeatures",
    ) -> None:
        from callbacks.metrics.meter import Meter
        from datamodules.sequences.files import read_codes

        sequence = job.sequence
        self.gallery = gallery
        self.count = 0
        self._job = job
        self._coder = coder
        self._settings = settings
        self._source = read_codes(sequence, settings.colour, settings.max_frames)
        self._meter = Meter(
            settings.colour,
            sequence.height,
            sequence.width,
            settings.metrics,
            coder.metric_device,
        )
        self._samples = samples

    def add(self, planes: "Planes") -> None:
        """Take the next decoded frame.

        Raises:
            ValueError: The source has no more.
        """
        from datamodules.yuv import quantise

        frame = next(self._source, None)
        if frame is None:
            raise ValueError(
                f"more frames were decoded than the {self.count} of the source"
            )
        self._meter.add(frame, planes)
        self._samples.add(frame, quantise(planes))
        self.gallery.add(self.count, frame, planes)
        self.count += 1

    def point(self, rate: float, cost: Cost) -> Point:
        """Return what was measured, after the last frame.

        Args:
            rate: That it was coded at.
            cost: What coding and decoding took.

        Raises:
            ValueError: Frames are missing, or the codec estimates no bits.
        """
        from callbacks.metrics.meter import at_boundaries, means

        count = self.count
        if next(self._source, None) is not None or count != len(cost.frame_bits):
            raise ValueError(
                f"{count} frames were decoded and {len(cost.frame_bits)} coded, which "
                "is not the number of the source"
            )
        qualities = self._meter.close()
        sequence, is_estimate = self._job.sequence, self._settings.rate == "estimate"
        pixels = sequence.width * sequence.height * count
        bits: float = 8 * cost.nbytes
        if is_estimate:
            if cost.estimated_bits is None:
                raise ValueError(f"{self._coder.name} estimates no bits")
            bits = cost.estimated_bits
        estimated = cost.estimated_bits
        scales = {f"bits_scale{n}": b for n, b in enumerate(cost.scale_bits, start=1)}
        return Point(
            rate=rate,
            bpp=bits / pixels,
            nbytes=None if is_estimate else cost.nbytes,
            estimated_bpp=None if estimated is None else estimated / pixels,
            kbps=bits / count * float(sequence.fps) / 1000,
            target_bpp=self._job.rate.target_bpp(sequence),
            metrics={
                **means(qualities),
                **at_boundaries(qualities, self._coder.boundaries(count)),
            },
            per_frame={"bits": cost.frame_bits, **scales, **qualities},
            seconds={name: total / count for name, total in cost.seconds.items()},
            peak_memory=cost.peak_memory,
            pictures=self.gallery.decoded,
            unavailable={**self._meter.undefined, **self._samples.undefined},
            features=self._samples.save(),
        )

    @property
    def unavailable(self) -> dict[str, str]:
        """Metrics that could not be measured, and why."""
        return {
            **self._meter.unavailable,
            **self._samples.missing,
            **self._samples.undefined,
        }


class Gallery:
    """Keeps chosen frames as PNG, source and decoded.

    Args:
        output: The result file.
        job: What is coded.
        settings: Which frames are kept.
        scales: How many were decoded; None for all.

    Attributes:
        source: Path of each kept frame of the source, relative to the result file.
        decoded: The same of the decoded frames.
    """

    def __init__(
        self, output: Path, job: Job, settings: Settings, scales: int | None = None
    ) -> None:
        self.source: dict[str, str] = {}
        self.decoded: dict[str, str] = {}
        self._root = output.parent
        self._colour = settings.colour
        self._wanted = settings.pictures
        self._folder = output.with_suffix(".frames") / job.stem
        value = job.rate.value
        # Short, unless that would be another rate.
        shown = f"{value:g}" if float(f"{value:g}") == value else repr(value)
        self._label = f"{job.rate.unit}{shown}"
        if scales is not None:
            self._label += f".scales{scales}"

    def add(self, number: int, source: "Codes", planes: "Planes") -> None:
        """Keep a frame if it is one of the chosen."""
        if number not in self._wanted:
            return
        from datamodules.writing import to_rgb8, write_png
        from datamodules.yuv import dequantise, planes_to_rgb, quantise

        for kept, name, codes in (
            (self.source, "source", source),
            (self.decoded, self._label, quantise(planes)),
        ):
            path = self._folder / f"{number:05d}.{name}.png"
            rgb = planes_to_rgb(dequantise(codes), self._colour)
            write_png(to_rgb8(rgb), path)
            kept[str(number)] = path.relative_to(self._root).as_posix()
