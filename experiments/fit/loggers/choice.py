"""The loggers of a run, by its options: ``metrics.csv``, and W&B or TensorBoard.

All stages share one axis named ``step``: the optimizer steps done since the run began.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from experiments.fit.loggers.metrics_csv import TidyCSVLogger
from experiments.fit.loggers.tensorboard import StageTensorBoardLogger
from experiments.fit.loggers.wandb_run import StageWandbLogger, run_id, why_offline
from experiments.fit.options import LoggerChoice

StageLogger: TypeAlias = TidyCSVLogger | StageWandbLogger | StageTensorBoardLogger


def uses_wandb(logger: LoggerChoice) -> bool:
    """Return whether a run is one of W&B's; ``WANDB_MODE`` can say no to ``auto``."""
    return logger in ("online", "offline") or (
        logger == "auto" and wandb_mode() != "disabled"
    )


def wandb_mode() -> str:
    """Return what ``WANDB_MODE`` says."""
    return os.environ.get("WANDB_MODE", "").lower()


def make_loggers(
    run_dir: str | Path, logger: LoggerChoice = "auto", **init: Any
) -> list[StageLogger]:
    """Return the loggers of a run, to be shared by the Trainers of all its stages.

    ``WANDB_MODE`` and ``WANDB_BASE_URL`` are honoured.

    Args:
        run_dir: The run's folder.
        logger: As ``RunOptions`` has it.
        **init: Of ``wandb.init``: ``project``, ``entity``, ``name``, ``group`` (what
            the run is compared with), ``job_type``, ``tags``, ``config``.

    Raises:
        ValueError: ``online`` is impossible.
    """
    # Only rank 0 writes, and only it should knock at the server.
    if logger == "none" or getattr(rank_zero_only, "rank", None):
        return []
    loggers: list[StageLogger] = [TidyCSVLogger(run_dir)]
    if logger == "tensorboard":
        return [*loggers, StageTensorBoardLogger(run_dir)]
    if not uses_wandb(logger):
        return loggers
    online = False
    offline = wandb_mode() in ("offline", "dryrun")
    if logger == "online" or (logger == "auto" and not offline):
        obstacle = why_offline()
        if obstacle and logger == "online":
            raise ValueError(f"W&B cannot log online: {obstacle}; try logger auto")
        if obstacle:
            rank_zero_info(f"W&B logs offline: {obstacle}")
        online = obstacle is None
    own = run_id(Path(run_dir))
    return [*loggers, StageWandbLogger(run_dir, online, id=own, **init)]


def close_loggers(loggers: Sequence[Logger]) -> None:
    """Close what stays open over the stages of a run."""
    for logger in loggers:
        if isinstance(logger, StageWandbLogger | StageTensorBoardLogger):
            logger.finish()
