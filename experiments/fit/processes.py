"""The processes that train together: who starts them, and how many there must be."""

import os
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from experiments.cli.launcher import rank_and_world
from experiments.fit.options import TrainerOptions


class SrunEnvironment(SLURMEnvironment):
    """The tasks of one ``srun``, however their number was given.

    Lightning's own reads the job's variables, which a script has too, and refuses
    ``--ntasks``; :func:`make_trainer` compares with the step's.
    """

    def __init__(self) -> None:
        # Requeuing is the job script's; Lightning's own can die in mid-save.
        super().__init__(auto_requeue=False)

    @staticmethod
    def _validate_srun_used() -> None:
        pass

    @staticmethod
    def _validate_srun_variables() -> None:
        pass

    def world_size(self) -> int:
        """Return the number of tasks."""
        return rank_and_world()[1]

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accept them; they were compared."""


def started_by() -> str:
    """Return ``torchrun``, ``srun`` or, for a plain process, nothing.

    One task of ``srun`` is a plain process: nothing else was started. So is one in a
    job's script or an interactive allocation, whose variables tell of tasks that
    ``srun`` could start.
    """
    if TorchElasticEnvironment.detect():
        return "torchrun"
    several = "SLURM_STEP_NUM_TASKS" in os.environ and rank_and_world()[1] > 1
    return "srun" if several else ""


def is_one_of_several() -> bool:
    """Return whether others were started as this process was.

    One of them must not end by itself: the others would wait for it.
    """
    return bool(started_by()) or LightningEnvironment().creates_processes_externally


def check_nodes(nodes: int) -> None:
    """Raise ``ValueError`` where nothing starts the other nodes' processes."""
    if nodes > 1 and not is_one_of_several():
        raise ValueError(
            f"--trainer.num_nodes {nodes} would wait for ever, as nothing starts the "
            f"processes of the other nodes: start it with srun, or with torchrun "
            f"--nnodes {nodes} on each node"
        )


def make_trainer(options: TrainerOptions, precision: str, **more: Any) -> Trainer:
    """Return a Trainer on the devices that the options name.

    Args:
        options: Say where it trains.
        precision: In which precision.
        more: Further arguments of the Trainer.

    Raises:
        ValueError: This machine lacks what they ask for, or another number of
            processes was started.
    """
    environment = _environment()
    plugins = [*more.pop("plugins", []), *([environment] if environment else [])]
    try:
        trainer = Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            precision=precision,  # type: ignore[arg-type]
            benchmark=options.benchmark,
            deterministic=options.deterministic,
            plugins=plugins,
            **more,
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise ValueError(
            f"trainer: {error} (accelerator {options.accelerator}, devices "
            f"{options.devices}, strategy {options.strategy}; this machine has "
            f"{torch.cuda.device_count()} GPUs)"
        ) from error
    _check_number(trainer)
    return trainer


def _environment() -> ClusterEnvironment | None:
    """Return what tells a process its rank; None where Lightning finds it itself."""
    launcher = started_by()
    if launcher == "srun":
        return SrunEnvironment()
    # Lightning would take a job's script for one of the tasks that it asks for.
    plain = not launcher and "SLURM_NTASKS" in os.environ
    return LightningEnvironment() if plain else None


def _check_number(trainer: Trainer) -> None:
    """Raise ``ValueError`` if a launcher started more or fewer than there are devices.

    Each of them would train alone, or wait for those that never come.
    """
    launcher = started_by()
    if not launcher:
        return
    _, world = rank_and_world()
    devices, nodes = trainer.num_devices, trainer.num_nodes
    # torchrun does not say on how many.
    started_on = int(os.environ.get("SLURM_STEP_NUM_NODES") or nodes)
    if launcher == "torchrun":
        started_on = nodes
    if (world, started_on) == (devices * nodes, nodes):
        return
    starts = {
        "srun": f"srun --nodes {nodes} --ntasks-per-node {devices}",
        "torchrun": f"torchrun --nnodes {nodes} --nproc_per_node {devices}",
    }
    each, rest = divmod(world, started_on)
    mend = f"start it with {starts[launcher]}"
    if not rest:
        mend += f", or give --trainer.devices {each}"
        mend += f" --trainer.num_nodes {started_on}" if started_on != nodes else ""
    raise ValueError(
        f"{launcher} started {world} processes"
        + (f" on {started_on} nodes" if started_on != nodes else "")
        + f", and --trainer.devices {devices} --trainer.num_nodes {nodes} are "
        f"{devices * nodes}: {mend}"
    )
