"""A job: one sequence at one rate, and whether a result holds its points."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from callbacks.metrics.table import METRICS
from datamodules.sequences.files import VideoSequence
from experiments.results.result import Point, Pool, Result, SequenceResult

# A set or name that files are called by as it is: no dots, and no hash at its end.
ORDINARY = "(?!.*-[0-9a-f]{8}$)[A-Za-z0-9_-]+"


@dataclass(frozen=True)
class Rate:
    """One rate of a job: the codec's own value, or a target in bpp or kbps."""

    value: float
    unit: str = "rate"

    def target_bpp(self, sequence: VideoSequence) -> float | None:
        """Return the bits per pixel asked for, or None for the codec's own value."""
        if self.unit == "rate":
            return None
        if self.unit == "bpp":
            return self.value
        pixels = sequence.width * sequence.height
        return self.value * 1000 / (float(sequence.fps) * pixels)

    def is_of(self, point: Point, sequence: VideoSequence) -> bool:
        """Return whether a point was made for this rate."""
        target = self.target_bpp(sequence)
        if target is None:
            return point.target_bpp is None and point.rate == self.value
        return point.target_bpp == target

    @property
    def target(self) -> str | None:
        """Return what was asked for, as text, or None for the codec's own value."""
        return None if self.unit == "rate" else f"{self.unit} {self.value!r}"

    def __str__(self) -> str:
        return f"{self.unit} {self.value:g}"


Found = tuple[SequenceResult, Point]


@dataclass(frozen=True)
class Job:
    """One sequence at one rate.

    Attributes:
        sequence: What is coded.
        rate: At which rate.
        needs: Metrics without which a point does not count as done.
        scales: Numbers of scales that are also decoded alone.
        latents: Whether the point with all scales tells how its latents are
            distributed.
        pool: Names of the sequences of the set that FID and KID are of.
    """

    sequence: VideoSequence
    rate: Rate
    needs: tuple[str, ...] = ()
    scales: tuple[int, ...] = ()
    pool: tuple[str, ...] = ()
    latents: bool = False

    def __str__(self) -> str:
        """Say which it is."""
        return f"{self.sequence.set}/{self.sequence.name} at {self.rate}"

    @property
    def stem(self) -> str:
        """Return what names of files call its sequence, different for every one.

        It is ``SET.NAME``; with a hash where that, in plain characters, could be
        another's too.
        """
        own, name = self.sequence.set, self.sequence.name
        text = f"{own}.{name}"
        if re.fullmatch(ORDINARY, own) and re.fullmatch(ORDINARY, name):
            return text
        digest = sha256(f"{own}\0{name}".encode(errors="surrogateescape")).hexdigest()
        return f"{re.sub('[^A-Za-z0-9_.-]', '_', text)}-{digest[:8]}"

    @property
    def file(self) -> str:
        """Return the name of its part, different for every job."""
        return f"{self.stem}.{self.rate.unit}{self.rate.value!r}.json"

    def points_in(self, result: Result) -> dict[int | None, Found]:
        """Return its points of a result, each with its sequence, by their scales."""
        key = (self.sequence.set, self.sequence.name)
        return {
            point.scales: (sequence, point)
            for sequence, point in result.all_points()
            if sequence.key == key and self.rate.is_of(point, self.sequence)
        }

    def done_in(self, result: Result) -> bool:
        """Return whether a result holds this job's points."""
        done = {
            scales
            for scales, (_, point) in self.points_in(result).items()
            if all(self._has(name, point, result.pools) for name in self.needs)
            and (scales is not None or point.latents or not self.latents)
        }
        return done >= {None, *self.scales}

    def _has(self, name: str, point: Point, pools: Sequence[Pool]) -> bool:
        """Return whether a metric is known, also that these frames have none."""
        if not METRICS[name].pooled:
            return name in {**point.metrics, **point.unavailable}
        if name in {**point.features, **point.unavailable}:
            return True
        rate = self.rate.target or self.rate.value
        key = (self.sequence.set, self.pool, rate, point.scales)
        return any(
            pool.key == key and name in {**pool.metrics, **pool.unavailable}
            for pool in pools
        )
