"""A comparison in W&B: BD table, RD points, plots, and BD-rates in the summary."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import (
    BD_NUMBERS,
    ROW_KINDS,
    Comparison,
    headline_kind,
)
from experiments.compare.report.plots import (
    draw_set,
    looks_of,
    mean_curves,
    plotted_metrics,
)
from experiments.drawing.figures import figure_style
from experiments.drawing.names import safe_name
from experiments.fit.offline_parts import cut_torn_tails
from experiments.fit.run_folder import RunFolder
from experiments.fit.tracking import (
    StageWandbLogger,
    make_loggers,
    read_metrics,
    sync_hint,
)
from experiments.fit.wandb_identity import PROJECT, from_environment, identity
from experiments.results.result import Result

if TYPE_CHECKING:
    import wandb

RUNS = Path("runs")

Rows: TypeAlias = tuple[list[str | int], list[list[Any]]]
"""Names of columns, and rows."""


def log_comparison(comparison: Comparison, results: Sequence[Result], run: str) -> None:
    """Log tables, RD plots and BD-rates to W&B, online or offline as ``fit`` does.

    The run's summary gets ``eval/<set>/bdrate_<metric>_vs_<anchor>`` in %, the means of
    the set's sequences (set ``all``: of all sets), and beside each its flags, as
    ``..._vs_<anchor>_flags``: ``none``, or what the report says of the number. If
    several codecs were compared, it is ``eval/<set>/<codec>/bdrate_...``.
    An earlier run's W&B run is gone on with; see :func:`run_folder`.

    Raises:
        ValueError: ``run`` is neither a folder of a run nor a plain name.
    """
    results = [r.with_scales(comparison.scales).only(comparison.sets) for r in results]
    folder = run_folder(run)
    loggers = make_loggers(folder, **_identity(folder))
    logger = next((x for x in loggers if isinstance(x, StageWandbLogger)), None)
    if logger is None:
        print("W&B is switched off by WANDB_MODE: nothing was logged")
        return
    try:
        with RunFolder(folder).lock():
            cut_torn_tails(folder)
    except ValueError:
        # ``fit`` is at it: what it writes to is not torn, and it has cut the others.
        pass
    try:
        # Beside what the run logged last.
        steps = (row[0] for row in read_metrics(folder / "metrics.csv"))
        logger.offset = max(steps, default=0)
        logger.log_metrics(make_media(comparison, results))
        logger.experiment.summary.update(bd_rates(comparison))
    finally:
        logger.finish()
    hint = sync_hint(folder)
    print(f"logged to the W&B run of {folder}" + (f"; send it: {hint}" if hint else ""))


def run_folder(run: str) -> Path:
    """Return the folder of a run, given by itself, its name in ``runs/``, or a new one.

    Raises:
        ValueError: It is a path where no run lies.
    """
    for folder in (Path(run), RUNS / run):
        if any((folder / name).is_file() for name in ("config.yaml", "wandb_id.txt")):
            return folder
    if safe_name(run) != run:
        raise ValueError(
            f"{run!r} is no folder of a run (with config.yaml or wandb_id.txt); give "
            "one, or a new name of letters, digits, '.', '_' and '-'"
        )
    return RUNS / run


def _identity(folder: Path) -> dict[str, Any]:
    """Return what the run's W&B run is called, the same as when ``fit`` opened it."""
    path = folder / "config.yaml"
    if path.is_file():
        return identity(yaml.safe_load(path.read_text()))
    names = from_environment({"tags": ["comparison"]})
    return {
        **names,
        "project": names["project"] or PROJECT,
        "name": folder.name,
        "job_type": "compare",
    }


def bd_rates(comparison: Comparison) -> dict[str, float | str]:
    """Return the BD-rates of sets in %, each with its flags, by summary key."""
    rates: dict[str, float | str] = {}
    for row in comparison.rows:
        is_headline = row.kind == headline_kind(row.metric, row.set)
        if is_headline and row.rate.value is not None:
            place = [safe_name(row.set) if row.set else "all"]
            if len(comparison.codecs) > 1:
                place.append(safe_name(row.codec))
            name = f"bdrate_{row.metric}_vs_{safe_name(comparison.anchor)}"
            key = "/".join(["eval", *place, name])
            rates[key] = row.rate.value
            # Always, so that it takes the place of an earlier comparison's.
            rates[f"{key}_flags"] = row.caveats() or "none"
    return rates


def make_media(
    comparison: Comparison, results: Sequence[Result]
) -> "dict[str, wandb.Table | wandb.Image | wandb.plot.CustomChart]":
    """Return tables, an image of each RD plot and lines of the headline's, by key."""
    import numpy as np
    import wandb
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    media: dict[str, Any] = {
        "eval/bd": wandb.Table(*bd_table(comparison)),
        "eval/points": wandb.Table(*points_table(comparison, results)),
    }
    looks = looks_of(comparison)
    for name, sequences in comparison.sets.items():
        for metric in plotted_metrics(comparison.metrics):
            curves = mean_curves(comparison, name, metric)
            if not curves:
                continue
            with figure_style():
                canvas = FigureCanvasAgg(draw_set(curves, name, len(sequences), looks))
                canvas.draw()
            key = f"eval/{safe_name(name)}/rd_{metric}"
            media[key] = wandb.Image(np.asarray(canvas.buffer_rgba()))
            if metric == comparison.headline:
                media[f"{key}_lines"] = wandb.plot.line_series(
                    [list(curve.bpp) for curve in curves],
                    [list(curve.quality) for curve in curves],
                    keys=[curve.codec for curve in curves],
                    title=f"{name}, {METRICS[metric].label}",
                    xname="bpp",
                )
    return media


def bd_table(comparison: Comparison) -> Rows:
    """Return every BD number."""
    columns = ["codec", "anchor", "metric", "over", "set", "sequence"]
    data = [
        [
            *(row.codec, comparison.anchor, row.metric, ROW_KINDS[row.kind]),
            *(row.set, row.sequence, *row.numbers(), row.caveats()),
        ]
        for row in comparison.rows
    ]
    return [*columns, *BD_NUMBERS, "flags"], data


def points_table(comparison: Comparison, results: Sequence[Result]) -> Rows:
    """Return every point of every sequence."""
    metrics = list(comparison.metrics)
    columns = ["codec", "set", "sequence", "rate", "bpp", "estimated_bpp", "kbps"]
    data = []
    for result in results:
        for sequence, point in result.all_points():
            rates = [point.rate, point.bpp, point.estimated_bpp, point.kbps]
            values = [point.metrics.get(metric) for metric in metrics]
            data.append([result.name, *sequence.key, *rates, *values])
    return [*columns, *metrics], data
