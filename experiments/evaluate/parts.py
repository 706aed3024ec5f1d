"""Jobs of a measurement, and their results on disk until the last one is there.

A job is one sequence at one rate. Each finished job is a result file of its own in
``NAME.parts/``; when the last one is there, whichever process finished it puts them
together to ``NAME.json``, and compares what was left for FID and KID. So jobs run in
any order, in several processes or on several machines that share a disk, and an
interrupted command goes on with what is missing.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callbacks.metrics.table import METRICS
from experiments.results.joining import merge
from experiments.results.result import Point, Pool, Result, ResultError

if TYPE_CHECKING:
    from datamodules.sequences.files import VideoSequence

# A set or name that files are called by as it is: no dots, and no hash at its end.
ORDINARY = "(?!.*-[0-9a-f]{8}$)[A-Za-z0-9_-]+"
SOURCE_FEATURES = re.compile(r"\.source\.[^.]+\.npy$")


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
        return merge(self.empty, list(self._read().values()))

    def _read(self) -> dict[Path, Result]:
        """Return what each part holds, and the whole file."""
        # Parts first: whoever removes them has written the whole file before.
        paths = sorted(self.folder.glob("*.json"))
        found = {path: _load(path) for path in [*paths, self.output]}
        results = {path: result for path, result in found.items() if result}
        for result in results.values():
            self._check(result)
            self._forget_lost_features(result)
        return results

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

    def finish(self, jobs: Sequence[Job], *, alone: bool) -> Result | None:
        """Write the whole file if every job is done; return it, or None.

        Args:
            jobs: All of the command.
            alone: Whether no other process does some of them.

        Raises:
            ValueError: A job is not done, and nobody else does it.
        """
        from experiments.evaluate.pools import make_pools

        found = self._read()
        result = merge(self.empty, list(found.values()))
        undone = [job for job in jobs if not job.done_in(result)]
        if undone and alone:
            raise ValueError(
                f"{undone[0].label} was measured, but what {self.folder} holds lacks "
                f"it ({len(undone)} of {len(jobs)} points): another command has "
                "removed it; the same command again measures what is missing"
            )
        if undone:
            return None
        try:
            result.pools = make_pools(result, jobs, self.folder)
        except FileNotFoundError:
            # Another process has just written the whole and removed the parts.
            return self.finish(jobs, alone=alone)
        for pool in result.pools:
            own = {name: METRICS[name].definition for name in pool.metrics}
            result.protocol.definitions.update(own)
        # What an earlier command lacked may have been there for this one.
        lacking = result.environment.get("unavailable", {})
        known = {name for pool in result.pools for name in pool.unavailable}
        for name in known.union(result.metric_names()):
            lacking.pop(name, None)
        for sequence in result.sequences:
            sequence.points = [replace(p, features={}) for p in sequence.points]
        places = {(j.sequence.set, j.sequence.name): n for n, j in enumerate(jobs)}
        result.sequences.sort(key=lambda s: places.get(s.key, len(places)))
        result.save(self.output)
        found.pop(self.output, None)
        # The whole is written: what cannot be removed is only merged again.
        with suppress(OSError):
            self._remove(found, {job.file for job in jobs})
        return result

    def _remove(self, merged: Mapping[Path, Result], own: set[str]) -> None:
        """Remove what the whole file holds; the rest is of commands that still run.

        Args:
            merged: Parts that are in it.
            own: Names of this command's parts. Another one's have still to be pooled
                if they have features.
        """
        for path, part in merged.items():
            pairs = [pair for _, p in part.all_points() for pair in p.features.values()]
            if pairs and path.name not in own:
                continue
            for decoded, _ in pairs:
                (self.folder / decoded).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        # A job that goes on may use the source's features, which all jobs share.
        rest = list(self.folder.iterdir())
        if all(SOURCE_FEATURES.search(path.name) for path in rest):
            for path in rest:
                path.unlink(missing_ok=True)
            self.folder.rmdir()


def check_sources(
    result: Result, sequences: Sequence["VideoSequence"], max_frames: int | None
) -> None:
    """Refuse points of other videos with the same names.

    Args:
        result: What there is.
        sequences: What is to be measured.
        max_frames: Of each.

    Raises:
        ValueError: A sequence has another size, rate, length or source than the video
            of the same set and name that was measured.
    """
    from datamodules.sequences.files import frames_to_read, source_kind

    stored = {sequence.key: sequence for sequence in result.sequences}
    changes = []
    for new in sequences:
        old = stored.get((new.set, new.name))
        if old is None:
            continue
        # Not every file says how many frames it holds, nor every result its source.
        frames = old.frames
        if new.frames is not None:
            frames = frames_to_read(new, max_frames) or frames
        source = old.source and source_kind(new)
        was = (old.width, old.height, old.fps, old.frames, old.source)
        now = (new.width, new.height, new.fps, frames, source)
        if was != now:
            changes.append(
                f"{new.set}/{new.name} was measured as {_describe(*was)}, and "
                f"{new.path} is {_describe(*now)}"
            )
    if changes:
        raise ValueError(
            f"{'; '.join(changes)}: choose another --output, or --overwrite to discard "
            "it"
        )


def _describe(
    width: int, height: int, fps: object, frames: int, source: str | None
) -> str:
    text = f"{frames} frames of {width}x{height} at {fps} fps"
    return f"{text} ({source})" if source else text


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
