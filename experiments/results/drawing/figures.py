"""What all figures share: style, legend, axis labels, files.

Figures are made without pyplot, so no state outlives a call.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from datamodules.whole_files import whole_or_nothing
from experiments.results.drawing.looks import Look

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Any: matplotlib's types for the names differ between its versions.
STYLE: Any = {
    # Names of codecs and sequences are no formulas.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    # The same figure is the same file.
    "svg.hashsalt": "report",
}

# In inches and dots per inch: 1080 pixels wide.
WIDTH = 7.2
DPI = 150

# Characters beside each other in a legend, and what an entry's line takes of them.
LEGEND_WIDTH = 92
LEGEND_LINE = 9

# Inches that each further row of a legend adds to a figure.
LEGEND_ROW = 0.21

LOG_RANGE = 30.0
"""Ratio of most to fewest bits from which a linear axis would squeeze the low end."""

Stems: TypeAlias = dict[tuple[str, str], dict[str, Path]]
"""Paths of figures without suffix, by place, then by what they show."""


@dataclass(frozen=True)
class NamedFigure:
    """A figure of a report.

    Attributes:
        place: Test set, and the metric or sequence.
        what: What it shows of that.
        file: Name of its file among those of the set.
        figure: The figure.
    """

    place: tuple[str, str]
    what: str
    file: str
    figure: "Figure"


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the report's style inside the block, and restore what was before."""
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context():
        # Not the user's own style: a report looks the same everywhere.
        rcdefaults()
        rcParams.update(STYLE)
        yield


def make_figure(height: float) -> "Figure":
    """Return an empty figure of the report's width and ``height`` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def save_figure(figure: "Figure", stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``, whole or not at all.

    Raises:
        OSError: A file cannot be written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    with warnings.catch_warnings():
        # A box stands in its place, which says as much.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Once for both files.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            path = stem.with_name(f"{stem.name}.{suffix}")
            with whole_or_nothing(path) as temporary:
                figure.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)
            paths.append(path)
    return paths


def add_legend(
    figure: "Figure", labels: Mapping[str, str], looks: Mapping[str, Look]
) -> None:
    """Put one legend of the codecs above all axes, which keep their size.

    The figure has a constrained layout; labels and looks are by the codec's name.
    """
    from matplotlib.lines import Line2D

    longest = max(map(len, labels.values())) + LEGEND_LINE
    columns = min(max(1, LEGEND_WIDTH // longest), len(labels))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows - 1))
    figure.legend(
        [Line2D([], [], **line_style(looks[name])) for name in labels],
        # A leading underscore would hide the entry; a space does not show.
        [f" {label}" for label in labels.values()],
        loc="outside upper center",
        ncols=columns,
    )


def line_style(look: Look) -> dict[str, Any]:
    """Return a codec's look as arguments of ``Axes.plot``."""
    return {
        "color": look.colour,
        "marker": look.marker,
        "linestyle": (0, look.dashes) if look.dashes else "-",
    }


def needs_log(bpp: Iterable[float]) -> bool:
    """Tell whether rates range too far for a linear axis."""
    values = list(bpp)
    return max(values) > LOG_RANGE * min(values)


def set_log_ticks(axis: "Axis", crowded: bool = False) -> None:
    """Put plain numbers on a logarithmic axis, of small axes if ``crowded``."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    steps = (1.0, 3.0) if crowded else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def shorten(text: str, length: int) -> str:
    """Cut a text's middle out if it is longer than ``length``."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
