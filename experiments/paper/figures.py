"""Drawings of recipes: those that ``compare`` has not, or one of them alone."""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli.command import nearest
from experiments.compare.bd import quality_at
from experiments.compare.comparison import Comparison
from experiments.compare.report.plots import draw_set, looks_of, mean_curves
from experiments.compare.report.scales import (
    draw_bits,
    draw_progressive,
    progressive_points,
    whole_points,
)
from experiments.compare.report.strips import draw_strip
from experiments.paper.plan import Plan
from experiments.paper.values import Measured
from experiments.results.drawing.figures import figure_style, make_figure, save_figure
from experiments.results.drawing.looks import choose_looks
from experiments.results.drawing.names import safe_name
from experiments.results.drawing.tables import metric_name
from experiments.results.result import Point, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT = 4.2
"""Of bars, in inches."""

GROUP = 0.8
"""Width of a group of bars, of the distance between groups."""

OF_COMMANDS = ("propagation", "stream")
"""Commands that draw figures of their own, beside their JSON file."""


@dataclass(frozen=True)
class Drawn:
    """What figures are drawn from.

    Attributes:
        rows: What is measured, by row label.
        comparison: Of the curves, if there is one.
        one_sequence: In a rehearsal any sequence stands for the one that is asked for.
    """

    rows: Mapping[str, Measured]
    comparison: Comparison | None
    one_sequence: bool

    def check(self, told: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if a drawing's arguments name a row that is none."""
        for label in (*told.get("rows", ()), *([told["row"]] if "row" in told else [])):
            if label not in self.rows:
                raise ValueError(
                    f"there is no row {label!r}{nearest(label, self.rows)}; there are "
                    f"{', '.join(self.rows)}"
                )

    def results(self, labels: Sequence[str]) -> list[Result]:
        """Return the curves of some rows, or of all."""
        chosen = [self.rows[label] for label in labels or self.rows]
        return [result for row in chosen for result in row.results]

    def places(self, results: Sequence[Result], name: str) -> list[tuple[str, str]]:
        """Return set and name of a sequence in results; every one if none is named."""
        keys = {s.key: None for r in results for s in r.sequences}
        if name and not self.one_sequence:
            return [key for key in keys if key[1] == name]
        return list(keys)[: 1 if name else None]


Figures = Iterator[tuple[str, "Figure"]]
"""Names of files without suffix, and figures."""


def _frames(
    drawn: Drawn,
    rows: Sequence[str] = (),
    sequence: str = "",
    rate: float | None = None,
) -> Figures:
    """Bits and PSNR of each frame, of one point of each row."""
    results = drawn.results(rows)
    for set, name in drawn.places(results, sequence):
        points = {
            result.name: point
            for result in results
            for entry, point in result.all_points()
            if entry.key == (set, name) and point.per_frame.get("bits")
            if rate is None or point.rate == rate
        }
        if points:
            looks = choose_looks(list(points), next(iter(points)))
            metric = drawn.comparison.headline if drawn.comparison else "psnr_yuv"
            yield f"frames_{name}", draw_strip(name, points, looks, metric)


def _rd(drawn: Drawn, metrics: Sequence[str] = (), sets: Sequence[str] = ()) -> Figures:
    """Curves of quality against rate, a figure for each set and metric."""
    comparison = drawn.comparison
    if comparison is None:
        return
    looks = looks_of(comparison)
    for metric in metrics or comparison.metrics:
        for set, sequences in comparison.sets.items():
            curves = mean_curves(comparison, set, metric)
            if curves and (not sets or set in sets or drawn.one_sequence):
                figure = draw_set(curves, set, len(sequences), looks)
                yield f"{set}_{metric}", figure


def _scale_shares(
    drawn: Drawn, row: str, sequence: str = "", rate: float | None = None
) -> Figures:
    """Bits of each frame by scale, and each scale's share of them."""
    results = _at_rate(drawn.results([row]), rate)
    for set, name in drawn.places(results, sequence):
        if points := whole_points(results, set, name):
            yield f"scales_{name}", draw_bits(name, points)


def _progressive(
    drawn: Drawn,
    row: str = "",
    sequence: str = "",
    rate: float | None = None,
    rows: Sequence[str] = (),
) -> Figures:
    """Bits and PSNR of each frame for each number of the coarsest scales."""
    results = _at_rate(drawn.results(rows or [row]), rate)
    for set, name in drawn.places(results, sequence):
        if points := progressive_points(results, set, name):
            yield f"progressive_{name}", draw_progressive(name, points, "psnr_rgb")


def _latency(drawn: Drawn, rows: Sequence[str] = ()) -> Figures:
    """Seconds that a frame takes, of one worker and of several."""
    bars: dict[str, dict[str, float | None]] = {}

    def add(name: str, encode: float, decode: float) -> None:
        bars[name] = {"encoding": encode, "decoding": decode}

    for label in rows or drawn.rows:
        profile = drawn.rows[label].figures.get("profile", {})
        time, pipeline = profile.get("time"), profile.get("pipeline")
        if time:
            add(label, time["encode_s_per_frame"], time["decode_s_per_frame"])
        if pipeline:
            workers = f"{label}, {pipeline['workers']} workers"
            for name, key in ((label, "one_worker"), (workers, "pipeline")):
                ways = pipeline["encode"], pipeline["decode"]
                add(name, *(way[f"{key}_s_per_frame"] for way in ways))
    if bars:
        yield "latency", _draw_groups(bars, "seconds per frame", bars=True)


def _quality_at(
    drawn: Drawn,
    bpp: Sequence[float],
    metrics: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Figures:
    """Quality at fixed rates, by set: of the kinds of motion, for example.

    A row whose curve does not reach a rate leaves a gap; where none does, there is no
    drawing.
    """
    comparison = drawn.comparison
    if comparison is None:
        return
    names = [result.name for result in drawn.results(rows)]
    for metric in metrics or [comparison.headline]:
        for rate in bpp:
            read = {
                set: {
                    curve.codec: quality_at(curve, rate)
                    for curve in mean_curves(comparison, set, metric)
                    if curve.codec in names
                }
                for set in comparison.sets
            }
            if any(value for own in read.values() for value in own.values()):
                unit = f"{metric_name(metric)} at {rate:g} bpp"
                figure = _draw_groups(read, unit, bars=False)
                yield f"{metric}_at_{rate:g}_bpp", figure


FIGURES: dict[str, Callable[..., Figures]] = {
    "frames": _frames,
    "rd": _rd,
    "scale_shares": _scale_shares,
    "progressive": _progressive,
    "latency": _latency,
    "quality_at": _quality_at,
}
"""What a recipe's ``figures`` may name; its values are their arguments."""


def draw_figures(
    plan: Plan,
    rows: Mapping[str, Measured],
    comparison: Comparison | None,
    folder: Path,
) -> tuple[str, ...]:
    """Draw what a recipe asks for, as far as it is measured.

    Returns:
        The pictures, as paths in the folder; those that commands drew come last.

    Raises:
        ValueError: There is no such drawing, or it has no such argument.
    """
    drawn = Drawn(rows, comparison, plan.rehearsal is not None)
    names: list[str] = []
    with figure_style():
        for kind, told in plan.recipe.figures.items():
            if kind not in FIGURES:
                raise ValueError(
                    f"{plan.recipe.path}: figures.{kind} is none"
                    f"{nearest(kind, FIGURES)}; there are {', '.join(FIGURES)}"
                )
            try:
                signature(FIGURES[kind]).bind(drawn, **told)
                drawn.check(told)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{plan.recipe.path}: figures.{kind}: {error}"
                ) from error
            for name, figure in FIGURES[kind](drawn, **told):
                stem = folder / "figures" / safe_name(name)
                names.append(f"figures/{save_figure(figure, stem)[0].name}")
    return (*names, *_of_commands(plan, folder))


def _of_commands(plan: Plan, folder: Path) -> Iterator[str]:
    """Copy the pictures that measuring commands drew."""
    found: dict[Path, str] = {}
    for measured in plan.files.values():
        for each, path in measured:
            if each.command in OF_COMMANDS and path.is_file():
                own = sorted(path.parent.rglob("*.png"))
                found |= {picture: each.name for picture in own}
            if each.options.get("latents"):
                own = sorted(path.with_suffix(".latents").rglob("*.png"))
                found |= {picture: each.name for picture in own}
    for picture, name in found.items():
        file = safe_name(f"{name}_{picture.stem}")
        target = folder / "figures" / f"{file}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)
        yield f"figures/{target.name}"


def _at_rate(results: Sequence[Result], rate: float | None) -> list[Result]:
    """Return results with the points of one rate only."""

    def chosen(points: Sequence[Point]) -> list[Point]:
        return [p for p in points if rate is None or p.rate == rate]

    return [
        replace(
            result,
            sequences=[
                replace(sequence, points=chosen(sequence.points))
                for sequence in result.sequences
            ],
        )
        for result in results
    ]


def _draw_groups(
    groups: Mapping[str, Mapping[str, float | None]], unit: str, *, bars: bool
) -> "Figure":
    """Draw values side by side, group by group; ``None`` leaves a gap.

    Args:
        groups: Values by name, of which each has one colour, by name of the group.
        unit: Of the values.
        bars: Whether as bars, which begin at 0; else as points.
    """
    figure = make_figure(HEIGHT)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    width = GROUP / max(1, len(names))
    for number, name in enumerate(names):
        values = [own.get(name) for own in groups.values()]
        heights = [math.nan if value is None else value for value in values]
        middle = (number - (len(names) - 1) / 2) * width
        places = [place + middle for place in range(len(groups))]
        if bars:
            axes.bar(places, heights, width, label=name)
        else:
            axes.plot(places, heights, "o", label=name)
    axes.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylabel(unit)
    axes.legend()
    return figure
