"""Distributed training with one process: NCCL on a GPU, gloo on a CPU."""

from collections.abc import Iterator

from experiments.profile.benchmark.codecs import (
    LackingError,
    base_configs,
    layers,
    rows,
)
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.training import train

RUNS = 2


def measure(settings: Settings) -> Iterator[Figure]:
    """Train the first codec that can be built, alone and as a group of one.

    Raises:
        ValueError: Training fails.
    """
    from dataclasses import replace

    # What counts is that it runs: the network is tiny in both forms.
    small = replace(settings, form="small")
    name = next(filter(_can_be_built, base_configs()))
    row = rows(name)[-1]
    seconds = settings.seconds / RUNS - 1
    alone = train(name, row, small, seconds)
    group = train(name, row, small, seconds, "--trainer.strategy=ddp")
    backend = "nccl" if settings.device == "cuda" else "gloo"
    yield Figure(
        f"step of a group of one, {backend}",
        group.seconds / alone.seconds,
        "ratio",
        note=f"beside a step without a group, {name}, tiny, {row.name}",
    )


def _can_be_built(name: str) -> bool:
    try:
        layers(name, "small")
    except LackingError:
        return False
    return True
