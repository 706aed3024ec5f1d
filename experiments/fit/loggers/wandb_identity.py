"""What W&B calls a run, whom it stands beside, and the columns of its configuration."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = "learned-video-codecs"

VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "tags": "WANDB_TAGS",
}
"""The variable of W&B that stands in for an option that is not given."""


def with_names(
    tracking: Mapping[str, Any], configs: Sequence[str | Path], shrinks: bool
) -> dict[str, Any]:
    """Return options of tracking in which W&B's names are settled.

    An option counts first, then W&B's own variable, then the default. The default
    group is the codec's: an ablation stands in it beside its baseline.

    Args:
        tracking: ``TrackingOptions`` as plain values.
        configs: The configuration files; the first one is the codec's.
        shrinks: Whether the schedule is shrunk. Such runs have a group of their own,
            for they compare with nothing that trained in full.
    """
    given = from_environment(tracking)
    group = Path(configs[0]).stem + ("-rehearsal" if shrinks else "")
    return {
        **tracking,
        **given,
        "project": given["project"] or PROJECT,
        "group": given["group"] or group,
    }


def from_environment(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return project, entity, group and tags, from the environment if not given."""
    names = {
        name: given.get(name) or os.environ.get(variable) or None
        for name, variable in VARIABLES.items()
    }
    tags = names["tags"] or []
    if isinstance(tags, str):
        tags = [tag.strip() for tag in tags.split(",") if tag.strip()]
    return {**names, "tags": list(tags)}


def trial() -> list[str]:
    """Return the id that W&B gives a trial of a sweep, if this process is one.

    Trials share a command line but for their values, so the name of each run needs it.
    """
    of_sweep = os.environ.get("WANDB_SWEEP_ID")
    number = os.environ.get("WANDB_RUN_ID")
    return [number] if of_sweep and number else []


def identity(options: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Return what ``wandb.init`` takes for a run of ``fit``.

    Args:
        options: All of the run's, as ``config.yaml`` has them.
        **facts: Further columns of the configuration.
    """
    names = from_environment(options["tracking"])
    codec = options["model"]["class_path"].rpartition(".")[2]
    return {
        **names,
        "tags": [codec, *names["tags"]],
        "name": options["run"],
        "job_type": "fit",
        "config": {**columns(options), **facts},
    }


def columns(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with a column for each value of the schedule, in W&B's tables.

    A table cannot show or sort by what stands in a list: ``stages/pairs_1/lr`` takes
    the place of the rows. They are those of ``config.yaml``, before ``shrink``.
    """
    flat = {name: value for name, value in options.items() if name != "stages"}
    for row in options.get("stages") or []:
        values = {name: value for name, value in row.items() if name != "name"}
        flat |= _leaves(values, f"stages/{row['name']}")
    return flat


def _leaves(values: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{place}/{name}")
        else:
            yield f"{place}/{name}", value
