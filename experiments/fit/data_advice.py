"""What to do about a run that waited for its clips."""

import math
import os

from callbacks.data_wait import LARGE
from datamodules.options import DataOptions
from datamodules.sources.openvid import OpenVidSource
from experiments.cli.command import called_as
from experiments.fit.processes import started_by


def data_advice(share: float, data: DataOptions, cpus: int) -> str:
    """Return a line with the remedy where a run waited long for clips, or nothing.

    Args:
        share: Of the training time that waited, 0 to 1.
        data: The run's.
        cpus: That a device of the run has for itself; see :func:`cpus_of_a_device`.
    """
    if share < LARGE:
        return ""
    # One stays for the training process.
    most = max(cpus - 1, 0)
    now = f"{data.workers} loaders and {cpus} CPUs a device"
    now = now.replace("1 loaders", "1 loader").replace("1 CPUs", "1 CPU")
    remedies = []
    workers = min(_needed(share, data.workers), most)
    if workers > data.workers:
        remedies.append(f"--data.workers {workers}")
    if data.source not in ("synthetic", "stills", "prepared"):
        remedies.append(
            f"`{called_as('prepare')} {data.root} OUT{_as_now(data)}` once, then "
            "--data.source prepared --data.root OUT for the next run"
        )
    text = f"data: training waited {share:.0%} of its time for clips ({now})"
    if not remedies:
        return f"{text}: more CPUs a device would help"
    return f"{text}: try " + ", or ".join(remedies)


def _as_now(data: DataOptions) -> str:
    """Return options with which a store holds what the run reads now, and no more."""
    options: dict[str, str] = {}
    if data.source != "folder":
        options["source"] = data.source
    if data.list_file is not None:
        options["list_file"] = data.list_file
    if data.source == "openvid" and data.stride is None:
        # Stored frames are every third already: the stride of a store is 1.
        options["stride"] = str(OpenVidSource.default_stride)
    if data.source == "vimeo90k":
        # Each is one shot.
        options["threshold"] = "0"
    return "".join(f" --{name} {value}" for name, value in options.items())


def _needed(share: float, workers: int) -> int:
    """Return how many loaders would make clips as fast as training takes them.

    In one step, ``workers`` of them make one batch. Without any, training itself makes
    it in the ``share`` of the step that it waits, and the loaders have the rest.
    """
    if share >= 1:
        return workers + 1
    needed = workers / (1 - share) if workers else share / (1 - share)
    return max(math.ceil(round(needed, 3)), workers + 1)


def cpus_of_a_device(devices: int) -> int:
    """Return how many CPUs each of the ``devices`` processes of this machine has."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    # srun gives each task CPUs of its own.
    return cpus if started_by() == "srun" else max(cpus // devices, 1)
