"""Tables of text, shown alike in ``report.md`` and in the page."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from callbacks.metrics.table import METRICS

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass
class Table:
    """A table.

    Attributes:
        title: Above it.
        header: One text per column.
        rows: Texts; as many in each row as in the header.
        notes: What its marks mean, each beginning with its mark.
        texts: Number of columns from the left that hold words; the others hold
            numbers.
    """

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: int = 1


class Footnotes:
    """Numbers the notes of a table in the order in which they are first needed."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, texts: Iterable[str]) -> str:
        """Return the marks of some notes, to stand behind a number."""
        numbers = sorted({self._number(text) for text in texts})
        return "".join(f" {str(n).translate(SUPERSCRIPTS)}" for n in numbers)

    def _number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers) + 1)

    def lines(self) -> list[str]:
        """Return the notes, each behind its mark."""
        return [
            f"{str(number).translate(SUPERSCRIPTS)} {text}"
            for text, number in self._numbers.items()
        ]


def metric_name(metric: str) -> str:
    """Return a metric's label with its unit and, if lower is better, that."""
    known = METRICS[metric]
    unit = f" ({known.unit})" if known.unit else ""
    return f"{known.label}{unit}{'' if known.higher_is_better else ', lower is better'}"


def percent(value: float) -> str:
    """Write a BD-rate, with the two decimals of the papers."""
    return f"{value:+.2f} %"


def significant(value: float, digits: int = 4) -> str:
    """Write a number with so many digits, without exponent where it is readable."""
    return f"{value:.{digits}g}"


def as_text(value: object) -> str:
    """Write any value of a result file."""
    if isinstance(value, float):
        return significant(value, 6)
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    return "not stated" if value is None else str(value)
