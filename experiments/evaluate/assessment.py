"""One job: code a sequence at a rate, decode it, and compare it with the source."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from callbacks.metrics.meter import Meter, at_boundaries, means
from callbacks.metrics.table import METRICS
from datamodules.sequences.files import frames_to_read
from datamodules.yuv import Codes, Planes, quantise
from experiments.bitstreams.coding_mode import coding_mode
from experiments.cli.activity import (
    DECODE,
    ENCODE,
    ESTIMATE,
    MEASURE,
    SEARCH,
    activity,
)
from experiments.evaluate.coder import Coder, Cost, Task
from experiments.evaluate.features import SampleFeatures
from experiments.evaluate.gallery import Gallery
from experiments.evaluate.job import Job
from experiments.evaluate.options import JobOptions
from experiments.evaluate.parts import job_folder
from experiments.evaluate.sources import Source
from experiments.results.origin import versions
from experiments.results.result import Histogram, Point, Result, SequenceResult


def assess(job: Job, coder: Coder, options: JobOptions, source: Source) -> Result:
    """Do one job: code, decode, compare with the source.

    Args:
        job: What is coded.
        coder: What codes it.
        options: What is compared, and how.
        source: Of the job's sequence.

    Raises:
        ValueError: The codec fails, or gives another number of frames.
    """
    sequence = job.sequence
    doing = activity()
    frames = frames_to_read(sequence, options.max_frames)

    def codes() -> Iterator[Codes]:
        return doing.count(source.codes(), SEARCH, ENCODE)

    with (
        job_folder(options.output) as folder,
        coding_mode(torch.device(coder.metric_device)),
    ):
        task = Task(
            sequence,
            codes,
            options.colour,
            job.rate.value,
            folder,
            yuv_as=options.yuv_as,
        )
        target = job.rate.target_bpp(sequence)
        if target is not None:
            doing.start(SEARCH)
            task = replace(task, rate=coder.find_rate(task, target))
        doing.start(ENCODE, frames)
        cost = coder.encode(task)
        if "encode" in cost.peak_memory and coder.metric_device == "cpu":
            # What is kept of the source for other rates is no memory of the codec's.
            cost.peak_memory["encode"] -= source.memory.nbytes
        whole = Assessment(job, coder, options, source)
        points = [whole.point(task, cost)]
        for scales in job.scales:
            part = Assessment(job, coder, options, source, scales)
            points.append(part.point(task, cost.of_scales(scales)))
    shown = SequenceResult(
        sequence.set,
        sequence.name,
        sequence.width,
        sequence.height,
        sequence.fps,
        whole.count,
        points,
        source.kind,
        whole.gallery.source,
        coder.boundaries(whole.count),
    )
    definitions = {name: METRICS[name].definition for name in points[0].metrics}
    return Result(
        coder.name,
        coder.describe(),
        replace(options.protocol(), definitions=definitions),
        {**versions(), **coder.environment(), "unavailable": whole.unavailable},
        [shown],
    )


class Assessment:
    """Compares decoded frames, one by one, with the source's.

    Args:
        job: What was coded.
        coder: What coded it.
        options: What is compared, and how.
        source: Of the job's sequence.
        scales: How many are decoded; None for all.

    Attributes:
        count: Frames so far.
        gallery: Chosen frames.
    """

    def __init__(
        self,
        job: Job,
        coder: Coder,
        options: JobOptions,
        source: Source,
        scales: int | None = None,
    ) -> None:
        sequence, device = job.sequence, coder.metric_device
        self.count = 0
        self.gallery = Gallery(job, options, scales, source.pictures)
        self._job = job
        self._coder = coder
        self._options = options
        self._scales = scales
        self._meter = Meter(
            options.colour,
            sequence.height,
            sequence.width,
            options.metric_names,
            device,
            source.memory,
        )
        self._samples = SampleFeatures(job, options, device, scales)

    def point(self, task: Task, cost: Cost) -> Point:
        """Decode, compare, and return what came of it.

        Args:
            task: What was coded.
            cost: What coding took; takes what decoding does.

        Raises:
            ValueError: The decoder fails or gives another number of frames than the
                source has, or the codec estimates no bits.
        """
        doing = activity()
        is_estimate = self._options.bits_from == "estimate"
        frames = frames_to_read(task.sequence, self._options.max_frames)
        doing.start(ESTIMATE if is_estimate else DECODE, frames)
        source = task.codes()
        for planes in self._coder.decode(task, cost, self._scales):
            self._add(next(source, None), planes)
            doing.step()
        doing.start(MEASURE)
        count = self.count
        if next(source, None) is not None or count != len(cost.frame_bits):
            raise ValueError(
                f"{count} frames were decoded and {len(cost.frame_bits)} coded, which "
                "is not the number of the source"
            )
        qualities = self._meter.close()
        sequence = task.sequence
        pixels = sequence.width * sequence.height * count
        bits: float = 8 * cost.nbytes
        if is_estimate:
            if cost.estimated_bits is None:
                raise ValueError(f"{self._coder.name} estimates no bits")
            bits = cost.estimated_bits
        estimated = cost.estimated_bits
        scales = {f"bits_scale{n}": b for n, b in enumerate(cost.scale_bits, start=1)}
        return Point(
            rate=task.rate,
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
            scales=self._scales,
            unavailable={**self._meter.undefined, **self._samples.undefined},
            latents=self._latents(cost),
            features=self._samples.save(),
        )

    def _latents(self, cost: Cost) -> dict[str, Histogram]:
        """Return how often each latent value was coded, if that was asked for."""
        if not self._job.latents or self._scales is not None:
            return {}
        return {
            name: Histogram(list(counts), list(counts.values()))
            for name, counts in cost.latents.items()
        }

    @property
    def unavailable(self) -> dict[str, str]:
        """Metrics without a value, and why."""
        return {
            **self._meter.unavailable,
            **self._samples.missing,
            **self._samples.undefined,
        }

    def _add(self, source: Codes | None, planes: Planes) -> None:
        """Take the next frame of the source and the decoded one."""
        if source is None:
            raise ValueError(
                f"more frames were decoded than the {self.count} of the source"
            )
        self._meter.add(source, planes)
        self._samples.add(source, quantise(planes))
        self.gallery.add(self.count, source, planes)
        self.count += 1
