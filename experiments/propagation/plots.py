"""The figures of ``propagation``: one curve per codec and rate, over all sequences."""

from collections.abc import Callable, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.propagation.findings import Finding, Report
from experiments.results.drawing.figures import (
    add_legend,
    figure_style,
    line_style,
    make_figure,
    save_figure,
    set_log_ticks,
    shorten,
)
from experiments.results.drawing.looks import COLOURS, DASHES, MARKERS, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
HEIGHT = 4.4
TWO_PANELS = 6.2

# Characters.
LABEL = 40

FLAT = 0.01
"""Half of the range, in dB, that an axis of differences has at least: where all are 0
it must not look as if they were something."""

INTRA: dict[str, Any] = {"linestyle": (0, (1.5, 1.5)), "alpha": 0.6, "linewidth": 1.2}
"""How all-intra coding is drawn beside a codec's curve."""

Curve = tuple[Finding, dict[str, Any]]
"""What is drawn, and how: arguments of ``Axes.plot``."""


def write_plots(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Write every figure as PNG and SVG.

    Args:
        reports: Names differ.
        folder: Where figures go.

    Returns:
        The PNG files.

    Raises:
        OSError: A file cannot be written.
    """
    paths = []
    looks = _choose_looks(reports)
    with figure_style():
        for test, (name, draw) in FIGURES.items():
            found = {
                report.label(mean.rate): mean
                for report in reports
                for mean in report.means
                if mean.test == test
            }
            if found:
                figure = draw(
                    [(each, line_style(looks[k])) for k, each in found.items()]
                )
                add_legend(figure, {k: shorten(k, LABEL) for k in found}, looks)
                paths.append(save_figure(figure, folder / name)[0])
    return paths


def draw_position(curves: Sequence[Curve]) -> "Figure":
    """Draw EP over the distance from the start of a clip."""
    figure = make_figure(HEIGHT)
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    for found, style in curves:
        axes.plot(found.series["position"], found.series["ep"], **style)
    last = max(int(found.series["position"][-1]) for found, _ in curves)
    ticks = [2**power for power in range(last.bit_length())]
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    _show_zero(axes)
    axes.set_title("PSNR lost with the distance from the start of the clip")
    axes.set_xlabel("frames between the start of the clip and the unit (position)")
    axes.set_ylabel("EP (dB)")
    return figure


def draw_low_reference(curves: Sequence[Curve]) -> "Figure":
    """Draw what frames lose, and cost more, after a unit of low quality."""
    figure = make_figure(TWO_PANELS)
    above, below = figure.subplots(2, 1, sharex=True)
    for found, style in curves:
        offset = found.series["offset"]
        after = [number for number, each in enumerate(offset) if each > 0]
        for axes, name in ((above, "psnr_loss"), (below, "bits_rise")):
            values = found.series[name]
            axes.plot([offset[i] for i in after], [values[i] for i in after], **style)
    for axes in (above, below):
        _show_zero(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
    above.set(
        title="After a unit that was coded at a low rate", ylabel="PSNR lost (dB)"
    )
    below.set(xlabel="frames after it", ylabel="more bits (%)")
    return figure


def draw_frames(curves: Sequence[Curve]) -> "Figure":
    """Draw PSNR over the frames, beside all-intra coding and less that."""
    figure = make_figure(TWO_PANELS)
    above, below = figure.subplots(2, 1, sharex=True)
    for found, style in curves:
        # Markers on a hundred frames would hide the line.
        line = {**style, "marker": ""}
        psnr, intra = found.series["psnr"], found.series["psnr_intra"]
        above.plot(psnr, **line)
        above.plot(intra, **{**line, **INTRA})
        less = [a - b for a, b in zip(psnr, intra, strict=True)]
        below.plot(less, **line)
    _show_zero(below)
    below.xaxis.get_major_locator().set_params(integer=True)
    above.set_title("PSNR over the frames; dotted: all-intra at the same rate")
    above.set_ylabel("PSNR RGB (dB)")
    below.set(xlabel="frame", ylabel="PSNR less all-intra (dB)")
    return figure


def draw_sweep(curves: Sequence[Curve]) -> "Figure":
    """Draw bits over the range of each codec's knob."""
    figure = make_figure(HEIGHT)
    axes = figure.add_subplot()
    for found, style in curves:
        bpp = found.series["bpp"]
        shares = [number / (len(bpp) - 1) for number in range(len(bpp))]
        axes.plot(shares, bpp, **{**style, "markersize": 3})
    axes.set_yscale("log")
    set_log_ticks(axes.yaxis)
    axes.set_title("Rates over the range of the knob")
    axes.set_xlabel("step of the sweep (0: lowest rate, 1: highest)")
    axes.set_ylabel("bits per pixel")
    return figure


FIGURES: dict[str, tuple[str, Callable[[Sequence[Curve]], "Figure"]]] = {
    "position": ("position", draw_position),
    "low_reference": ("low_reference", draw_low_reference),
    "slope": ("frames", draw_frames),
    "sweep": ("sweep", draw_sweep),
}
"""Of each test with a figure, its name and what draws it."""


def _choose_looks(reports: Sequence[Report]) -> dict[str, Look]:
    """Give each codec at each rate a look of its own, the same in every figure."""
    pairs = zip(cycle(product(DASHES, COLOURS)), cycle(MARKERS), strict=False)
    looks = {}
    for report in reports:
        labels = list(map(report.label, report.rates)) or [report.name]
        for label in labels:
            (dashes, colours), marker = next(pairs)
            looks[label] = Look(*colours, marker, dashes)
        # Where all its rates are in one curve.
        looks[report.name] = looks[labels[0]]
    return looks


def _show_zero(axes: "Axes") -> None:
    axes.axhline(0, color="#666666", linewidth=0.8, zorder=0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -FLAT), max(high, FLAT))
