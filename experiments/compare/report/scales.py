"""What each scale of a codec costs and adds, frame by frame.

Source: the figures follow arXiv 2410.02598, Fig. 21 (bits by scale) and Fig. 11
(progressive decoding).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.compare.comparison import Comparison
from experiments.compare.report.strips import (
    QUALITIES,
    comparable_points,
    points_of_sequence,
)
from experiments.results.drawing.figures import NamedFigure, make_figure, shorten
from experiments.results.drawing.tables import metric_name
from experiments.results.result import Point, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
HEIGHT = 5.6

# Characters of a title over the whole width.
TITLE = 84

SHORTEST = 8

PALEST = 0.8
"""End of the colour map that scales are taken from; what follows is lost on white."""


def scale_figures(
    comparison: Comparison, results: Sequence[Result]
) -> Iterator[NamedFigure]:
    """Draw figures of each sequence for which a codec has scales.

    They show ``bits by scale``, and ``progressive decoding`` if that was measured.
    """
    for place in comparison.places():
        _, sequence = place
        if wholes := whole_points(results, *place):
            figure = draw_bits(sequence, wholes)
            yield NamedFigure(place, "bits by scale", f"{sequence}_bits", figure)
        if points := progressive_points(results, *place):
            figure = draw_progressive(sequence, points, comparison.headline)
            file = f"{sequence}_progressive"
            yield NamedFigure(place, "progressive decoding", file, figure)


def whole_points(
    results: Sequence[Result], set: str, sequence: str
) -> dict[str, Point]:
    """Return the codecs' points with all scales whose rates lie closest together."""
    return comparable_points(
        points_of_sequence(
            results, set, sequence, lambda p: p.scales is None and p.scale_bits
        )
    )


def progressive_points(
    results: Sequence[Result], set: str, sequence: str
) -> dict[str, list[Point]]:
    """Return each codec's points of one rate, from few scales to all.

    Rates lie as close together as they can where some scales were decoded too.
    """
    every = points_of_sequence(results, set, sequence, lambda point: True)
    wholes = {}
    for codec, own in every.items():
        progressive = {p.rate_key for p in own if p.scales is not None}
        kept = [p for p in own if p.scales is None and p.rate_key in progressive]
        if kept:
            wholes[codec] = kept
    return {
        codec: sorted(
            (p for p in every[codec] if p.rate_key == whole.rate_key),
            key=lambda point: (point.scales is None, point.scales),
        )
        for codec, whole in comparable_points(wholes).items()
    }


def draw_bits(sequence: str, points: Mapping[str, Point]) -> "Figure":
    """Draw bits per frame stacked by scale, above each scale's share of them."""
    figure, panels = _panels(sequence, points)
    count = max(len(point.scale_bits) for point in points.values())
    for (upper, lower), point in zip(panels, points.values(), strict=True):
        bits = point.scale_bits
        frames = [sum(parts) for parts in zip(*bits, strict=True)]
        _stack(upper, [[b / 1000 for b in part] for part in bits], count)
        shares = [
            [100 * b / frame for b, frame in zip(part, frames, strict=True)]
            for part in bits
        ]
        _stack(lower, shares, count)
        lower.set_ylim(0, 100)
    panels[0][0].set_ylabel("bits per frame (kbit)")
    panels[0][1].set_ylabel("share of the frame (%)")
    labels = [f"scale {n}{' (coarsest)' * (n == 1)}" for n in range(1, count + 1)]
    _add_legend(figure, labels, _colours(count), filled=True)
    return figure


def draw_progressive(
    sequence: str, points: Mapping[str, Sequence[Point]], headline: str
) -> "Figure":
    """Draw bits and PSNR per frame for each number of decoded scales.

    Each codec's points are of one rate, that with all scales last. The PSNR is the
    headline, if it is one that all points have.
    """
    figure, panels = _panels(sequence, {c: own[-1] for c, own in points.items()})
    wanted = sorted(QUALITIES, key=lambda metric: metric != headline)
    every = [point for own in points.values() for point in own]
    metric = next((m for m in wanted if all(m in p.per_frame for p in every)), None)
    count = max(point.scales or len(point.scale_bits) for point in every)
    colours = _colours(count)
    shown = set()
    for (upper, lower), own in zip(panels, points.values(), strict=True):
        for point in own:
            number = point.scales or len(own[-1].scale_bits)
            shown.add(number)
            style: dict[str, Any] = {"color": colours[number - 1], "linewidth": 1.2}
            bits = point.per_frame["bits"]
            upper.plot(range(len(bits)), [b / 1000 for b in bits], **style)
            if metric:
                lower.plot(range(len(bits)), point.per_frame[metric], **style)
        upper.set_ylim(bottom=0)
    panels[0][0].set_ylabel("bits per frame (kbit)")
    if metric:
        panels[0][1].set_ylabel(metric_name(metric))
    labels = ["scale 1 only" if n == 1 else f"scales 1 to {n}" for n in sorted(shown)]
    _add_legend(figure, labels, [colours[n - 1] for n in sorted(shown)], filled=False)
    return figure


def _panels(
    sequence: str, points: Mapping[str, Point]
) -> tuple["Figure", list[list["Axes"]]]:
    """Return a column of two panels for each codec."""
    figure = make_figure(HEIGHT)
    grid = figure.subplots(2, len(points), sharex="col", sharey="row", squeeze=False)
    length = TITLE // len(points)
    for axes, (codec, point) in zip(grid[0], points.items(), strict=True):
        rate = f", rate {point.rate:g}: {point.bpp:.4f} bpp"
        axes.set_title(shorten(codec, max(length - len(rate), SHORTEST)) + rate)
    figure.supxlabel(shorten(f"frame of {sequence}", TITLE), fontsize="medium")
    return figure, [list(column) for column in grid.T]


def _stack(axes: "Axes", parts: Sequence[Sequence[float]], count: int) -> None:
    """Draw bars of which each part stands on those before it."""
    edges = [number - 0.5 for number in range(len(parts[0]) + 1)]
    base = [0.0] * len(parts[0])
    for part, colour in zip(parts, _colours(count), strict=False):
        top = [below + value for below, value in zip(base, part, strict=True)]
        axes.stairs(top, edges, baseline=base, fill=True, color=colour, linewidth=0)
        base = top
    axes.margins(x=0)


def _colours(count: int) -> list[str]:
    """Return a colour for each scale, dark for the coarsest."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    steps = max(count - 1, 1)
    return [to_hex(colormaps["viridis"](PALEST * n / steps)) for n in range(count)]


def _add_legend(
    figure: "Figure", labels: Sequence[str], colours: Sequence[str], filled: bool
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=colour) if filled else Line2D([], [], color=colour)
        for colour in colours
    ]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
