"""Jobs on this machine, so many at a time."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from experiments.paper.job import Job, Records
from experiments.paper.recipe import with_variables

GRACE = 60.0
"""Seconds that a job has after it is told to end: a fit saves its state."""

POLL = 0.05
"""Seconds between looks at what runs."""

PR_SET_PDEATHSIG = 1
"""Of ``prctl(2)``."""


class Running(Protocol):
    """A process of a job."""

    def code(self) -> int | None:
        """Return the exit code, or ``None`` while it runs."""

    def stop(self, *, by_force: bool) -> None:
        """Tell it to end, or end it."""


Start = Callable[[Job, Path, int, int], Running]
"""Starts a job, whose output is added to a file, in one of so many places."""


@dataclass
class Outcome:
    """What became of the jobs of a plan.

    Attributes:
        done: Names of those that were done before, or are now.
        failed: Their exit codes, by name.
        held: Those that were not started, by name the one that failed.
    """

    done: set[str]
    failed: dict[str, int]
    held: dict[str, str]


def run_locally(
    jobs: Sequence[Job],
    records: Records,
    say: Callable[[str], None],
    *,
    at_once: int = 1,
    start: Start,
    ended: Callable[[Job, Sequence[str]], None] | None = None,
) -> Outcome:
    """Run the jobs that are not done, each after those that it needs.

    A failed job holds those that need it; all others run. If this process ends, however
    that is, so do its jobs, and the same call goes on with them.

    Args:
        jobs: Of a plan, each behind those that it needs.
        records: Of what is done.
        say: Takes a line on what begins and ends.
        at_once: Most jobs that run at a time.
        start: Starts a process for a job.
        ended: Takes a job that ended, well or not, and names of those that run.
    """
    outcome = Outcome({job.name for job in jobs if records.is_done(job)}, {}, {})
    waiting = [job for job in jobs if job.name not in outcome.done]
    count = len(waiting)
    places: list[_Busy | None] = [None] * at_once
    try:
        while waiting or any(places):
            ready = [job for job in waiting if _is_ready(job, outcome)]
            for place, busy in enumerate(places):
                if busy is None and ready:
                    job = ready.pop(0)
                    waiting.remove(job)
                    say(f"begins  {job.name}")
                    process = start(job, records.log(job), place, at_once)
                    places[place] = _Busy(job, process, time.monotonic())
                elif busy and (code := busy.process.code()) is not None:
                    places[place] = None
                    number = count - len(waiting) - sum(map(bool, places))
                    count_of = f"{number}/{count}"
                    say(_end(busy, code, records, outcome, count_of))
                    if ended:
                        ended(busy.job, [each.job.name for each in places if each])
            waiting = _hold(waiting, outcome)
            time.sleep(POLL)
    finally:
        _stop([busy.process for busy in places if busy])
    return outcome


@dataclass
class _Busy:
    """A job that runs."""

    job: Job
    process: Running
    begun: float


def _end(busy: _Busy, code: int, records: Records, outcome: Outcome, ended: str) -> str:
    """Keep what became of a job, and return a line on it."""
    job = busy.job
    seconds = time.monotonic() - busy.begun
    if code or any(not path.exists() for path in job.outputs):
        outcome.failed[job.name] = code
        records.fail(job, code)
        return f"FAILED  {job.name} ({ended}): {_last(records.log(job))}"
    records.write(job, seconds)
    outcome.done.add(job.name)
    return f"done    {job.name} ({ended}, {seconds:.0f} s)"


def _is_ready(job: Job, outcome: Outcome) -> bool:
    lost = outcome.failed.keys() | outcome.held.keys()
    return set(job.needs) <= outcome.done | (lost if job.always else set())


def _hold(waiting: Sequence[Job], outcome: Outcome) -> list[Job]:
    """Leave out jobs that need one which failed; return the others."""
    left = []
    for job in waiting:
        ended = outcome.failed.keys() | outcome.held.keys()
        lost = [need for need in job.needs if need in ended]
        if lost and not job.always:
            outcome.held[job.name] = outcome.held.get(lost[0], lost[0])
        else:
            left.append(job)
    return left


def _stop(processes: Sequence[Running]) -> None:
    """End what runs: politely, and after a while by force."""
    for process in processes:
        process.stop(by_force=False)
    until = time.monotonic() + GRACE
    while any(process.code() is None for process in processes):
        if time.monotonic() > until:
            for process in processes:
                process.stop(by_force=True)
        time.sleep(POLL)


def _last(log: Path) -> str:
    """Return the last line of a log and where it is."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"{lines[-1].strip() if lines else 'it printed nothing'} (all in {log})"


@dataclass
class _Process:
    """A job as a program of its own."""

    process: "subprocess.Popen[bytes]"

    def code(self) -> int | None:
        return self.process.poll()

    def stop(self, *, by_force: bool) -> None:
        self.process.kill() if by_force else self.process.terminate()


def start_process(job: Job, log: Path, place: int, places: int) -> Running:
    """Start ``python -m`` for a job; it ends when this process does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(with_variables, job.words)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **own_gpus(place, places)},
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    return _Process(process)


def own_gpus(place: int, places: int) -> dict[str, str]:
    """Return what gives each of several jobs its share of the GPUs.

    Args:
        place: Of the job, from 0.
        places: How many jobs run at a time. With fewer GPUs than that, jobs share.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        found = [
            path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia?*")
        ]
        gpus = sorted((name for name in found if name.isdigit()), key=int)
    else:
        gpus = [name for name in visible.split(",") if name]
    if places == 1 or not gpus:
        return {}
    share = max(1, len(gpus) // places)
    first = place * share % len(gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[first : first + share])}


def _end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, be it by SIGKILL.

    Else the same command, given again, would find a run that its lost job still holds.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
