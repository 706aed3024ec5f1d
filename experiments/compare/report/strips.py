"""Bits and quality of each frame, every codec at the closest comparable rate.

Source: the figures follow arXiv 2510.14431, Fig. 6 (bits and PSNR per frame).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from experiments.compare.comparison import Comparison
from experiments.compare.report.plots import looks_of
from experiments.results.drawing.figures import (
    NamedFigure,
    add_legend,
    line_style,
    make_figure,
    set_log_ticks,
    shorten,
)
from experiments.results.drawing.looks import Look
from experiments.results.drawing.tables import metric_name
from experiments.results.result import Point, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
HEIGHT = 5.6

# Characters.
TITLE = 90
NAME = 24

QUALITIES = ("psnr_yuv", "psnr_rgb", "psnr_y")
"""What a strip shows if not the headline: the first that all its codecs have."""

MARKERS_PER_LINE = 12

SPREAD = 0.1
"""Difference of the rates from which a strip warns that it is no fair comparison."""

LOG_RATIO = 20.0
"""Ratio of the largest frame to the median from which bits are drawn on a log axis."""


def comparable_points(points: Mapping[str, Sequence[Point]]) -> dict[str, Point]:
    """Choose one point of each codec so that their rates lie closest together.

    Around each point in turn every codec's nearest in log bpp is taken; the choice
    with the least ratio of most to fewest bits wins, and of equal ones that nearest
    the middle of all points. There may be no codec, but none without points.
    """
    if not points:
        return {}
    everywhere = [math.log(p.bpp) for own in points.values() for p in own]
    middle = sum(everywhere) / len(everywhere)

    def choose(centre: float) -> dict[str, Point]:
        def distance(point: Point) -> float:
            return abs(math.log(point.bpp) - centre)

        return {codec: min(own, key=distance) for codec, own in points.items()}

    def badness(centre: float) -> tuple[float, float]:
        return round(rate_ratio(choose(centre).values()), 6), abs(centre - middle)

    return choose(min(everywhere, key=badness))


def rate_ratio(points: Iterable[Point]) -> float:
    """Return most over fewest bits per pixel of the points."""
    bpp = [point.bpp for point in points]
    return max(bpp) / min(bpp)


def points_of_sequence(
    results: Sequence[Result],
    set: str,
    sequence: str,
    useful: Callable[[Point], object],
) -> dict[str, list[Point]]:
    """Return a sequence's useful points by codec, without codecs that have none."""
    found: dict[str, list[Point]] = {}
    for result in results:
        for entry, point in result.all_points():
            if entry.key == (set, sequence) and useful(point):
                found.setdefault(result.name, []).append(point)
    return found


def per_frame_points(
    results: Sequence[Result], set: str, sequence: str
) -> dict[str, list[Point]]:
    """Return the points of a sequence that say what each frame cost, by codec."""
    return points_of_sequence(results, set, sequence, lambda p: p.per_frame.get("bits"))


def strip_figures(
    comparison: Comparison, results: Sequence[Result]
) -> Iterator[NamedFigure]:
    """Draw a strip of each sequence whose results have values per frame."""
    looks = looks_of(comparison)
    for name, sequence in comparison.places():
        if points := per_frame_points(results, name, sequence):
            closest = comparable_points(points)
            figure = draw_strip(sequence, closest, looks, comparison.headline)
            yield NamedFigure((name, sequence), "per frame", sequence, figure)


def draw_strip(
    sequence: str, points: Mapping[str, Point], looks: Mapping[str, Look], headline: str
) -> "Figure":
    """Draw bits per frame above PSNR per frame, of one point of each codec.

    The PSNR is the headline, if it is one that every codec has.
    """
    figure = make_figure(HEIGHT)
    bits = {codec: point.per_frame["bits"] for codec, point in points.items()}
    wanted = sorted(QUALITIES, key=lambda metric: metric != headline)
    shared = [m for m in wanted if all(m in p.per_frame for p in points.values())]
    panels = figure.subplots(2 if shared else 1, 1, sharex=True, squeeze=False)
    upper = panels[0, 0]
    _draw_frames(upper, {c: [b / 1000 for b in v] for c, v in bits.items()}, looks)
    if _needs_log(list(bits.values())):
        upper.set_yscale("log")
        set_log_ticks(upper.yaxis)
    else:
        upper.set_ylim(bottom=0)
    upper.set_ylabel("bits per frame (kbit)")
    upper.set_title(shorten(f"{sequence}: {_say_rates(points)}", TITLE))
    if shared:
        metric = shared[0]
        lower = panels[1, 0]
        values = {codec: point.per_frame[metric] for codec, point in points.items()}
        _draw_frames(lower, values, looks)
        lower.set_ylabel(metric_name(metric))
    panels[-1, 0].set_xlabel("frame")
    labels = {
        codec: f"{shorten(codec, NAME)}, rate {point.rate:g}: {point.bpp:.4f} bpp"
        for codec, point in points.items()
    }
    add_legend(figure, labels, looks)
    return figure


def _say_rates(points: Mapping[str, Point]) -> str:
    ratio = rate_ratio(points.values())
    if ratio <= 1 + SPREAD:
        return f"closest rates, at most {100 * (ratio - 1):.0f} % apart"
    return f"closest rates, but {100 * (ratio - 1):.0f} % apart: no fair comparison"


def _draw_frames(
    axes: "Axes", values: Mapping[str, Sequence[float]], looks: Mapping[str, Look]
) -> None:
    for number, (codec, own) in enumerate(values.items()):
        # Markers of neighbours would touch; a few tell the lines apart.
        every = max(1, len(own) // MARKERS_PER_LINE)
        first = number * every // len(values)
        style = {
            **line_style(looks[codec]),
            "linewidth": 1.2,
            "markersize": 4,
            "markevery": (first, every),
        }
        axes.plot(range(len(own)), own, **style)
    axes.margins(x=0.01)


def _needs_log(bits: Sequence[Sequence[float]]) -> bool:
    values = sorted(b for own in bits for b in own)
    if values[0] <= 0:
        return False
    return values[-1] > LOG_RATIO * values[len(values) // 2]
