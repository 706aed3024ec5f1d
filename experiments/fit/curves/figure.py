"""The curves of a run's stages in one figure, beside the reference's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.compare.comparison import Curve
from experiments.results.drawing.figures import (
    add_legend,
    line_style,
    make_figure,
    needs_log,
    set_log_ticks,
    shorten,
)
from experiments.results.drawing.looks import ANCHOR_COLOUR, DASHES, MARKERS, Look
from experiments.results.drawing.tables import metric_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
NAME = 28
"""Characters of a stage's or reference's name in the legend."""

# Inches.
PANEL_HEIGHT = 2.3
SINGLE_HEIGHT = 4.0

EARLY, LATE = (0xC9, 0xD9, 0xE8), (0x3B, 0x75, 0xAF)
"""Colours of the first and the last finished stage; the others lie between."""

CURRENT_COLOUR = ("#D55E00", "#FF7F3F")


def draw_stages(
    metrics: Mapping[str, Sequence[Curve]], title: str, reference: str | None
) -> "Figure":
    """Draw a panel for each metric, with a line for each stage.

    Points that have more bits and no more quality than another are hollow.

    Args:
        metrics: Curves by metric, of the stages in their order, the running one last;
            the reference's comes first.
        title: Which validation it is.
        reference: Name of the reference's curves.
    """
    names = list(dict.fromkeys(c.codec for curves in metrics.values() for c in curves))
    # The current one lies on top, and at the legend's end.
    current = next(iter(metrics.values()))[-1].codec
    names = [*(name for name in names if name != current), current]
    looks = _looks(names, reference)
    columns = min(COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    height = PANEL_HEIGHT * rows if len(metrics) > 1 else SINGLE_HEIGHT
    figure = make_figure(height + 0.8)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    is_log = needs_log(b for cs in metrics.values() for c in cs for b in c.bpp)
    for axes, curves in zip(grid, metrics.values(), strict=False):
        for curve in curves:
            width = 2.0 if curve.codec in (current, reference) else 1.2
            style = {**line_style(looks[curve.codec]), "linewidth": width}
            # Hollow: measured, but no part of any number read off the curve.
            hollow = {**style, "linestyle": "", "markerfacecolor": "white"}
            for points, how in ((curve.kept, style), (curve.left_out, hollow)):
                x, y = ([v[i] for i in points] for v in (curve.bpp, curve.quality))
                axes.plot(x, y, markersize=4, **how)
        axes.set_title(metric_name(curves[0].metric), fontsize="small")
        axes.tick_params(labelsize="small")
        if is_log:
            axes.set_xscale("log")
            set_log_ticks(axes.xaxis, crowded=columns > 1)
    for axes in grid[len(metrics) :]:
        axes.set_visible(False)
    figure.supxlabel(f"bits per pixel; {title}", fontsize="medium")
    add_legend(figure, {name: shorten(name, NAME) for name in names}, looks)
    return figure


def _looks(names: Sequence[str], reference: str | None) -> dict[str, Look]:
    """Give stages colours from light to dark, the running one its own."""
    finished = [name for name in names[:-1] if name != reference]
    looks = {}
    for number, name in enumerate(finished):
        share = (number + 1) / len(finished)
        mixed = [round(a + share * (b - a)) for a, b in zip(EARLY, LATE, strict=True)]
        colour = "#{:02X}{:02X}{:02X}".format(*mixed)
        looks[name] = Look(colour, colour, ".", ())
    looks[names[-1]] = Look(*CURRENT_COLOUR, "o", ())
    if reference:
        looks[reference] = Look(*ANCHOR_COLOUR, MARKERS[1], DASHES[1])
    return looks
