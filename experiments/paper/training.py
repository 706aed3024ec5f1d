"""Which stages a recipe's runs train, and which of them they share.

Two runs share a stage if every option that decides its weights is the same from the
first stage on. The one that comes first in the recipe trains it, the other forks from
it and goes on as if it had trained it itself: samples follow from the stage's number.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from experiments.cli.command import nearest
from experiments.paper.recipe import VARIABLE, Fork, Recipe, Run

UNSEEN = {
    "trainer": ("log_every_n_steps", "val_every_n_steps", "save_every_n_steps"),
    "data": (
        *("workers", "val_source", "val_root", "val_list_file", "val_clips"),
        *("val_frames", "val_stride", "val_crop"),
    ),
}
"""Options that no weight depends on, by section."""

DECIDING = ("seed", "model", "trainer", "data", "shrink")
"""Sections that weights depend on, beside the stages."""


@dataclass(frozen=True)
class Trained:
    """A run's own part of its schedule, or a piece of it.

    Attributes:
        run: Its name, that of its folder.
        arguments: Of ``fit``, without those of this class.
        stages: Names of the stages that it trains, in order.
        after: Run and stage that come before, if any: another run's where it forks.
        first: Name of the first stage, if it is not the schedule's first.
        stops: Whether the schedule goes on behind its last stage.
        steps: Optimizer steps of each stage.
    """

    run: str
    arguments: tuple[str, ...]
    stages: tuple[str, ...]
    after: tuple[str, str] | None
    first: str | None
    stops: bool
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Training:
    """All training of a recipe.

    Attributes:
        pieces: In an order in which each may run.
        ends: By name of a run: the run and the stage that hold its last weights.
        stages: By name of a run: of each stage the run that trains it.
        variables: Environment variables that its configurations name.
    """

    pieces: tuple[Trained, ...]
    ends: Mapping[str, tuple[str, str]]
    stages: Mapping[str, tuple[tuple[str, str], ...]]
    variables: tuple[str, ...]


@dataclass(frozen=True)
class _Schedule:
    """A run as it is parsed.

    Attributes:
        arguments: Of ``fit``.
        base: What weights depend on beside the stages.
        rows: The stages, before they are shrunk: a rehearsal shares as the whole does.
        steps: Of each stage, shrunk.
    """

    arguments: tuple[str, ...]
    base: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    steps: tuple[int, ...]


def plan_training(
    recipe: Recipe, layers: Sequence[str] = (), *, rehearsed: bool = False
) -> Training:
    """Return what a recipe's runs train.

    Args:
        recipe: Names them.
        layers: Arguments of ``fit`` that come after each run's own.
        rehearsed: Whether runs also have their options of a rehearsal.

    Raises:
        ValueError: A configuration or an option is wrong, or a fork leads from a stage
            that is none, or that the run would train otherwise.
    """
    schedules = {
        name: _parsed(name, run, layers, rehearsed) for name, run in recipe.runs.items()
    }
    owners: dict[str, tuple[str, str]] = {}
    marks: dict[str, list[str]] = {}
    trained: dict[str, list[tuple[str, str]]] = {}
    for name in _in_order(recipe.runs):
        own = schedules[name]
        run = recipe.runs[name]
        begin = _begin(run.fork, own, marks, schedules) if run.fork else []
        left = own.rows[len(begin) :]
        marks[name] = begin + stage_marks(own.base, left, *begin[-1:])
        names = [row["name"] for row in own.rows]
        for mark, stage in zip(marks[name], names, strict=True):
            owners.setdefault(mark, (name, stage))
        trained[name] = [owners[mark] for mark in marks[name]]
    pieces = [
        piece for name in trained for piece in _pieces(name, schedules[name], trained)
    ]
    texts = json.dumps([[s.base, s.rows] for s in schedules.values()])
    return Training(
        pieces=tuple(pieces),
        ends={name: stages[-1] for name, stages in trained.items()},
        stages={name: tuple(trained[name]) for name in recipe.runs},
        variables=tuple(sorted(set(VARIABLE.findall(texts)))),
    )


def _parsed(name: str, run: Run, layers: Sequence[str], rehearsed: bool) -> _Schedule:
    """Return a run's options as ``fit`` understands them."""
    from jsonargparse import ArgumentError

    from experiments.fit.options import build_parser, plain
    from lightning_modules.stages import Shrink, Stage

    arguments = [word for each in run.config for word in ("--config", each)]
    arguments += [*layers, *_options(run.options)]
    arguments += _options(run.rehearse) if rehearsed else []
    parser = build_parser()
    parser.exit_on_error = False
    try:
        options = plain(parser, parser.parse_args(arguments))
    except ArgumentError as error:
        from experiments.fit.layers import one_line

        raise ValueError(f"run {name}: {one_line(str(error), parser)}") from error
    if not options["stages"]:
        raise ValueError(f"run {name}: its configurations have no stages")
    rows = options["stages"]
    steps = [row["steps"] for row in rows]
    if options["shrink"]:
        stages = Shrink(**options["shrink"]).apply([Stage(**row) for row in rows])
        steps = [stage.steps for stage in stages]
    return _Schedule(tuple(arguments), deciding(options), tuple(rows), tuple(steps))


def deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what weights depend on beside the stages, of a run's plain options."""
    return {
        section: {
            key: value
            for key, value in options[section].items()
            if key not in UNSEEN.get(section, ())
        }
        if isinstance(options[section], Mapping)
        else options[section]
        for section in DECIDING
        if section in options
    }


def stage_marks(
    base: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], mark: str = ""
) -> list[str]:
    """Return a mark for each stage: equal where the weights behind it are.

    Args:
        base: What weights depend on beside the stages.
        rows: The stages, in order.
        mark: Of the stage before the first; empty if there is none.
    """
    marks = []
    for row in rows:
        told = json.dumps([mark, base, row], sort_keys=True)
        mark = hashlib.sha256(told.encode()).hexdigest()
        marks.append(mark)
    return marks


def _options(options: Mapping[str, Any]) -> list[str]:
    return [f"--{key}={_value(value)}" for key, value in options.items()]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _in_order(runs: Mapping[str, Run]) -> list[str]:
    """Return names of runs, each behind the one that it is told to fork from."""
    ordered: list[str] = []

    def add(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            raise ValueError(f"runs fork in a circle: {' from '.join(waiting)}")
        if name not in ordered:
            fork = runs[name].fork
            if fork:
                add(fork.run, (*waiting, name))
            ordered.append(name)

    for name in runs:
        add(name, ())
    return ordered


def _begin(
    fork: Fork,
    own: _Schedule,
    marks: Mapping[str, list[str]],
    schedules: Mapping[str, _Schedule],
) -> list[str]:
    """Return the marks of the stages that a run takes from the one it forks from."""
    other = schedules[fork.run]
    names = [row["name"] for row in other.rows]
    if fork.stage not in names:
        raise ValueError(
            f"fork.stage {fork.stage!r} is no stage of run {fork.run}"
            f"{nearest(fork.stage, names)}; it has {', '.join(names)}"
        )
    mine = [row["name"] for row in own.rows]
    count = mine.index(fork.stage) + 1 if fork.stage in mine else len(mine)
    if count >= len(mine):
        raise ValueError(
            f"a run that forks from {fork.run} behind {fork.stage} has no "
            f"stage left: it has {', '.join(mine)}"
        )
    taken = [name for name in names if name in mine[:count]]
    if taken != mine[:count]:
        raise ValueError(
            f"a run forks from {fork.run} behind {fork.stage}, but its stages "
            f"{', '.join(mine[:count])} are not all there, in this order: "
            f"{', '.join(names)}"
        )
    places = [names.index(name) for name in taken]
    for row, place in zip(own.rows[:count], places, strict=True):
        if difference := _difference(row, other.rows[place]):
            raise ValueError(
                f"a run forks from {fork.run} behind {fork.stage}, but its "
                f"stage {row['name']} is another one: {difference}"
            )
    return [marks[fork.run][place] for place in places]


def _difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Say what differs in a stage but what it freezes: one model may lack parts."""
    return ", ".join(
        f"{key} {value!r} instead of {theirs.get(key)!r}"
        for key, value in mine.items()
        if key != "frozen" and value != theirs.get(key)
    )


def _pieces(
    name: str, own: _Schedule, trained: Mapping[str, list[tuple[str, str]]]
) -> list[Trained]:
    """Cut a run's own stages where others fork from it."""
    stages = trained[name]
    taken = sum(owner != name for owner, _ in stages)
    if taken == len(stages):
        return []
    leaving = {
        previous[1]
        for other in trained.values()
        for previous, following in pairwise(other)
        if previous[0] == name and following[0] != name
    }
    # Another run may end where this one goes on.
    ends = [taken[-1] for other, taken in trained.items() if other != name]
    leaving |= {stage for owner, stage in ends if owner == name}
    pieces: list[Trained] = []
    first = taken
    for number in range(taken, len(stages)):
        last = number == len(stages) - 1
        if not last and stages[number][1] not in leaving:
            continue
        pieces.append(
            Trained(
                run=name,
                arguments=own.arguments,
                stages=tuple(stage for _, stage in stages[first : number + 1]),
                after=stages[first - 1] if first else None,
                first=stages[first][1] if first else None,
                stops=not last,
                steps=own.steps[first : number + 1],
            )
        )
        first = number + 1
    return pieces
