"""One command of a plan, and the record that says it is done."""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from datamodules.whole_files import whole_or_nothing

MODULES = {"export": "fit.export", "exchange": "results.exchange"}
"""Commands whose module has another name."""


@dataclass(frozen=True)
class Job:
    """A command of the suite that makes files.

    Attributes:
        name: What it is called in messages and files: letters, digits and ``_-.``.
        command: Command of ``lvc``.
        arguments: Its arguments. Those that decide nothing of what it makes stand in
            ``free``.
        outputs: What is there when it is done.
        needs: Names of jobs that come before.
        free: Arguments that may change while what is done stays done.
        always: Whether it runs though jobs that it needs failed, on what there is, and
            again each time.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    outputs: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    always: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The command behind ``python -m``."""
        module = MODULES.get(self.command, self.command)
        return f"experiments.{module}", *self.arguments, *self.free

    def shown(self) -> str:
        """Return the command line, for a shell; ``${NAME}`` stays a variable."""
        words = []
        for word in ("python", "-m", *self.words):
            quoted = shlex.quote(word)
            if "${" in word and quoted.startswith("'"):
                quoted = f'"{word}"'
            words.append(quoted)
        return " ".join(words)


class Records:
    """What is done, in a folder: a file for each job that ended, well or not.

    Args:
        folder: Of the records and the logs.
        jobs: All jobs of a plan.
    """

    def __init__(self, folder: Path, jobs: Iterable[Job]) -> None:
        self.folder = folder
        self._jobs = {job.name: job for job in jobs}
        self._marks: dict[str, str] = {}
        graph = {job.name: job.needs for job in self._jobs.values()}
        for name in TopologicalSorter(graph).static_order():
            job = self._jobs[name]
            before = [self._marks[need] for need in job.needs]
            # Without the folder's name: it may be moved.
            words = [word.replace(str(folder.parent), "") for word in job.arguments]
            told = json.dumps([job.command, *words, *before])
            self._marks[name] = hashlib.sha256(told.encode()).hexdigest()[:16]

    def mark(self, name: str) -> str:
        """Return what tells a job, and all before it, from one with other arguments."""
        return self._marks[name]

    def log(self, job: Job) -> Path:
        """Return the file that what a job prints goes to."""
        return self.folder / f"{job.name}.log"

    def is_done(self, job: Job) -> bool:
        """Whether a job ended well with these arguments, and its files are there."""
        if job.always:
            return False
        record = self._read(job)
        return (
            record.get("mark") == self._marks[job.name]
            and "failed" not in record
            and all(output.exists() for output in job.outputs)
        )

    def has_failed(self, job: Job) -> bool:
        """Whether a job with these arguments failed when it ran last."""
        record = self._read(job)
        return record.get("mark") == self._marks[job.name] and "failed" in record

    def write(self, job: Job, seconds: float) -> None:
        """Say that a job ended well."""
        self._write(job, seconds=round(seconds, 1))

    def fail(self, job: Job, code: int) -> None:
        """Say that a job failed, with an exit code; it is done anew."""
        self._write(job, failed=code)

    def _write(self, job: Job, **told: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        mark = self._marks[job.name]
        values = {"mark": mark, "command": job.shown(), **told}
        with whole_or_nothing(self._path(job)) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n")

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def _read(self, job: Job) -> Mapping[str, Any]:
        try:
            values = json.loads(self._path(job).read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            # Whole files only are written: someone changed it, so it says nothing.
            return {}
        return values if isinstance(values, dict) else {}
