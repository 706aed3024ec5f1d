"""Jobs on a cluster with SLURM, all at once; what waits for what is SLURM's to keep."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.whole_files import whole_or_nothing
from experiments.paper.job import Job, Records
from experiments.paper.launchers.queued import TOLD, QueuedJob
from experiments.paper.launchers.sbatch import (
    SAVING,
    of_fit,
    of_one_task,
    read_parameters,
)
from experiments.paper.plan import Plan
from experiments.results.drawing.names import safe_name

TIMEOUTS = 1000
"""How often a job may come to its time limit: a fit of weeks often does."""

ON_A_GPU = ("fit", "evaluate", "propagation", "stream", "profile")
"""Commands that run a network."""

SIGNAL_VARIABLE = "SUBMITIT_PREEMPT_SIGNAL"

EXPORTED = (SIGNAL_VARIABLE, "WANDB_RUN_GROUP")

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol")


def submit(
    plan: Plan,
    records: Records,
    parameters: Sequence[str],
    *,
    cluster: str = "slurm",
    program: Sequence[str] = (sys.executable, "-m"),
) -> int:
    """Submit the jobs that are neither done nor queued, and return the exit code.

    Each begins when those that it needs ended well; the table when all others ended.
    Jobs that need the same ones are an array. One that comes to its time limit is
    queued again and goes on.

    Args:
        plan: The plan.
        records: Of what is done.
        parameters: Of ``sbatch``, as ``partition=gpu``; GPUs and nodes are a fit's.
        cluster: ``slurm``, or ``local`` for submitit's local executor, which knows no
            dependencies: then it waits for jobs before it submits those that need them.
        program: What starts a module.

    Raises:
        ValueError: A parameter is wrong, SLURM or submitit is not there, ``sbatch``
            refuses a job, or a job is queued with other arguments.
    """
    submitit = _load()
    known = submitit.SlurmExecutor._valid_parameters()
    own = read_parameters(parameters, known)
    if cluster == "slurm":
        _check_programs()
    folder = records.folder / "slurm"
    kept = _Kept(records, plan.jobs)
    alive = kept.alive(_in_queue() if cluster == "slurm" else set())
    ids = dict(alive)
    for jobs, needs in _arrays(plan.jobs, records, alive):
        executor = submitit.AutoExecutor(
            folder, cluster, slurm_max_num_timeout=TIMEOUTS
        )
        more = _set_up(executor, jobs, own, plan.recipe.name, [ids[n] for n in needs])
        calls = [QueuedJob(job, records, more, program) for job in jobs]
        try:
            submitted = executor.submit_array(calls)
        except submitit.core.utils.FailedJobError as error:
            names = ", ".join(job.name for job in jobs)
            raise ValueError(f"sbatch refuses {names}: {error}") from error
        for job, sent in zip(jobs, submitted, strict=True):
            after = f", after {', '.join(ids[n] for n in needs)}" if needs else ""
            if records.has_failed(job):
                after += f"; it failed before: {kept.log(job)}"
            print(f"submitted {sent.job_id:10} {job.name}{after}")
        ids |= {j.name: s.job_id for j, s in zip(jobs, submitted, strict=True)}
        kept.keep(jobs, ids)
        if cluster != "slurm":
            for sent in submitted:
                sent.wait()
    _tell(plan, records, len(ids.items() - alive.items()), len(alive), folder)
    return 0


def _load() -> Any:
    """Import submitit, so that it signals jobs as ``fit`` expects it.

    Raises:
        ValueError: It is not installed.
    """
    name = TOLD.name.removeprefix("SIG")
    os.environ[SIGNAL_VARIABLE] = name
    try:
        import submitit
        from submitit.core.job_environment import JobEnvironment
    except ImportError as error:
        raise ValueError(
            "--launcher slurm needs submitit: pip install 'learned-video-codecs[slurm]'"
        ) from error
    # It read the variable when it was imported, which may have been before.
    JobEnvironment.USR_SIG = name
    return submitit


def _check_programs() -> None:
    """Raise ``ValueError`` where SLURM is not."""
    if lost := [name for name in PROGRAMS if not shutil.which(name)]:
        raise ValueError(
            f"--launcher slurm: there is no {lost[0]} on the path: run it on a login "
            "node of the cluster, or take --launcher local or commands"
        )


def _arrays(
    jobs: Sequence[Job], records: Records, alive: Mapping[str, str]
) -> Iterator[tuple[list[Job], list[str]]]:
    """Give jobs to submit, those alike together, and names of those that they wait for.

    All tasks of an array have the same dependencies, so only jobs that need the same
    ones are together.
    """
    done = {job.name for job in jobs if records.is_done(job)}
    level: dict[str, int] = {}
    groups: dict[tuple[int, str, tuple[str, ...]], list[Job]] = {}
    new: list[str] = []
    for job in jobs:
        if job.name in done or (job.name in alive and not job.always):
            continue
        if job.always and not new:
            # Written when the others ended, or soon.
            if job.name in alive or all(path.exists() for path in job.outputs):
                continue
        needs = tuple(need for need in job.needs if need not in done)
        if job.always and job.name in alive:
            # The one that is queued does not wait for what is new.
            needs = (*needs, job.name)
        level[job.name] = 1 + max((level.get(need, 0) for need in needs), default=0)
        group = (level[job.name], "always" if job.always else job.command, needs)
        groups.setdefault(group, []).append(job)
        new.append(job.name)
    for (_, _, needs), together in sorted(groups.items(), key=lambda g: g[0][0]):
        yield together, list(needs)


def _set_up(
    executor: Any, jobs: Sequence[Job], own: dict[str, Any], name: str, after: list[str]
) -> list[str]:
    """Give an executor its parameters; return what jobs are told of them."""
    job = jobs[0]
    more: list[str] = []
    if job.command == "fit":
        own, more = of_fit(own)
    else:
        own = of_one_task(own, gpu=job.command in ON_A_GPU)
    condition = "afterany" if job.always else "afterok"
    dependency = {"dependency": ":".join([condition, *after])} if after else {}
    fixed = {
        "job_name": safe_name(f"{name}-{job.command}"),
        "signal_delay_s": SAVING,
        "stderr_to_stdout": True,
        "srun_args": ["--kill-on-bad-exit=1"],
        # By name, for clusters that hand no environment on.
        "setup": [*map(_export, EXPORTED), *own.get("setup", [])],
        # What needs a job that failed would wait in the queue for good.
        "additional_parameters": {"requeue": True, "kill-on-invalid-dep": "yes"},
    }
    given = {**own, **fixed, **dependency}
    executor.update_parameters(
        **{f"slurm_{key}": value for key, value in given.items()}
    )
    return more


def _export(name: str) -> str:
    return f"export {name}={shlex.quote(os.environ.get(name, ''))}"


def _in_queue() -> set[str]:
    """Return ids of the user's jobs that wait or run.

    Of the queue itself: accounting, which submitit's watcher asks, is minutes late, and
    not every cluster has it.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        raise ValueError(f"{' '.join(command)} failed: {asked.stderr.strip()}")
    return set(asked.stdout.split())


class _Kept:
    """Ids of submitted jobs, in a file beside the records.

    Args:
        records: Of a plan.
        jobs: All of it.
    """

    def __init__(self, records: Records, jobs: Sequence[Job]) -> None:
        self.records = records
        self.jobs = {job.name: job for job in jobs}
        self.path = Path(records.folder, "slurm.json")
        text = self.path.read_text() if self.path.exists() else "{}"
        self.ids: dict[str, dict[str, str]] = json.loads(text)

    def alive(self, queue: set[str]) -> dict[str, str]:
        """Return the ids of this plan's jobs that are in the queue, by name.

        Raises:
            ValueError: One has other arguments now.
        """
        found = {}
        for name, kept in self.ids.items():
            if name not in self.jobs or kept["id"] not in queue:
                continue
            other = kept["mark"] != self.records.mark(name)
            # A table may be of more jobs now.
            if other and not self.jobs[name].always:
                raise ValueError(
                    f"{name} is queued or runs as {kept['id']} with other arguments: "
                    f"wait for it, or end it by `scancel {kept['id']}`"
                )
            found[name] = kept["id"]
        return found

    def log(self, job: Job) -> str:
        """Return the log of a job that was submitted before."""
        number = self.ids.get(job.name, {}).get("id", "ID")
        return str(self.path.parent / "slurm" / f"{number}_0_log.out")

    def keep(self, jobs: Sequence[Job], ids: Mapping[str, str]) -> None:
        """Keep ids of jobs that were just submitted."""
        for job in jobs:
            mark = self.records.mark(job.name)
            self.ids[job.name] = {"id": ids[job.name], "mark": mark}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(self.path) as temporary:
            temporary.write_text(json.dumps(self.ids, indent=1) + "\n")


def _tell(plan: Plan, records: Records, new: int, before: int, folder: Path) -> None:
    for name, reason in plan.left_out.items():
        print(f"left out {name}: {reason}")
    done = sum(records.is_done(job) for job in plan.jobs)
    print(
        f"{new} jobs submitted, {before} were queued or ran, {done} are done\n"
        f"watch them: squeue --me; their logs: {folder}/ID_0_log.out\n"
        f"the table comes to {plan.places.table}; the same command again submits only "
        "what is missing then"
    )
