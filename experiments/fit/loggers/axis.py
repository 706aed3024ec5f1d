"""The one step axis of all stages of a run."""

from typing import Any


class StageAxis:
    """The one step axis of all stages.

    Attributes:
        stage: Name of the running stage.
        offset: Steps of the finished stages.
    """

    stage: str = ""
    offset: int = 0

    def start_stage(self, stage: str, offset: int, done: int = 0) -> None:
        """Place the coming steps on the axis, after ``done`` ones of this stage."""
        self.stage, self.offset = stage, offset

    def run_step(self, step: int | None) -> int:
        """Return the place on the axis of what Lightning calls ``step``.

        Lightning numbers the step that was just done from 0; the axis counts steps
        done, like ``CodecModule.run_step``.
        """
        return self.offset + (0 if step is None else step + 1)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` and the W&B run hold them from the beginning."""
