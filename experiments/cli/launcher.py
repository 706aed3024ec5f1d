"""What torchrun or SLURM say of this process, and of how many there are."""

import os
import re


def first_gpu(workers: int) -> int:
    """Return the number of the first GPU of this process, by its place on the node."""
    local = "LOCAL_RANK" if "LOCAL_RANK" in os.environ else "SLURM_LOCALID"
    return (_number(local) if local in os.environ else 0) * workers


def rank_and_world() -> tuple[int, int]:
    """Return this process's number and how many there are, as its launcher says.

    Read from the variables of ``torchrun`` (RANK, WORLD_SIZE) or of SLURM's ``srun``;
    a batch script outside of ``srun`` is one process, however many tasks it may start.

    Raises:
        ValueError: A variable is no number, or the rank none of the world's.
    """
    launchers = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
    for names in launchers:
        if all(name in os.environ for name in names):
            rank, world = map(_number, names)
            if rank >= world:
                raise ValueError(
                    f"{names[0]} is {rank}, it must be below {names[1]}, which is "
                    f"{world}"
                )
            return rank, world
    return 0, 1


def is_first_process() -> bool:
    """Return whether this is the one that speaks, of those that do a job together.

    Known from the environment alone, before torch is loaded. Where torchrun started
    it, its RANK decides: it may number nodes otherwise than SLURM does. The others
    are of Lightning, which starts the processes of a node itself, and of ``srun``.
    """
    others = ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")
    ranks = ("RANK",) if "RANK" in os.environ else others
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def _number(variable: str) -> int:
    """Return what an environment variable says, a whole number from 0."""
    text = os.environ[variable]
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(
            f"the environment variable {variable} is {text!r}, it must be a whole "
            "number: unset it, or start the processes with torchrun or srun"
        )
    return int(text)
