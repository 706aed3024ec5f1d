"""Training at the paper's size: steps per second, memory, waiting for data."""

import time
from collections.abc import Iterator

from experiments.profile.benchmark.codecs import (
    LackingError,
    base_configs,
    layers,
    left_out,
    named,
    rows,
)
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.part import reason
from experiments.profile.benchmark.training import (
    MemoryRanOutError,
    Timed,
    conditions,
    has_option,
    train,
)
from lightning_modules.stages import Stage

MARGIN = 3.0
"""Seconds that are left for what is not training."""


def measure(settings: Settings) -> Iterator[Figure]:
    """Train each codec's heaviest row that fits, eager and compiled."""
    ends = time.monotonic() + settings.seconds - MARGIN
    # CPUs have no use for bfloat16, so what is tried there is the way.
    precision = "bf16-mixed"
    variants = [("eager", [f"--trainer.precision={precision}"])]
    # To compile takes longer than all else of the small form.
    if settings.form == "full" and has_option("compile"):
        compiled = [*variants[0][1], "--trainer.compile=true"]
        variants.append(("compiled", compiled))
    names = base_configs()
    for place, name in enumerate(names):
        try:
            config = layers(name, settings.form)
        except LackingError as error:
            yield left_out(name, error)
            continue
        fitting: Stage | None = None
        for number, (kind, options) in enumerate(variants):
            runs = (len(names) - place) * len(variants) - number
            seconds = (ends - time.monotonic()) / runs
            shown = f"{named(name, config)}, {kind}"
            try:
                fitting, timed = _heaviest(name, fitting, settings, seconds, options)
            except ValueError as error:
                yield Figure(f"fit, {shown}", None, "steps/s", error=reason(error))
                continue
            yield from _figures(shown, timed, conditions(fitting, settings, precision))


def _heaviest(
    name: str,
    known: Stage | None,
    settings: Settings,
    seconds: float,
    options: list[str],
) -> tuple[Stage, Timed]:
    """Train the row that is known to fit, or else the heaviest that does.

    Raises:
        ValueError: None does, or the run fails.
    """
    ends = time.monotonic() + seconds
    tried: list[str] = []
    for row in [known] if known else rows(name):
        if (left := ends - time.monotonic()) < MARGIN:
            break
        try:
            return row, train(name, row, settings, left, *options)
        except MemoryRanOutError:
            tried.append(row.name)
    raise ValueError(f"no row fitted into memory in time: tried {', '.join(tried)}")


def _figures(name: str, timed: Timed, note: str) -> Iterator[Figure]:
    yield Figure(
        f"fit, {name}",
        1 / timed.seconds,
        "steps/s",
        note=f"{note}, {timed.steps} steps",
    )
    yield Figure(f"peak memory of fit, {name}", timed.memory / 2**30, "GiB")
    if timed.data_wait is not None:
        yield Figure(f"waiting for data, {name}", 100 * timed.data_wait, "% of a step")
