"""W&B sweeps over options of a recipe's runs, each trial named by its values."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import yaml

from datamodules.whole_files import whole_or_nothing
from experiments.paper.plan import Plan
from experiments.paper.recipe import VARIABLE, Run
from experiments.paper.training import plan_training

BETWEEN = re.compile(r",(?![^\[{]*[\]}])")
"""A comma between values, not one inside of a list."""

Parameters = dict[str, list[Any]]
"""Values of each option."""


def write_sweep(plan: Plan, words: Sequence[str]) -> int:
    """Write a W&B sweep for each run of a recipe, and return the exit code.

    Args:
        plan: Of the recipe.
        words: ``OPTION=A,B,C`` of options of ``fit``.

    Raises:
        ValueError: ``fit`` refuses an option or a value, the recipe has no runs, or an
            option comes twice. Nothing was written then.
    """
    if not plan.recipe.runs:
        raise ValueError(f"--sweep: {plan.recipe.name} trains nothing")
    parameters = read_sweep(words)
    commands = {
        name: _command(name, run, plan, parameters)
        for name, run in plan.recipe.runs.items()
    }
    plan.places.table.mkdir(parents=True, exist_ok=True)
    count = prod(map(len, parameters.values()))
    for name, command in commands.items():
        path = plan.places.table / f"sweep_{name}.yaml"
        _write(path, plan, name, parameters, command)
        print(f"{path}: {count} trials")
    print(
        "start one with `wandb sweep FILE`, and on each machine or GPU, from this "
        "folder, `wandb agent ENTITY/PROJECT/SWEEP`, as that prints it; a trial that "
        f"stopped goes on by the same values, in {plan.places.runs}"
    )
    return 0


def read_sweep(words: Sequence[str]) -> Parameters:
    """Return the values of each option.

    Raises:
        ValueError: An option comes twice, or a value is empty.
    """
    parameters: Parameters = {}
    for word in words:
        option, _, text = word.partition("=")
        option = option.removeprefix("--")
        if option in parameters:
            raise ValueError(f"--sweep {option} is given twice: give its values in one")
        values = BETWEEN.split(text)
        if not all(values):
            raise ValueError(f"--sweep {word}: it must be as OPTION=A,B,C")
        parameters[option] = [_number(value) for value in values]
    return parameters


def _number(text: str) -> Any:
    """Return a number, so that it is one in the file too; other text as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if type(value) in (int, float) else text


def _command(
    name: str, run: Run, plan: Plan, parameters: Parameters
) -> tuple[str, ...]:
    """Return the command of a run's trials, after ``fit`` has read each value.

    Trials train every stage: what one sweeps over may be a part of the first.
    """
    arguments: tuple[str, ...] = ()
    for option, values in parameters.items():
        for value in values:
            tried = replace(run, fork=None, options={**run.options, option: value})
            runs = {name: tried}
            training = plan_training(replace(plan.recipe, runs=runs), plan.layers)
            (piece,) = training.pieces
            own = f"--{option}={value if isinstance(value, str) else json.dumps(value)}"
            arguments = tuple(word for word in piece.arguments if word != own)
    told = "-".join(
        [name, *(f"{_short(option)}_{{{option}}}" for option in parameters)]
    )
    return (
        *("${env}", "python", "-m", "experiments.fit", *arguments),
        *("--run", told, "--runs_dir", str(plan.places.runs)),
        *(f"--tracking.group={plan.recipe.name}-sweep", "--logger", "online"),
        "${args}",
    )


def _short(option: str) -> str:
    """Return how a name tells an option: without the section, but with the row."""
    return option.partition(".")[2] or option


def _write(
    path: Path,
    plan: Plan,
    name: str,
    parameters: Mapping[str, list[Any]],
    command: Sequence[str],
) -> None:
    values = {
        "name": f"{plan.recipe.name} {name}",
        "method": "grid",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": {key: {"values": each} for key, each in parameters.items()},
        # The agent knows variables by another name.
        "command": [VARIABLE.sub(_variable, word) for word in command],
    }
    head = (
        f"# {plan.recipe.title}\n"
        f"#   wandb sweep {path}\n"
        "#   wandb agent ENTITY/PROJECT/SWEEP    # once per machine or GPU\n"
        "# Trials whose losses are weighed otherwise, as by model.lmbda, compare by\n"
        "# val/0.1bpp/psnr and its like, not by the metric.\n"
    )
    with whole_or_nothing(path) as temporary:
        temporary.write_text(head + yaml.safe_dump(values, sort_keys=False, width=88))


def _variable(found: re.Match[str]) -> str:
    own = found[1] in ("env", "args")
    return found[0] if own else f"${{envvar:{found[1]}}}"
