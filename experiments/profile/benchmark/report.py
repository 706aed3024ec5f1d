"""The figures as one JSON file and one Markdown table, whole after each part."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.whole_files import whole_or_nothing
from experiments.profile.benchmark.figures import Figure
from experiments.profile.benchmark.part import Outcome
from experiments.results.drawing.tables import Table, numbers, to_markdown, words


@dataclass
class Report:
    """All that a command measured.

    Attributes:
        form: ``small`` or ``full``.
        machine: See :func:`describe_machine`.
        unfinished: Parts that have still to run; those are missing if the command was
            stopped.
        outcomes: Of the parts that ran.
    """

    form: str
    machine: dict[str, Any]
    unfinished: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something went wrong."""
        return any(outcome.errors for outcome in self.outcomes)

    def write(self, path: Path) -> None:
        """Write ``path`` and, beside it, the same as Markdown.

        Raises:
            OSError: A file cannot be written.
        """
        text = json.dumps(asdict(self), indent=2, allow_nan=False)
        for place, content in (
            (path, text),
            (path.with_suffix(".md"), self.to_markdown()),
        ):
            with whole_or_nothing(place) as temporary:
                temporary.write_text(content + "\n")

    def to_markdown(self) -> str:
        """Return a page: the machine, a table for each part, what went wrong."""
        machine = Table("Machine", words("what", "value"))
        machine.rows = [[k, v] for k, v in self.machine.items()]
        parts = [f"# Benchmark, {self.form} form", to_markdown(machine)]
        if self.unfinished:
            parts.append(f"**Unfinished**: {', '.join(self.unfinished)}")
        for outcome in self.outcomes:
            parts.append(to_markdown(figure_table(outcome.name, outcome.figures)))
            parts += [f"* **failed**: {text}" for text in outcome.errors]
        return "\n\n".join(filter(None, parts))


def figure_table(part: str, figures: Sequence[Figure]) -> Table:
    """Return a part's figures as a table."""
    columns = [*words("figure"), *numbers("value", spec=".4g", missing="-")]
    columns += words("unit", "goal", "conditions")
    rows = [
        [f.name, f.value, f.unit, f.goal, f"failed: {f.error}" if f.error else f.note]
        for f in figures
    ]
    return Table(part, columns, rows)
