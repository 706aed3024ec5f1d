"""Jobs of a measurement, and their results on disk until the last one is there.

A job is one sequence at one rate. Each finished job is a result file of its own in
``NAME.parts/``; when the last one is there, whichever process finished it puts them
together to ``NAME.json``, and compares what was left for FID and KID. So jobs run in
any order, in several processes or on several machines that share a disk, and an
interrupted command goes on with what is missing.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.results import (
    METRICS,
    Point,
    Pool,
    Result,
    ResultError,
    SequenceResult,
)

if TYPE_CHECKING:
    from datamodules.sequences import VideoSequence


@dataclass(frozen=True)
class Rate:
    """One rate of a job: the codec's own value, or a target in bpp or kbps."""

    value: float
    unit: str = "rate"

    def target_bpp(self, sequence: "VideoSequence") -> float | None:
        """Return the bits per pixel asked for, or None for the codec's own value."""
        if self.unit == "rate":
            return None
        if self.unit == "bpp":
            return self.value
        pixels = sequence.width * sequence.height
        return self.value * 1000 / (float(sequence.fps) * pixels)

    def is_of(self, point: Point, sequence: "VideoSequence") -> bool:
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


@dataclass(frozen=True)
class Job:
    """One sequence at one rate.

    Attributes:
        sequence: What is coded.
        rate: At which rate.
        needs: Metrics without which a point does not count as done.
        scales: Numbers of scales that are also decoded alone.
        pool: Names of the sequences of the set that FID and KID are of.
    """

    sequence: "VideoSequence"
    rate: Rate
    needs: tuple[str, ...] = ()
    scales: tuple[int, ...] = ()
    pool: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Say which it is."""
        return f"{self.sequence.set}/{self.sequence.name} at {self.rate}"

    @property
    def file(self) -> str:
        """Return the name of its part, different for every job."""
        text = f"{self.sequence.set}.{self.sequence.name}.{self.rate.unit}"
        return f"{re.sub('[^A-Za-z0-9_.-]', '_', text)}{self.rate.value!r}.json"

    def done_in(self, result: Result) -> bool:
        """Return whether a result holds this job's points."""
        key = (self.sequence.set, self.sequence.name)
        found = {
            point.scales
            for s, point in result.all_points()
            if s.key == key
            and self.rate.is_of(point, self.sequence)
            and all(self._has(name, point, result.pools) for name in self.needs)
        }
        return found >= {None, *self.scales}

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


class Parts:
    """The finished jobs of one output file, on disk.

    Args:
        output: The result file in the end.
        empty: A result without sequences: whose points these are.

    Raises:
        ValueError: What is there belongs to another codec or protocol.
    """

    def __init__(self, output: Path, empty: Result) -> None:
        self.output = output
        self.folder = output.with_suffix(".parts")
        self.empty = empty
        self.load()

    def load(self) -> Result:
        """Return all points that exist, as one result."""
        # Parts first: whoever removes them has written the whole file before.
        paths = sorted(self.folder.glob("*.json"))
        found = [_load(path) for path in [*paths, self.output]]
        for result in found:
            if result is not None:
                self._check(result)
                self._forget_lost_features(result)
        return merge(self.empty, [result for result in found if result])

    def _check(self, result: Result) -> None:
        wanted = self.empty
        pairs = {
            "name": (wanted.name, result.name),
            **_pairs("codec", wanted.codec, result.codec),
            **_pairs("protocol", vars(wanted.protocol), vars(result.protocol)),
        }
        del pairs["protocol.definitions"]  # They are known once something is measured.
        differing = [
            f"{name} {b!r}, not {a!r}" for name, (a, b) in pairs.items() if a != b
        ]
        if differing:
            raise ValueError(
                f"{result.path} has {'; '.join(differing)}: choose another --output, "
                "or --overwrite to discard it"
            )

    def _forget_lost_features(self, result: Result) -> None:
        for _, point in result.all_points():
            point.features = {
                name: files
                for name, files in point.features.items()
                if all((self.folder / file).is_file() for file in files)
            }

    def add(self, job: Job, result: Result) -> None:
        """Keep a finished job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        result.save(self.folder / job.file)

    def finish(self, jobs: Sequence[Job]) -> Result | None:
        """Write the whole file if every job is done; return it, or None."""
        from experiments.pooling import make_pools

        result = self.load()
        if not all(job.done_in(result) for job in jobs):
            return None
        try:
            result.pools = make_pools(result, jobs, self.folder)
        except FileNotFoundError:
            # Another process has just written the whole and removed the parts.
            return Result.load(self.output)
        for pool in result.pools:
            own = {name: METRICS[name].definition for name in pool.metrics}
            result.protocol.definitions.update(own)
        # What an earlier command lacked may have been there for this one.
        lacking = result.environment.get("unavailable", {})
        known = {name for pool in result.pools for name in pool.unavailable}
        for name in known.union(result.metric_names()):
            lacking.pop(name, None)
        for _, point in result.all_points():
            point.features = {}
        places = {(j.sequence.set, j.sequence.name): n for n, j in enumerate(jobs)}
        result.sequences.sort(key=lambda s: places.get(s.key, len(places)))
        result.save(self.output)
        shutil.rmtree(self.folder, ignore_errors=True)
        return result


def _load(path: Path) -> Result | None:
    """Read a result that may not exist, or not any more: then the whole has it."""
    try:
        return Result.load(path)
    except ResultError:
        if path.exists():
            raise
        return None


def _pairs(section: str, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": (a.get(key), b.get(key)) for key in {**a, **b}}


def merge(empty: Result, results: Sequence[Result]) -> Result:
    """Put results of one codec and protocol together, points from few bits to many."""
    whole = replace(empty, sequences=[])
    definitions: dict[str, str] = {}
    sequences: dict[tuple[str, str], SequenceResult] = {}
    whole.pools = [pool for result in results for pool in result.pools]
    for result in results:
        definitions |= result.protocol.definitions
        whole.environment = _both(whole.environment, result.environment)
        for sequence in result.sequences:
            kept = sequences.setdefault(sequence.key, replace(sequence, points=[]))
            kept.pictures |= sequence.pictures
            known = [point.key for point in kept.points]
            kept.points += [p for p in sequence.points if p.key not in known]
    for sequence in sequences.values():
        sequence.points.sort(key=lambda point: point.bpp)
    whole.sequences = list(sequences.values())
    whole.protocol = replace(empty.protocol, definitions=definitions)
    return whole


def _both(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return environments as one; a value that differs becomes the list of both."""
    values: dict[str, Any] = {}
    for key in {**a, **b}:
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            values[key] = one | other
            continue
        found: list[Any] = []
        for value in (one, other):
            each = value if isinstance(value, list) else [value]
            found += [v for v in each if v is not None and v not in found]
        values[key] = found[0] if len(found) == 1 else sorted(found, key=str)
    return values
