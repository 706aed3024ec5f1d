"""What a recipe's training takes, read off its files without loading a network."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from datamodules.texts import read_text
from experiments.cli.configs import CONFIGS, find_config, merged
from experiments.fit.layers import change_rows
from experiments.paper.recipe import VARIABLE, Recipe, Run
from experiments.paper.training import deciding, stage_marks

COSTS = Path(__file__).with_name("costs.yaml")

DAY = 86400.0


@dataclass(frozen=True)
class Cost:
    """Of a stage that is trained once.

    Attributes:
        steps: Optimizer steps.
        days: On one GPU; ``None`` if nothing is known of the codec.
        is_measured: Whether from steps/s that were measured, else reckoned.
    """

    steps: int
    days: float | None
    is_measured: bool


@dataclass(frozen=True)
class Estimate:
    """What recipes train.

    Attributes:
        stages: By a mark: equal stages of several runs, or recipes, are one.
        variables: Environment variables of their data.
    """

    stages: Mapping[str, Cost]
    variables: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages.values())

    @property
    def days(self) -> float | None:
        """Days of one GPU, or ``None`` if of a stage nothing is known."""
        known = [s.days for s in self.stages.values() if s.days is not None]
        return sum(known) if len(known) == len(self.stages) else None

    @property
    def is_measured(self) -> bool:
        """Whether all of it is measured."""
        return all(stage.is_measured for stage in self.stages.values())

    def __or__(self, other: "Estimate") -> "Estimate":
        """Return what both train, which is less than the sum where they share."""
        names = {*self.variables, *other.variables}
        return Estimate({**self.stages, **other.stages}, tuple(sorted(names)))


def estimate(recipe: Recipe) -> Estimate:
    """Return what a recipe trains.

    Options are taken as they are written, without a check of their names: ``--dry_run``
    reads them as ``fit`` does.

    Raises:
        ValueError: A configuration is not there, or changes a row that there is not.
    """
    stages: dict[str, Cost] = {}
    marks: dict[str, dict[str, str]] = {}
    texts: list[str] = []
    waiting = dict(recipe.runs)
    while waiting:
        # Each behind the one that it forks from; circles are refused elsewhere.
        name = next(
            (n for n, r in waiting.items() if not r.fork or r.fork.run in marks),
            next(iter(waiting)),
        )
        run = waiting.pop(name)
        options = _options(run)
        rows = options.pop("stages")
        mark, first = "", 0
        if run.fork and run.fork.run in marks:
            mark = marks[run.fork.run][run.fork.stage]
            names = [row["name"] for row in rows]
            if run.fork.stage in names:
                first = names.index(run.fork.stage) + 1
        own = stage_marks(deciding(options), rows[first:], mark)
        marks[name] = {}
        for mark, row in zip(own, rows[first:], strict=True):
            marks[name][row["name"]] = mark
            stages[mark] = _cost(options["model"], row)
        texts.append(json.dumps([options, rows]))
    found = {name for text in texts for name in VARIABLE.findall(text)}
    return Estimate(stages, tuple(sorted(found)))


def _options(run: Run) -> dict[str, Any]:
    """Return a run's options in layers, with its stages as a list of rows."""
    options: dict[str, Any] = {}
    for layer in ("base", *run.config):
        text = find_config(layer) if layer != "base" else str(CONFIGS / "base.yaml")
        values = yaml.safe_load(read_text(Path(text)) if Path(text).is_file() else text)
        options = _layered(options, values or {}, text)
    for name, value in run.options.items():
        values = value
        section, _, rest = name.partition(".")
        if section == "stages" and rest:
            options = _layered(options, {"stages": {rest: value}}, "--")
            continue
        for part in reversed(name.split(".")):
            values = {part: values}
        options = _layered(options, values, "--")
    return options


def _layered(
    options: Mapping[str, Any], values: Mapping[str, Any], source: str
) -> dict[str, Any]:
    own = dict(values)
    model = own.get("model")
    if isinstance(model, str):
        own["model"] = {"class_path": model}
    elif isinstance(model, Mapping) and not model.keys() & {"class_path", "init_args"}:
        own["model"] = {"init_args": model}
    if isinstance(own.get("stages"), Mapping):
        rows = list(options.get("stages") or [])
        own["stages"] = change_rows(rows, own["stages"], f"{source}: ")
    return merged(options, own)


def _cost(model: Mapping[str, Any], row: Mapping[str, Any]) -> Cost:
    """Reckon a stage, or take its measured steps/s."""
    costs = _costs()
    steps = row["steps"]
    arguments = model.get("init_args") or {}
    cost = _cost_of(model, costs["codecs"].get(model["class_path"], ()))
    if cost is None:
        return Cost(steps, None, False)
    if speed := cost.get("steps_per_second", {}).get(row["name"]):
        return Cost(steps, steps / speed / DAY, True)
    frames = row["frames"]
    if row.get("unroll") == "unit":
        frames = min(frames, arguments.get("frames_per_unit", 1))
    # What a row leaves out is as ``Stage`` has it.
    pixels = frames * row.get("crop", 256) ** 2 * row.get("batch_size", 8)
    recomputed = row.get("checkpoint_activations")
    passes = costs["passes"]["recomputed" if recomputed else "kept"]
    each = cost.get("counted", {}).get(row["name"], 2 * cost["kmacs"] * passes)
    operations = 1e3 * each * pixels * steps
    speed = 1e12 * costs["peak_tflops"] * costs["utilisation"]
    return Cost(steps, operations / speed / DAY, False)


def _cost_of(
    model: Mapping[str, Any], costs: Iterable[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    arguments = (model.get("init_args") or {}).items()
    fits = (cost for cost in costs if cost.get("when", {}).items() <= arguments)
    return next(fits, None)


@cache
def _costs() -> Mapping[str, Any]:
    costs: Mapping[str, Any] = yaml.safe_load(read_text(COSTS))
    return costs


def how_reckoned() -> str:
    """Return how GPU days are reckoned, as a sentence."""
    costs = _costs()
    return (
        f"~ is reckoned, not measured: the operations of all steps on an "
        f"{costs['gpu']} at {costs['utilisation']:.0%} of its "
        f"{costs['peak_tflops']} TFLOP/s"
    )


def days_text(estimate: Estimate) -> str:
    """Return GPU days, with a sign where they are reckoned; a dash for no training."""
    if not estimate.stages:
        return "-"
    if estimate.days is None:
        return "?"
    digits = 0 if estimate.days >= 10 else 1
    return f"{'' if estimate.is_measured else '~'}{estimate.days:,.{digits}f}"
