"""Results of jobs on disk, until the last one is there.

Each finished job is a result file of its own in ``NAME.parts/``; when the last one is
there, whichever process finished it puts them together to ``NAME.json``, and compares
what was left for FID and KID. So jobs run in any order, in several processes or on
several machines that share a disk, and an interrupted command goes on with what is
missing. A lock keeps two that finish together from writing the whole without each
other's points.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from callbacks.metrics.table import METRICS
from datamodules.sequences.files import VideoSequence, frames_to_read, source_kind
from experiments.cli.lock import LockedError, locked
from experiments.evaluate.job import Job
from experiments.results.joining import merge
from experiments.results.result import Result, ResultError

SOURCE_FEATURES = re.compile(r"\.source\.[^.]+\.npy$")

LOCK = ".lock"
"""Name of the files that are locked: in the folder, and in that of each job."""

CODING = "coding-"
"""What the names of jobs' own folders begin with."""


@contextmanager
def job_folder(output: Path) -> Iterator[Path]:
    """Give a folder for one job, which is removed at its end.

    It is locked, so that the next command of the output can tell that its process was
    killed; see :meth:`Parts.clear`.
    """
    folder = output.with_suffix(".parts")
    with ExitStack() as stack:
        with locked(folder / LOCK, wait=True):
            own = stack.enter_context(TemporaryDirectory(prefix=CODING, dir=folder))
            stack.enter_context(locked(Path(own, LOCK)))
        yield Path(own)


class Parts:
    """The finished jobs of one output file, on disk.

    Args:
        output: The result file in the end.
        empty: A result without sequences: whose points these are.
    """

    def __init__(self, output: Path, empty: Result) -> None:
        self.output = output
        self.folder = output.with_suffix(".parts")
        self.empty = empty

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing, and remove the folder if it is empty."""
        path = self.folder / LOCK
        with locked(path, wait=True):
            try:
                yield
            finally:
                # What cannot be removed is only looked at again.
                with suppress(OSError):
                    rest = [each for each in self.folder.iterdir() if each != path]
                    # A job that goes on may use the source's features, which all share.
                    if all(SOURCE_FEATURES.search(each.name) for each in rest):
                        for each in (*rest, path):
                            each.unlink(missing_ok=True)
                        self.folder.rmdir()

    def clear(self) -> None:
        """Remove the folders of jobs whose processes were killed, and an empty one."""
        if not self.folder.exists():
            return
        with self.lock():
            for path in self.folder.glob(f"{CODING}*/{LOCK}"):
                try:
                    with locked(path) as held:
                        # Without locks nobody knows whether its process lives.
                        if held:
                            # It may have ended just now, and removes it itself.
                            shutil.rmtree(path.parent, ignore_errors=True)
                except LockedError:
                    continue

    def load(self) -> Result:
        """Return all points that exist, as one result.

        Raises:
            ValueError: What is there belongs to another codec or protocol.
        """
        return merge(self.empty, list(self.read().values()))

    def read(self) -> dict[Path, Result]:
        """Return what each part holds, and the whole file; see :meth:`load`."""
        # Parts first: whoever removes them has written the whole file before.
        paths = sorted(self.folder.glob("*.json"))
        found = {path: _load(path) for path in [*paths, self.output]}
        results = {path: result for path, result in found.items() if result}
        for result in results.values():
            self._check(result)
            self._forget_lost_features(result)
        return results

    def _check(self, result: Result) -> None:
        wanted, found = map(_identity, (self.empty, result))
        differing = [
            f"{name} {found.get(name)!r}, not {wanted.get(name)!r}"
            for name in {**wanted, **found}
            if found.get(name) != wanted.get(name)
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
        with self.lock():
            result.save(self.folder / job.file)

    def count(self, jobs: Sequence[Job], missing: Sequence[Job]) -> int:
        """Return how many jobs are done, by whichever process.

        Args:
            jobs: All of the command.
            missing: Those that were not done when it began.
        """
        if self.output.exists() and not self.folder.exists():
            # The last process has put all of them together.
            return len(jobs)
        done = sum((self.folder / job.file).exists() for job in missing)
        return len(jobs) - len(missing) + done

    def finish(
        self, result: Result, merged: Mapping[Path, Result], jobs: Sequence[Job]
    ) -> None:
        """Write the whole file, and remove the parts that it holds; under the lock.

        Args:
            result: Has the points and the pools of all jobs.
            merged: What :meth:`read` gave for it.
            jobs: All of the command.
        """
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
        parts = {path: part for path, part in merged.items() if path != self.output}
        # The whole is written: what cannot be removed is only merged again.
        with suppress(OSError):
            self._remove(parts, {job.file for job in jobs})

    def _remove(self, merged: Mapping[Path, Result], own: set[str]) -> None:
        """Remove merged parts; the rest is of commands that still run.

        Parts that are not this command's ``own`` have still to be pooled if they have
        features.
        """
        for path, part in merged.items():
            pairs = [pair for _, p in part.all_points() for pair in p.features.values()]
            if pairs and path.name not in own:
                continue
            for decoded, _ in pairs:
                (self.folder / decoded).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def check_sources(
    result: Result, sequences: Sequence[VideoSequence], max_frames: int | None
) -> None:
    """Refuse points of other videos with the same names.

    Args:
        result: What there is.
        sequences: What is to be coded.
        max_frames: Of each.

    Raises:
        ValueError: A sequence has another size, rate, length or source than the video
            of the same set and name that was coded.
    """
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


def _identity(result: Result) -> dict[str, Any]:
    """Return what parts of one file have in common."""
    codec = {f"codec.{key}": value for key, value in result.codec.items()}
    protocol = {f"protocol.{k}": v for k, v in vars(result.protocol).items()}
    del protocol["protocol.definitions"]  # They are known once something is assessed.
    return {"name": result.name, **codec, **protocol}
