"""Checkpoints of finished stages as W&B's model artifacts."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info

from datamodules.whole_files import whole_or_nothing
from experiments.fit.loggers.choice import uses_wandb
from experiments.fit.loggers.wandb_run import StageWandbLogger
from experiments.fit.options import CheckpointChoice, LoggerChoice
from experiments.fit.run_folder import RunFolder
from experiments.results.drawing.names import safe_name
from lightning_modules.stages import Stage

RECORD = "wandb_checkpoints.txt"
"""File in the run's folder that names the checkpoints which W&B has."""


def check_artifacts(choice: CheckpointChoice, logger: LoggerChoice) -> None:
    """Raise ``ValueError`` if checkpoints are to go to W&B and nothing else does."""
    if choice != "none" and not uses_wandb(logger):
        by = "WANDB_MODE=disabled" if logger == "auto" else f"--logger {logger}"
        raise ValueError(
            f"--tracking.log_checkpoints {choice} is for W&B, which {by} leaves out: "
            "choose --logger offline or online, or log_checkpoints none"
        )


class CheckpointArtifacts:
    """Gives W&B the checkpoints of each stage that has ended, once.

    All of a run are versions of one artifact, with the run's name. Their aliases are
    ``last`` and ``<stage>-last``, ``best`` and ``<stage>-best``. An offline run notes
    where the file lies, and ``wandb sync`` uploads it from there.

    A checkpoint counts as given when its process has ended in order. After a kill it is
    given again, which W&B takes for the same version: its content is the same.

    Args:
        folder: The run's.
        choice: Which files of a stage.
        loggers: The run's.
    """

    def __init__(
        self, folder: RunFolder, choice: CheckpointChoice, loggers: Sequence[Logger]
    ) -> None:
        self.folder = folder
        both = ("last", "best")
        chosen = {"none": (), "all": both}
        self.names: Sequence[str] = chosen.get(choice, (choice,))
        wandb_loggers = [each for each in loggers if isinstance(each, StageWandbLogger)]
        self.logger = wandb_loggers[0] if wandb_loggers else None
        self._record = folder.path / RECORD
        self._given: list[str] = []

    def give(self, stage: Stage) -> None:
        """Give what W&B does not have yet of a stage that has ended."""
        if self.logger is None or not self.names:
            return
        earlier = self._record.read_text().splitlines() if self._record.exists() else []
        for name in self.names:
            path = self.folder.path / stage.name / f"{name}.ckpt"
            place = f"{stage.name}/{path.name}"
            if place not in (*earlier, *self._given) and path.exists():
                self._log(self.logger, stage, name, path)
                self._given.append(place)

    def _log(
        self, logger: StageWandbLogger, stage: Stage, name: str, path: Path
    ) -> None:
        import wandb

        artifact = wandb.Artifact(
            safe_name(self.folder.path.name),
            type="model",
            metadata={"stage": stage.name, "steps": stage.steps, "kind": name},
        )
        # From its place, without a copy: nobody writes to a finished stage's files.
        artifact.add_file(
            str(path.absolute()), name=path.name, policy="immutable", skip_cache=True
        )
        aliases = [name, f"{stage.name}-{name}"]
        logger.experiment.log_artifact(artifact, aliases=aliases)
        size = path.stat().st_size / 1e6
        how = "uploading" if logger.online else "keep it until it is sent"
        rank_zero_info(
            f"W&B artifact {artifact.name}:{aliases[-1]}: {path}, {size:,.1f} MB, {how}"
        )

    def close(self) -> None:
        """Note what was given, after the W&B run was finished."""
        if self._given:
            with whole_or_nothing(self._record) as temporary:
                earlier = self._record.read_text() if self._record.exists() else ""
                lines = [f"{place}\n" for place in self._given]
                temporary.write_text(earlier + "".join(lines))
            self._given = []
