"""How the values of latents are distributed, one figure for each sequence.

Source: arXiv 2410.02598, Fig. 3: the more concentrated about 0, the fewer bits.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.results.drawing.figures import (
    add_legend,
    figure_style,
    line_style,
    make_figure,
    save_figure,
)
from experiments.results.drawing.looks import COLOURS, DASHES, Look
from experiments.results.drawing.names import FileNames
from experiments.results.result import Histogram, Point, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
ROW = 2.6
LEGEND = 0.9

COLUMNS = 2

SHOWN = 0.999
"""Share of a panel's values that it shows, of the rate with the widest spread."""

LEAST = 3
"""Values to both sides of 0 that a panel shows at least."""


def draw_latents(result: Result, folder: Path) -> Iterator[Path]:
    """Write a figure of each sequence as PNG and SVG, and give the PNGs.

    Args:
        result: Its points with all scales have ``latents``.
        folder: Where figures go.

    Raises:
        OSError: A file cannot be written.
    """
    names = FileNames(folder)
    with figure_style():
        for sequence in result.sequences:
            points = [point for point in sequence.points if point.latents]
            if points:
                title = f"{result.name}, {sequence.set}/{sequence.name}"
                figure = draw_sequence(title, points)
                stem = names.stem(f"{sequence.set}.{sequence.name}")
                yield save_figure(figure, stem)[0]


def draw_sequence(title: str, points: Sequence[Point]) -> "Figure":
    """Draw a panel for each scale, or part of the latent, with a line for each rate."""
    parts = list(dict.fromkeys(name for point in points for name in point.latents))
    rows = -(-len(parts) // COLUMNS)
    figure = make_figure(ROW * rows + LEGEND)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    panels = list(grid.flat)
    looks = {
        f"rate {point.rate:g}, {point.bpp:.4f} bpp": Look(*colours, "", dashes)
        for point, (dashes, colours) in zip(
            points, cycle(product(DASHES, COLOURS)), strict=False
        )
    }
    for axes, part in zip(panels, parts, strict=False):
        own = [point.latents.get(part) for point in points]
        lines = [(h, look) for h, look in zip(own, looks.values(), strict=True) if h]
        _draw_part(axes, part, lines)
    for axes in panels[len(parts) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("share of the values (%)")
    figure.supxlabel(f"value coded, {title}", fontsize="medium")
    add_legend(figure, {label: label for label in looks}, looks)
    return figure


def _draw_part(
    axes: "Axes", part: str, lines: Sequence[tuple[Histogram, Look]]
) -> None:
    from matplotlib.ticker import MaxNLocator

    reach = max(LEAST, *(_reach(histogram) for histogram, _ in lines))
    zeros = []
    for histogram, look in lines:
        counts = dict(zip(histogram.values, histogram.counts, strict=True))
        total = sum(histogram.counts)
        values = range(-reach, reach + 1)
        shares = [100 * counts.get(value, 0) / total for value in values]
        zeros.append(shares[reach])
        edges = [value - 0.5 for value in (*values, reach + 1)]
        style = line_style(look)
        axes.stairs(shares, edges, color=look.colour, linestyle=style["linestyle"])
    span = sorted({f"{min(zeros):.1f}", f"{max(zeros):.1f}"}, key=float)
    axes.set_title(f"{part}: {' to '.join(span)} % are 0", fontsize="medium")
    axes.set_xlim(-reach - 0.5, reach + 0.5)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _reach(histogram: Histogram) -> int:
    """Return the distance from 0 within which all but a few values lie."""
    left = (1 - SHOWN) * sum(histogram.counts)
    pairs = zip(histogram.values, histogram.counts, strict=True)
    for value, count in sorted(pairs, key=lambda pair: -abs(pair[0])):
        left -= count
        if left < 0:
            return abs(value)
    return 0
