"""A result in W&B: its points, its RD curves, and means in the run's summary."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from callbacks.metrics.table import METRICS
from experiments.evaluate.means import means_by_rate
from experiments.evaluate.options import JobOptions
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


def folder_of(options: JobOptions) -> Path:
    """Return the folder of the W&B run: the one asked for, or one beside the output.

    Raises:
        ValueError: It is no folder of a run, and no name of a new one.
    """
    if options.wandb:
        return run_folder(options.wandb[0])
    return options.output.with_suffix(".wandb")


def log_result(result: Result, options: JobOptions) -> None:
    """Log a result to W&B.

    Its summary has ``eval/<set>/<knob><rate>/<metric>``, the mean over all frames of
    the set, and ``eval/<set>/<metric>``, that of all rates; ``bpp`` likewise. The W&B
    run stands in the group of the run that trained the codec.

    Raises:
        ValueError: See :func:`folder_of`.
    """
    folder = folder_of(options)
    learned = result.codec.get("kind") == "learned"
    trained = _names_of_training(result.environment.get("checkpoint"))
    tags = [str(result.codec["name"]), *trained.pop("tags", ())]
    names = identity_in(
        folder,
        **trained,
        tags=tags,
        name=folder.name if options.wandb else result.name,
        job_type="evaluate" if learned else "anchor",
        config={
            "codec": result.codec,
            "protocol": vars(result.protocol),
            "environment": result.environment,
        },
    )
    means = means_by_rate(result)
    rows = points_table([result], result.metric_names())
    figures = {**_summary(result, means), "eval/sequences": len(result.sequences)}
    log_figures(folder, names, figures, rows, lambda: _media(result, means, rows))


def _names_of_training(checkpoint: str | None) -> dict[str, Any]:
    """Return what W&B calls the run that a checkpoint lies in, if it lies in one."""
    if checkpoint is None:
        return {}
    config = Path(checkpoint).absolute().parent.parent / "config.yaml"
    if not config.is_file():
        return {}
    tracking = yaml.safe_load(config.read_text()).get("tracking") or {}
    known = ("project", "entity", "group", "tags")
    return {name: tracking[name] for name in known if tracking.get(name)}


def _summary(
    result: Result, means: Mapping[tuple[str, str], Mapping[str, float]]
) -> dict[str, float]:
    """Return the means of each rate, and of all rates together, by summary key."""
    summary = {}
    of_sets: dict[str, list[Mapping[str, float]]] = {}
    for (name, at), values in means.items():
        of_sets.setdefault(name, []).append(values)
        for metric, value in values.items():
            if metric != "rate":
                summary[f"eval/{safe_name(name)}/{safe_name(at)}/{metric}"] = value
    for name, own in of_sets.items():
        for metric in ("bpp", *result.metric_names()):
            if all(metric in values for values in own):
                mean = math.fsum(values[metric] for values in own) / len(own)
                summary[f"eval/{safe_name(name)}/{metric}"] = mean
    return summary


def _media(
    result: Result, means: Mapping[tuple[str, str], Mapping[str, float]], rows: Rows
) -> dict[str, Any]:
    """Return the points, the means by set and rate, and RD curves of each set."""
    import wandb

    names = ["bpp", *result.metric_names()]
    data = [[*key, *(v.get(name) for name in names)] for key, v in means.items()]
    media: dict[str, Any] = {
        "eval/points": wandb.Table(*rows),
        "eval/rd": wandb.Table(["set", "rate", *names], data),
    }
    shown = "psnr_rgb" if result.protocol.colour == "rgb" else "psnr_yuv"
    for name in dict.fromkeys(own for own, _ in means):
        curve = [v for (own, _), v in means.items() if own == name and shown in v]
        curve.sort(key=lambda values: values["bpp"])
        if curve:
            bpp, quality = ([v[key] for v in curve] for key in ("bpp", shown))
            media[f"eval/{safe_name(name)}/rd_{shown}_lines"] = rd_lines(
                [(result.name, bpp, quality)], f"{name}, {METRICS[shown].label}"
            )
    return media
