"""Where a recipe's files lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where a recipe's files lie, below one folder that recipes share.

    Attributes:
        output: That folder.
        name: Name of the recipe.
    """

    output: Path
    name: str

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.output / "runs"

    @property
    def results(self) -> Path:
        """Folder of what is measured."""
        return self.output / "results"

    @property
    def jobs(self) -> Path:
        """Folder of the records of what is done, and of logs."""
        return self.output / "jobs"

    @property
    def table(self) -> Path:
        """Folder of the recipe's own table, report and figures."""
        return self.output / self.name.rpartition("/")[2]
