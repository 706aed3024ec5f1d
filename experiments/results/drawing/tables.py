"""Tables: built once as data, shown in a terminal, in Markdown and in HTML.

    table = Table("Bits", [*words("codec", "set"), *numbers("bpp", spec=".5f")])
    table.rows.append(["UI2C", "uvg", 0.01234])
    print_table(table)
    text = to_markdown(table)
    page = to_html(table)

Cells are values, and their columns say how a value is written. Whatever a cell holds,
it is text in all three, never markup.
"""

import html
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from errno import EPIPE
from typing import TYPE_CHECKING, Any

from callbacks.metrics.table import METRICS

if TYPE_CHECKING:
    from rich.console import Console

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

# Characters. Where output is no terminal nothing may be cut to fit one.
WIDE = 240

# Characters at which numbers and their labels are broken in a terminal.
NUMBER_WIDTH = 16


@dataclass(frozen=True)
class Column:
    """What one column of a table is called and how its values are written.

    Attributes:
        label: At its head; in a terminal it may have several lines.
        spec: Format of its floats, as :func:`format` takes it.
        is_words: Whether it holds words, from the left, and not numbers.
        missing: What stands for ``None``.
    """

    label: str
    spec: str = ".6g"
    is_words: bool = False
    missing: str = ""

    def text(self, value: object) -> str:
        """Write a value; of lists and dictionaries whatever they hold."""
        if value is None:
            return self.missing
        if isinstance(value, float):
            return format(value, self.spec)
        if isinstance(value, list | tuple):
            return ", ".join(map(self.text, value))
        if isinstance(value, dict):
            return ", ".join(f"{key} {self.text(own)}" for key, own in value.items())
        return str(value)


def words(*labels: str, missing: str = "") -> list[Column]:
    """Return columns of words."""
    return [Column(label, is_words=True, missing=missing) for label in labels]


def numbers(*labels: str, spec: str = ".6g", missing: str = "") -> list[Column]:
    """Return columns of numbers that are written alike."""
    return [Column(label, spec, missing=missing) for label in labels]


@dataclass
class Table:
    """A table.

    Attributes:
        title: Above it.
        columns: From the left.
        rows: Values, as many in each row as there are columns.
        notes: Below it, what its marks mean, each beginning with its mark.
        strong: Numbers of the rows that a terminal shows in bold.
    """

    title: str
    columns: Sequence[Column]
    rows: list[list[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strong: set[int] = field(default_factory=set)

    def texts(self) -> list[list[str]]:
        """Return the rows as they are written."""
        return [
            [c.text(value) for c, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]


class Footnotes:
    """Numbers the notes of a table in the order in which they are first needed."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, texts: Iterable[str]) -> str:
        """Return the marks of some notes, to stand behind a number."""
        own = self._numbers
        numbers = sorted({own.setdefault(text, len(own) + 1) for text in texts})
        return "".join(f" {str(n).translate(SUPERSCRIPTS)}" for n in numbers)

    def lines(self) -> list[str]:
        """Return the notes, each behind its mark."""
        return [
            f"{str(number).translate(SUPERSCRIPTS)} {text}"
            for text, number in self._numbers.items()
        ]


def make_console() -> "Console":
    """Return where tables and lines are printed: stdout, wide if no terminal."""
    from rich.console import Console

    class Printing(Console):
        """Leaves it to the command what happens once nobody reads its output."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(EPIPE, os.strerror(EPIPE))

    return Printing(
        width=None if sys.stdout.isatty() else WIDE,
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def print_table(table: Table, console: "Console | None" = None) -> None:
    """Print a table and its notes; nothing if it has no row."""
    from rich import box
    from rich.table import Table as Shown
    from rich.text import Text

    if not table.rows:
        return
    shown = Shown(title=Text(table.title), box=box.SIMPLE_HEAD, title_justify="left")
    for column in table.columns:
        shown.add_column(
            Text(column.label),
            justify="left" if column.is_words else "right",
            # No part of a name or number is cut off.
            overflow="fold",
            max_width=None if column.is_words else NUMBER_WIDTH,
        )
    for number, cells in enumerate(table.texts()):
        style = "bold" if number in table.strong else ""
        shown.add_row(*map(Text, cells), style=style)
    console = console or make_console()
    console.print(shown)
    for note in table.notes:
        console.print(note)


def to_markdown(table: Table, level: int = 2) -> str:
    """Return a heading, the table and its notes; nothing if it has no row."""
    if not table.rows:
        return ""
    labels = [column.label for column in table.columns]
    rule = [":--" if column.is_words else "--:" for column in table.columns]
    cells = [list(map(escape, row)) for row in (labels, *table.texts())]
    lines = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
    heading = f"{'#' * level} {escape(table.title)}"
    return "\n\n".join([heading, "\n".join(lines), *map(escape, table.notes)])


def escape(text: str) -> str:
    """Return text that no Markdown renderer takes for markup."""
    text = re.sub(r"([\\`*\[\]|#])", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_html(table: Table, heading: str = "h2") -> str:
    """Return a section of a page with the table; nothing if it has no row.

    ``heading`` is the element of its title; empty for no title.
    """
    if not table.rows:
        return ""
    title = f"<{heading}>{html.escape(table.title)}</{heading}>" if heading else ""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    kinds = ["words" if column.is_words else "number" for column in table.columns]

    def line(cells: Iterable[str], element: str) -> str:
        parts = [
            f'<{element} class="{kind}">{html.escape(cell)}</{element}>'
            for cell, kind in zip(cells, kinds, strict=True)
        ]
        return f"<tr>{''.join(parts)}</tr>"

    head = line((column.label for column in table.columns), "th")
    body = "".join(line(row, "td") for row in table.texts())
    return (
        f'<section>{title}<div class="wide"><table><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table></div>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</section>"
    )


def metric_name(metric: str) -> str:
    """Return a metric's label with its unit and, if lower is better, that."""
    known = METRICS[metric]
    unit = f" ({known.unit})" if known.unit else ""
    return f"{known.label}{unit}{'' if known.higher_is_better else ', lower is better'}"
