"""RD curves: one figure per set and metric, and one of the set's sequences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import Comparison, Curve
from experiments.results.drawing.figures import (
    NamedFigure,
    add_legend,
    line_style,
    make_figure,
    needs_log,
    set_log_ticks,
    shorten,
)
from experiments.results.drawing.looks import Look, choose_looks
from experiments.results.drawing.tables import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3

# Characters.
SEQUENCE_NAME = 28
CODEC_NAME = 36

# Inches.
SET_HEIGHT = 4.6
SEQUENCE_HEIGHT = 2.3
TITLE_HEIGHT = 0.8


def looks_of(comparison: Comparison) -> dict[str, Look]:
    """Return line and marker of each codec, the same in every figure."""
    return choose_looks(comparison.names, comparison.anchor)


def plotted_metrics(metrics: Sequence[str]) -> list[str]:
    """Return the metrics worth a figure.

    Not unrounded ones whose curves would lie on those of their rounded twins, nor
    MS-SSIM as a fraction where it is there in dB.
    """
    twins = {f"{metric}_unrounded" for metric in metrics}
    fractions = {metric.removesuffix("_db") for metric in metrics if "_db" in metric}
    return [m for m in metrics if m not in twins | fractions]


def rd_figures(comparison: Comparison) -> Iterator[NamedFigure]:
    """Draw every RD figure, by set and metric.

    They show the ``mean`` curves, if the set has any, and its ``sequences``, if there
    are several.
    """
    looks = looks_of(comparison)
    for metric in plotted_metrics(comparison.metrics):
        for name, sequences in comparison.sets.items():
            place, means = (name, metric), mean_curves(comparison, name, metric)
            singles = [
                curve
                for curve in comparison.curves
                if (curve.set, curve.metric) == place and curve.sequence is not None
            ]
            if means:
                figure = draw_set(means, name, len(sequences), looks)
                yield NamedFigure(place, "mean", metric, figure)
            if singles and (len(sequences) > 1 or not means):
                figure = draw_sequences(singles, looks)
                yield NamedFigure(place, "sequences", f"{metric}_sequences", figure)


def draw_set(
    curves: Sequence[Curve], name: str, count: int, looks: Mapping[str, Look]
) -> "Figure":
    """Draw the mean curves of a set of ``count`` sequences, all in one metric."""
    figure = make_figure(SET_HEIGHT)
    axes = figure.add_subplot()
    _draw_curves(axes, curves, looks)
    together = "all of" if METRICS[curves[0].metric].pooled else "mean of"
    over = f"{together} {count} sequences" if count > 1 else "1 sequence"
    axes.set_title(f"{name}, {over}")
    axes.set_xlabel("rate (bits per pixel)")
    axes.set_ylabel(metric_name(curves[0].metric))
    if needs_log(bpp for curve in curves for bpp in curve.bpp):
        axes.set_xscale("log")
        set_log_ticks(axes.xaxis)
    add_legend(figure, _labels(curves), looks)
    return figure


def mean_curves(comparison: Comparison, name: str, metric: str) -> list[Curve]:
    """Return the codecs' mean curves of a set; empty if its sequences have none."""
    wanted = name, metric, None
    return [c for c in comparison.curves if (c.set, c.metric, c.sequence) == wanted]


def draw_sequences(curves: Sequence[Curve], looks: Mapping[str, Look]) -> "Figure":
    """Draw the curves of a set's sequences, small, each on its own axes."""
    sequences: dict[str | None, list[Curve]] = {}
    for curve in curves:
        sequences.setdefault(curve.sequence, []).append(curve)
    columns = min(COLUMNS, len(sequences))
    rows = -(-len(sequences) // columns)
    figure = make_figure(TITLE_HEIGHT + SEQUENCE_HEIGHT * rows)
    is_log = any(needs_log(b for c in cs for b in c.bpp) for cs in sequences.values())
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (sequence, own) in zip(grid, sequences.items(), strict=False):
        _draw_curves(axes, own, looks)
        axes.set_title(shorten(str(sequence), SEQUENCE_NAME), fontsize="small")
        axes.tick_params(labelsize="small")
        if is_log:
            axes.set_xscale("log")
            set_log_ticks(axes.xaxis, crowded=True)
    for axes in grid[len(sequences) :]:
        axes.set_visible(False)
    figure.supxlabel("rate (bits per pixel)", fontsize="medium")
    figure.supylabel(metric_name(curves[0].metric), fontsize="medium")
    add_legend(figure, _labels(curves), looks)
    return figure


def _labels(curves: Sequence[Curve]) -> dict[str, str]:
    return {curve.codec: shorten(curve.codec, CODEC_NAME) for curve in curves}


def _draw_curves(
    axes: "Axes", curves: Sequence[Curve], looks: Mapping[str, Look]
) -> None:
    for curve in curves:
        style = line_style(looks[curve.codec])
        # Hollow: drawn, but no part of any BD number.
        hollow = {**style, "linestyle": "", "markerfacecolor": "white"}
        for points, how in ((curve.kept, style), (curve.left_out, hollow)):
            x, y = ([each[i] for i in points] for each in (curve.bpp, curve.quality))
            axes.plot(x, y, **how)
