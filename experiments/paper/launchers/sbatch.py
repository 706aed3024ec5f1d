"""Parameters of ``sbatch``, from words as ``partition=gpu`` to what submitit takes."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from experiments.cli.command import nearest

OWN = frozenset(
    {
        *("dependency", "job_name", "ntasks_per_node", "signal_delay_s", "use_srun"),
        *("additional_parameters", "srun_args", "stderr_to_stdout", "teardown"),
        # Each process would see one GPU only, as number 0.
        *("num_gpus", "gpus_per_task", "cpus_per_gpu"),
    }
)
"""Parameters of submitit that the launcher sets, or that do not fit it."""

WHOLE = ("nodes", "cpus_per_task", "array_parallelism")

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::\d+)?")

DAY = 24 * 60

SAVING = 300
"""Seconds before the limit at which jobs are told, as in ``configs/cluster``."""


def read_parameters(words: Sequence[str], known: Collection[str]) -> dict[str, Any]:
    """Return parameters by submitit's names.

    Args:
        words: ``NAME=VALUE``, where a name has ``-`` or ``_``; ``setup``, a line of
            shell that comes before the job, may come several times.
        known: Names that submitit knows.

    Raises:
        ValueError: A name or a value is wrong, or a name comes twice.
    """
    allowed = sorted(set(known) - OWN)
    read: dict[str, Any] = {"time": DAY}
    given: set[str] = set()
    for word in words:
        name, _, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        if key not in allowed:
            why = "is set by the launcher" if key in OWN else "is no parameter"
            raise ValueError(
                f"--slurm {word}: {name} {why}{nearest(key, allowed)}; there are "
                f"{', '.join(allowed)}; sbatch reads others from its own variables, "
                "as SBATCH_RESERVATION"
            )
        if key == "setup":
            read["setup"] = [*read.get("setup", []), value]
            continue
        if key in given:
            raise ValueError(f"--slurm {name} is given twice")
        given.add(key)
        read[key] = _value(key, value, word)
    return read


def _value(key: str, value: str, word: str) -> Any:
    if key == "time":
        return _minutes(value, word)
    if key == "gpus_per_node":
        if not re.fullmatch(r"(\w[\w.-]*:)?[1-9]\d*", value):
            raise ValueError(f"--slurm {word}: it must be a number, or as a100:8")
        return value
    if key in WHOLE:
        if not re.fullmatch(r"[1-9]\d*", value):
            raise ValueError(f"--slurm {word}: it must be a whole number from 1")
        return int(value)
    if key == "exclusive" and value.lower() in ("true", "yes"):
        return True
    if not value:
        raise ValueError(f"--slurm {word} has no value")
    return value


def _minutes(value: str, word: str) -> int:
    """Return minutes of one of sbatch's ways to write a time."""
    found = TIME.fullmatch(value)
    if not found:
        raise ValueError(
            f"--slurm {word}: a time is MINUTES, HOURS:MINUTES:SECONDS or "
            "DAYS-HOURS[:MINUTES[:SECONDS]]"
        )
    first, second = int(found["first"]), int(found["second"] or 0)
    if found["days"]:
        minutes = int(found["days"]) * DAY + first * 60 + second
    elif value.count(":") == 2:
        minutes = first * 60 + second
    else:
        # MINUTES or MINUTES:SECONDS.
        minutes = first
    if minutes < 1:
        raise ValueError(f"--slurm {word}: it must be a minute at least")
    return minutes


def gpus(parameters: Mapping[str, Any]) -> int:
    """Return the GPUs of a node that the parameters ask for; 0 for none."""
    text = parameters.get("gpus_per_node") or parameters.get("gres") or ""
    found = re.search(r"(?:^|gpu:|:)(\d+)$", text)
    return int(found[1]) if found else int(text.endswith("gpu"))


def of_fit(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return parameters of a fit, a task per GPU, and what tells ``fit`` of them."""
    nodes, devices = parameters.get("nodes", 1), gpus(parameters)
    tasks = {"nodes": nodes, "ntasks_per_node": max(1, devices)}
    more = [f"--trainer.num_nodes={nodes}"]
    more += [f"--trainer.devices={devices}"] if devices else []
    return {**parameters, **tasks}, more


def of_one_task(parameters: Mapping[str, Any], *, gpu: bool) -> dict[str, Any]:
    """Return parameters of a job that is one process.

    Args:
        parameters: Those of a fit.
        gpu: Whether it needs a GPU, where there are some.
    """
    own = {**parameters, "nodes": 1, "ntasks_per_node": 1}
    for name in ("gpus_per_node", "gres"):
        if name in own and gpu:
            own[name] = re.sub(r"\d+$", "1", own[name])
        elif name in own and "gpu" in f"{name}{own[name]}":
            del own[name]
    return own
