"""From a recipe to the jobs that make its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.paper.fitting import fit_jobs
from experiments.paper.job import Job
from experiments.paper.measuring import Measuring, why_left_out
from experiments.paper.places import Places
from experiments.paper.recipe import Measurement, Recipe, Run
from experiments.paper.rehearsal import Rehearsal
from experiments.paper.training import Training, plan_training
from experiments.results.drawing.names import safe_name


@dataclass(frozen=True)
class Plan:
    """The jobs of a recipe.

    Attributes:
        recipe: The recipe.
        places: Where its files lie.
        training: What its runs train.
        jobs: All jobs, each behind those that it needs.
        files: By row label, what is measured for it: its kind (``evaluate``,
            ``profile``, ...) and its file, there or not.
        left_out: By name of a measurement, why it is not done here.
        rehearsal: How it is rehearsed, or ``None``.
        layers: Arguments of ``fit`` that every run has behind its own configurations.
    """

    recipe: Recipe
    places: Places
    training: Training
    jobs: tuple[Job, ...]
    files: Mapping[str, tuple[tuple[Measurement, Path], ...]]
    left_out: Mapping[str, str]
    rehearsal: Rehearsal | None = None
    layers: tuple[str, ...] = ()


def make_plan(
    recipe: Recipe,
    output: Path,
    *,
    rehearsal: Rehearsal | None = None,
    fit_options: Sequence[str] = (),
    free_fit_options: Sequence[str] = (),
    wandb: bool = False,
) -> Plan:
    """Return the jobs that make a recipe's table.

    Args:
        recipe: The recipe.
        output: Folder of runs, results and tables, shared with other recipes.
        rehearsal: How to make everything tiny, if it is a rehearsal.
        fit_options: Further options of every ``fit``.
        free_fit_options: Those of them that decide no weight.
        wandb: Whether measurements are logged to W&B.

    Raises:
        ValueError: A run, an option or a variable is wrong.
    """
    places = Places(output, recipe.name)
    layers = [*fit_options, *(rehearsal.fit_arguments if rehearsal else ())]
    needed = _needed_runs(recipe, rehearsal)
    training = plan_training(
        replace(recipe, runs=needed), layers, rehearsed=rehearsal is not None
    )
    jobs = {job.name: job for job in fit_jobs(training, places, free_fit_options)}
    measuring = Measuring(recipe, places, training, rehearsal, wandb)
    files: dict[str, list[tuple[Measurement, Path]]] = {}
    left_out: dict[str, str] = {}
    for label, row in recipe.rows.items():
        files[label] = []
        for each in row:
            if rehearsal and each.rehearse is None:
                continue
            if reason := why_left_out(each, rehearsal):
                left_out[each.name] = reason
                continue
            job, path = measuring.job(each)
            if job:
                jobs[job.name] = job
            files[label].append((each, path))
    jobs["table-" + safe_name(recipe.name)] = _table_job(
        recipe, places, tuple(jobs), rehearsal, wandb
    )
    return Plan(
        recipe=recipe,
        places=places,
        training=training,
        jobs=tuple(jobs.values()),
        files={label: tuple(found) for label, found in files.items()},
        left_out=left_out,
        rehearsal=rehearsal,
        layers=tuple(layers),
    )


def _needed_runs(recipe: Recipe, rehearsal: Rehearsal | None) -> dict[str, Run]:
    """Return the runs that something is measured of, and those that they leave."""
    measured = recipe.measurements
    waiting = [m.of for m in measured if not rehearsal or m.rehearse is not None]
    if rehearsal:
        waiting += [str((m.rehearse or {}).get("of")) for m in measured]
    found: set[str] = set()
    while waiting:
        run = recipe.runs.get(name := waiting.pop())
        if run and name not in found:
            found.add(name)
            waiting += [run.fork.run] if run.fork else []
    return {name: run for name, run in recipe.runs.items() if name in found}


def _table_job(
    recipe: Recipe,
    places: Places,
    needs: tuple[str, ...],
    rehearsal: Rehearsal | None,
    wandb: bool,
) -> Job:
    # Only those of the suite have a codec in their name.
    own = "/" not in recipe.name
    words = [str(recipe.path)] if own else recipe.name.split("/")
    words += ["--write", "--output", str(places.output)]
    words += ["--rehearse"] if rehearsal else []
    return Job(
        name="table-" + safe_name(recipe.name),
        command="paper",
        arguments=tuple(words),
        outputs=(places.table / "table.md",),
        needs=needs,
        free=("--wandb",) if wandb else (),
        always=True,
    )
