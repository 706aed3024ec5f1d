"""A comparison in W&B: BD table, RD points, plots, and BD-rates in the summary."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
from experiments.results.drawing.figures import figure_style
from experiments.results.drawing.names import safe_name
from experiments.results.drawing.wandb_lines import rd_lines
from experiments.results.result import Result
from experiments.results.wandb_log import (
    Rows,
    identity_in,
    log_figures,
    points_table,
    run_folder,
)

if TYPE_CHECKING:
    import wandb


def log_comparison(comparison: Comparison, results: Sequence[Result], run: str) -> None:
    """Log tables, RD plots and BD-rates to W&B, online or offline as ``fit`` does.

    The run's summary gets ``eval/<set>/bdrate_<metric>_vs_<anchor>`` in %, the means of
    the set's sequences (set ``all``: of all sets), and beside each its flags, as
    ``..._vs_<anchor>_flags``: ``none``, or what the report says of the number. If
    several codecs were compared, it is ``eval/<set>/<codec>/bdrate_...``.
    An earlier run's W&B run is gone on with; see :mod:`experiments.results.wandb_log`.

    Raises:
        ValueError: ``run`` is neither a folder of a run nor a plain name.
    """
    results = [r.with_scales(comparison.scales).only(comparison.sets) for r in results]
    folder = run_folder(run)
    names = identity_in(
        folder, tags=["comparison"], name=folder.name, job_type="compare"
    )
    log_figures(
        folder,
        names,
        bd_rates(comparison),
        points_table(results, comparison.metrics),
        lambda: make_media(comparison, results),
    )


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
        "eval/points": wandb.Table(*points_table(results, comparison.metrics)),
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
                media[f"{key}_lines"] = rd_lines(
                    ((each.codec, each.bpp, each.quality) for each in curves),
                    f"{name}, {METRICS[metric].label}",
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
