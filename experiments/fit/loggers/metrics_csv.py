"""``metrics.csv``: every scalar of a run, in its folder."""

import csv
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from datamodules.whole_files import naming_full, whole_or_nothing
from experiments.fit.loggers.axis import StageAxis

COLUMNS = ("step", "stage", "name", "value")


class TidyCSVLogger(StageAxis, Logger):
    """Append every scalar to ``metrics.csv`` as ``step,stage,name,value``."""

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir, "metrics.csv")

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """None that a reader would need."""
        return ""

    @rank_zero_only
    def start_stage(self, stage: str, offset: int, done: int = 0) -> None:
        """Drop rows beyond the step that a run goes on from; they come again."""
        super().start_stage(stage, offset, done)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_metrics(self.path)
        with (
            whole_or_nothing(self.path) as temporary,
            temporary.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(row for row in rows if row[0] <= offset + done)

    @rank_zero_only
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """Append one row per scalar, all in one write."""
        step = self.run_step(step)
        with naming_full(self.path), self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                (step, self.stage, name, repr(float(value)))
                for name, value in metrics.items()
                if name != "epoch"
            )


def read_metrics(path: Path) -> list[tuple[int, str, str, float]]:
    """Read a ``metrics.csv`` if there is one, without a last line that was left torn.

    Raises:
        ValueError: The file holds no text in lines.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table of a run's scalars ({error}): restore it, or remove "
            "it to go on without its past"
        ) from error
    rows = []
    for fields in lines:
        try:
            step, stage, name, value = fields
            rows.append((int(step), stage, name, float(value)))
        except ValueError:
            # The header, or a line cut short.
            continue
    return rows
