"""Quality, bits and decoded scales over the frames, and quality over loss rates.

Source: the figures follow arXiv 2410.02598, Figs 12, 13 and 22.
"""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from experiments.results.drawing.figures import (
    add_legend,
    figure_style,
    line_style,
    make_figure,
    save_figure,
)
from experiments.results.drawing.looks import ANCHOR_COLOUR, COLOURS, DASHES, Look
from experiments.stream.runs import Curve, FrameResult, Run, curves_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOST = {"marker": "X", "markersize": 7, "markeredgecolor": "white"}
"""How frames are marked that lost a packet."""

ANEW = {"marker": "^", "markersize": 10, "markeredgecolor": "white"}
"""How frames are marked that were coded anew; what they lost can be seen on top."""

LAYERS = (DASHES[0], DASHES[0], DASHES[1], DASHES[2])
"""Dashes of what lies on what: progressive, with echo, without echo, no loss."""

# Inches.
FRAMES_HEIGHT = 6.4
RATES_HEIGHT = 4.4

# Of the panels: quality, bits, scales.
RATIOS = (3.0, 2.0, 1.2)

SPREAD_OPACITY = 0.18
HEADROOM = 1.08

Value = Callable[[FrameResult], float]

PANELS: tuple[tuple[str, Value], ...] = (
    ("PSNR RGB (dB)", lambda frame: frame.psnr_rgb),
    ("bits per frame\nwith parity (kbit)", lambda frame: frame.bits / 1000),
    ("scales\ndecoded", lambda frame: frame.scales),
)


def write_plots(runs: Sequence[Run], title: str, folder: Path) -> None:
    """Write every figure as PNG and SVG.

    Args:
        runs: One without loss among them.
        title: What was sent.
        folder: Where figures go.

    Raises:
        OSError: A file cannot be written.
    """
    curves = curves_of(runs)
    looks = choose_curve_looks(curves)
    always = [curve for curve in curves if curve[0].loss_rate is None]
    rates = list(dict.fromkeys(r.loss_rate for r in runs if r.loss_rate is not None))
    with figure_style():
        if not rates:
            save_figure(draw_frames(always, title, looks), folder / "frames")
        for rate in rates:
            own = [*always, *(c for c in curves if c[0].loss_rate == rate)]
            stem, subtitle = f"frames_loss_{rate:g}", f"{title}, loss rate {rate:g}"
            seeds = [r.seed for curve in own for r in curve if r.kind == "loss"]
            if len(set(seeds)) > 1:
                save_figure(draw_frames(own, subtitle, looks), folder / stem)
            first = [[r for r in curve if r.seed in (None, seeds[0])] for curve in own]
            figure = draw_frames(first, f"{subtitle}, seed {seeds[0]}", looks)
            save_figure(figure, folder / f"{stem}_seed_{seeds[0]}")
        if len(rates) > 1:
            save_figure(draw_rates(curves, title, looks), folder / "loss_rates")


def choose_curve_looks(curves: Sequence[Curve]) -> dict[str, Look]:
    """Give each label a line; markers are left for what happened to a frame.

    Curves lie on each other until something is lost: those on top have gaps.
    """
    layers = {c[0].label: _layer(c) for c in sorted(curves, key=_layer)}
    colours = cycle(COLOURS)
    return {
        label: Look(
            *(ANCHOR_COLOUR if layer == len(LAYERS) - 1 else next(colours)),
            marker="",
            dashes=LAYERS[layer],
        )
        for label, layer in layers.items()
    }


def _layer(curve: Curve) -> int:
    """Return where a curve lies in ``LAYERS``."""
    run = curve[0]
    lossy = 2 if run.echo_delay is None else 1
    return {"progressive": 0, "loss": lossy, "no_loss": 3}[run.kind]


def draw_frames(
    curves: Sequence[Curve], title: str, looks: dict[str, Look]
) -> "Figure":
    """Draw quality, bits and decoded scales of each frame.

    Of several seeds the mean is drawn, and a band of one standard deviation to both
    sides; of one seed the frames that lost a packet or were coded anew are marked.

    Args:
        curves: Of one loss rate, and those without loss.
        title: Of the figure.
        looks: Line of each label.
    """
    figure = make_figure(FRAMES_HEIGHT)
    panels = list(figure.subplots(3, 1, sharex=True, height_ratios=RATIOS))
    count = max(map(len, curves))
    for axes, (label, value) in zip(panels, PANELS, strict=True):
        for curve in sorted(curves, key=_layer):
            _draw_curve(axes, curve, value, line_style(looks[curve[0].label]))
        axes.set_ylabel(label)
    _start_at_zero(panels[1])
    scales = max(len(run.frames[0].bits_per_scale) for c in curves for run in c)
    panels[2].set(xlabel="frame", ylim=(-0.3, scales + 0.3), yticks=range(scales + 1))
    shown = (
        f"mean of {count} seeds, band: one standard deviation to both sides"
        if count > 1
        else "✖ packet lost   ▲ scales coded anew after an echo"
    )
    panels[0].set_title(f"{title}\n{shown}", fontsize="medium")
    add_legend(figure, {curve[0].label: curve[0].label for curve in curves}, looks)
    return figure


def draw_rates(curves: Sequence[Curve], title: str, looks: dict[str, Look]) -> "Figure":
    """Draw mean quality and bits over the loss rate.

    Args:
        curves: Of several loss rates, and those without loss.
        title: Of the figure.
        looks: Line of each label.
    """
    figure = make_figure(RATES_HEIGHT)
    panels = list(figure.subplots(1, 2))
    rates = [c[0].loss_rate for c in curves if c[0].loss_rate is not None]
    labels = list(dict.fromkeys(curve[0].label for curve in curves))
    for label in labels:
        own = [curve for curve in curves if curve[0].label == label]
        for axes, (name, value) in zip(panels, PANELS[:2], strict=True):
            means = [[fmean(map(value, run.frames)) for run in curve] for curve in own]
            x = [c[0].loss_rate for c in own if c[0].loss_rate is not None]
            y, spread = list(map(fmean, means)), list(map(pstdev, means))
            if not x:
                x, y, spread = [min(rates), max(rates)], y * 2, [0.0, 0.0]
            _draw_band(axes, x, y, spread, line_style(looks[label]))
            axes.set(xlabel="loss rate", ylabel=name)
    _start_at_zero(panels[1])
    panels[0].set_title(f"{title}\nmeans over all frames and seeds", fontsize="medium")
    add_legend(figure, {label: label for label in labels}, looks)
    return figure


def _draw_curve(
    axes: "Axes", curve: Curve, value: Value, style: dict[str, Any]
) -> None:
    frames = [frame.frame for frame in curve[0].frames]
    values = list(zip(*(map(value, run.frames) for run in curve), strict=True))
    means = [fmean(each) for each in values]
    _draw_band(axes, frames, means, [pstdev(each) for each in values], style)
    if len(curve) > 1:
        return
    for mark, chosen in (
        (ANEW, [frame for frame in curve[0].frames if frame.resync]),
        (LOST, [frame for frame in curve[0].frames if frame.lost]),
    ):
        points = [frame.frame for frame in chosen], [value(frame) for frame in chosen]
        axes.plot(*points, **{**style, **mark, "linestyle": ""})


def _start_at_zero(axes: "Axes") -> None:
    axes.set_ylim(0, HEADROOM * axes.dataLim.y1)


def _draw_band(
    axes: "Axes",
    x: Sequence[float],
    y: Sequence[float],
    spread: Sequence[float],
    style: dict[str, Any],
) -> None:
    if any(spread):
        axes.fill_between(
            x,
            [value - each for value, each in zip(y, spread, strict=True)],
            [value + each for value, each in zip(y, spread, strict=True)],
            color=style["color"],
            alpha=SPREAD_OPACITY,
            linewidth=0,
        )
    axes.plot(x, y, **style)
