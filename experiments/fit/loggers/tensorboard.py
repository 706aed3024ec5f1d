"""A run's scalars and pictures in TensorBoard."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from experiments.fit.loggers.axis import StageAxis


def check_tensorboard() -> None:
    """Raise ``ValueError`` if the package is not installed."""
    if find_spec("tensorboard") is None:
        raise ValueError(
            "--logger tensorboard needs a package that is not installed: "
            "pip install -e '.[tensorboard]'"
        )


class StageTensorBoardLogger(StageAxis, TensorBoardLogger):
    """One TensorBoard run for all stages of a run, below its folder.

    Each process writes a file of its own. Where it goes on from an earlier one, it says
    so in it, and TensorBoard shows nothing twice.

    Args:
        run_dir: The run's folder.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__(str(run_dir), name="tensorboard", version="")

    @rank_zero_only
    def start_stage(self, stage: str, offset: int, done: int = 0) -> None:
        """Place the coming steps on the axis, and note where the stage begins."""
        super().start_stage(stage, offset, done)
        if self._experiment is None:
            # Whatever earlier files have from this step on comes again.
            self._kwargs["purge_step"] = offset + done + 1
        self.experiment.add_text("stage", stage, offset + done + 1)

    @rank_zero_only
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """Log scalars at a step."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(values, self.run_step(step))
        # Before a checkpoint of this step, lest a kill in between loses them.
        self.experiment.flush()

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[str], step: int | None = None, **_: Any
    ) -> None:
        """Log pictures; takes what ``WandbLogger.log_image`` does, as files."""
        import cv2

        for path in images:
            picture = cv2.imread(path)[..., ::-1]
            place = self.run_step(step)
            self.experiment.add_image(key, picture, place, dataformats="HWC")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Stay open for the next stage."""

    @rank_zero_only
    def save(self) -> None:
        """Write what is waiting, without Lightning's file of hyperparameters."""
        if self._experiment is not None:
            self.experiment.flush()

    @rank_zero_only
    def finish(self) -> None:
        """Close the files; the logger may go on in new ones."""
        if self._experiment is not None:
            self._experiment.close()
            self._experiment = None
