"""Drawings of recipes: those that ``compare`` has not, or one of them alone."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.cli.command import nearest
from experiments.compare.comparison import Comparison
from experiments.compare.report.plots import (
    draw_sequences,
    draw_set,
    looks_of,
    mean_curves,
)
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
from experiments.results.result import Point, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT = 4.2
"""Of bars, in inches."""

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

    def results(self, labels: Sequence[str]) -> list[Result]:
        """Return the curves of some rows, or of all."""
        if lost := [label for label in labels if label not in self.rows]:
            raise ValueError(f"there is no row {lost[0]}{nearest(lost[0], self.rows)}")
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
    bars: dict[str, tuple[float, float]] = {}
    for label in rows or drawn.rows:
        profile = drawn.rows[label].figures.get("profile", {})
        time, pipeline = profile.get("time"), profile.get("pipeline")
        if time:
            bars[label] = time["encode_s_per_frame"], time["decode_s_per_frame"]
        if pipeline:
            encode, decode = pipeline["encode"], pipeline["decode"]
            workers = f"{label}, {pipeline['workers']} workers"
            for name, key in ((label, "one_worker"), (workers, "pipeline")):
                key = f"{key}_s_per_frame"
                bars[name] = encode[key], decode[key]
    if bars:
        yield "latency", _draw_bars(bars)


def _curves_at(
    drawn: Drawn,
    metrics: Sequence[str] = (),
    bpp: Sequence[float] = (),
    rows: Sequence[str] = (),
) -> Figures:
    """Quality at fixed rates, by sequence: of the kinds of motion, for example."""
    comparison = drawn.comparison
    if comparison is None:
        return
    names = {result.name for result in drawn.results(rows)}
    for metric in metrics or [comparison.headline]:
        curves = [
            c for c in comparison.curves if c.metric == metric and c.codec in names
        ]
        singles = [curve for curve in curves if curve.sequence is not None]
        for set in comparison.sets:
            own = [curve for curve in singles if curve.set == set]
            if own:
                figure = draw_sequences(own, looks_of(comparison))
                yield f"{set}_{metric}_sequences", figure


FIGURES: dict[str, Callable[..., Figures]] = {
    "frames": _frames,
    "rd": _rd,
    "scale_shares": _scale_shares,
    "progressive": _progressive,
    "latency": _latency,
    "curves_at": _curves_at,
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
                for name, figure in FIGURES[kind](drawn, **told):
                    stem = folder / "figures" / safe_name(name)
                    names.append(f"figures/{save_figure(figure, stem)[0].name}")
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{plan.recipe.path}: figures.{kind}: {error}"
                ) from error
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


def _draw_bars(bars: Mapping[str, tuple[float, float]]) -> "Figure":
    """Draw a bar for encoding and one for decoding beside each other, by name."""
    figure = make_figure(HEIGHT)
    axes = figure.add_subplot()
    places = range(len(bars))
    for number, what in enumerate(("encoding", "decoding")):
        values = [own[number] for own in bars.values()]
        axes.bar([p + 0.4 * number - 0.2 for p in places], values, 0.38, label=what)
    axes.set_xticks(list(places), list(bars), rotation=20, ha="right")
    axes.set_ylabel("seconds per frame")
    axes.legend()
    return figure
