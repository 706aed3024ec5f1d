"""What a scheduler's node runs of a plan: one job, which is queued again in time."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.paper.job import Job, Records
from experiments.paper.recipe import with_variables

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

TOLD = signal.SIGUSR1
"""What a cluster sends ahead of the end: ``fit`` saves at it, other commands end."""

ENDED_AS_TOLD = (-TOLD, 128 + TOLD)
"""Exit codes of a command that ended at that signal."""

GRACE = 60.0
"""Seconds in which this process is told too, if its command ended as told."""


class QueuedJob:
    """A job, as submitit runs it: ``python -m`` in a process of its own.

    It is pickled, and each task of the job calls it. The first of them writes the
    record that the job is done.

    Args:
        job: The job.
        records: Of the plan.
        more: Arguments that say where it runs, and decide nothing of what it makes.
        program: What starts a module, as ``python -m``.
        seconds: How long it ran before it was queued again.
    """

    def __init__(
        self,
        job: Job,
        records: Records,
        more: Sequence[str],
        program: Sequence[str],
        seconds: float = 0.0,
    ) -> None:
        self.job = job
        self.records = records
        self.more = more
        self.program = program
        self.seconds = seconds
        self._begun: float | None = None
        self._pid: int | None = None

    def __call__(self) -> None:
        """Run the job.

        Raises:
            RuntimeError: It failed, or made nothing.
        """
        from submitit import JobEnvironment

        self._begun = time.monotonic()
        words = [*map(with_variables, self.job.words), *self.more]
        process = subprocess.Popen([*self.program, *words])
        self._pid = process.pid
        code = process.wait()
        first = JobEnvironment().global_rank == 0
        if code in ENDED_AS_TOLD:
            # The first task is told as well, queues the job again and ends here.
            time.sleep(GRACE)
            if not first:
                return
        lost = [str(path) for path in self.job.outputs if not path.exists()]
        if first and (code or lost):
            self.records.fail(self.job, code)
        if code:
            raise RuntimeError(
                f"{self.job.name} ended with {code}; its command: {self}"
            )
        if not first:
            return
        if lost:
            raise RuntimeError(
                f"{self.job.name} did not make {', '.join(lost)}: {self}"
            )
        self.records.write(self.job, self._ran())

    def checkpoint(self) -> "DelayedSubmission":
        """Return what runs when the job is queued again, after its command has saved.

        submitit calls it in the first task when the cluster's signal comes.
        """
        from submitit.helpers import DelayedSubmission

        if self._pid is not None:
            try:
                # SLURM tells all processes of a job; others only the one they started.
                os.kill(self._pid, TOLD)
                # Popen's own wait is interrupted by this, and holds its lock.
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
            except (ProcessLookupError, ChildProcessError):
                # It has ended.
                pass
        again = QueuedJob(self.job, self.records, self.more, self.program, self._ran())
        return DelayedSubmission(again)

    def _ran(self) -> float:
        now = time.monotonic()
        return self.seconds + (0 if self._begun is None else now - self._begun)

    def __str__(self) -> str:
        return " ".join([self.job.shown(), *self.more])
