"""From a recipe to the jobs that make its table."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.paper.job import Job
from experiments.paper.recipe import (
    VARIABLE,
    Measurement,
    Recipe,
    Run,
    arguments,
    with_variables,
)
from experiments.paper.rehearsal import Rehearsal
from experiments.paper.training import Trained, Training, plan_training
from experiments.results.drawing.names import safe_name


@dataclass(frozen=True)
class Places:
    """Where a recipe's files lie, below one folder that recipes share.

    Attributes:
        output: That folder.
        name: Name of the recipe.
    """

    output: Path
    name: str

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.output / "runs"

    @property
    def results(self) -> Path:
        """Folder of what is measured."""
        return self.output / "results"

    @property
    def jobs(self) -> Path:
        """Folder of the records of what is done, and of logs."""
        return self.output / "jobs"

    @property
    def table(self) -> Path:
        """Folder of the recipe's own table, report and figures."""
        return self.output / self.name.rpartition("/")[2]


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
    jobs = {job.name: job for job in _fits(training, places, free_fit_options)}
    files: dict[str, list[tuple[Measurement, Path]]] = {}
    left_out: dict[str, str] = {}
    for label, row in recipe.rows.items():
        files[label] = []
        for each in row:
            if rehearsal and each.rehearse is None:
                continue
            if reason := _missing(each, rehearsal):
                left_out[each.name] = reason
                continue
            job, path = _measuring(each, recipe, places, training, rehearsal, wandb)
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


def _fits(training: Training, places: Places, free: Sequence[str]) -> Iterator[Job]:
    ends: dict[tuple[str, str], str] = {}
    for piece in training.pieces:
        needs = [ends[piece.after]] if piece.after else []
        name = f"fit-{piece.run}"
        name += f"-to-{piece.stages[-1]}" if piece.stops else ""
        if piece.after and piece.after[0] != piece.run:
            source = places.runs / piece.after[0] / piece.after[1]
            begin = ["--init_from", str(source), "--from_stage", str(piece.first)]
        else:
            begin = _own_begin(piece, training, places)
        stop = ["--to_stage", piece.stages[-1]] if piece.stops else []
        place = ["--run", piece.run, "--runs_dir", str(places.runs)]
        for stage in piece.stages:
            ends[piece.run, stage] = name
        yield Job(
            name=name,
            command="fit",
            arguments=(*piece.arguments, *place, *begin, *stop),
            outputs=(places.runs / piece.run / piece.stages[-1] / "last.ckpt",),
            needs=tuple(needs),
            free=tuple(free),
        )


def _own_begin(piece: Trained, training: Training, places: Places) -> list[str]:
    """Return how the run of a piece began: the same in every piece of it."""
    first = next(each for each in training.pieces if each.run == piece.run)
    if not first.after:
        return []
    source = places.runs / first.after[0] / first.after[1]
    return ["--init_from", str(source), "--from_stage", str(first.first)]


def _measuring(
    each: Measurement,
    recipe: Recipe,
    places: Places,
    training: Training,
    rehearsal: Rehearsal | None,
    wandb: bool,
) -> tuple[Job | None, Path]:
    """Return a measurement's job and the file that it makes."""
    if each.command == "results":
        return None, Path(with_variables(each.of))
    options = dict(each.options)
    of = each.of
    if each.command in _CODING:
        options = {**recipe.protocol, **options}
    if rehearsal:
        own = dict(each.rehearse or {})
        of = own.pop("of", of)
        # Sequences of its own are real ones.
        options.pop("sequences", None)
        smaller = recipe.rehearse if each.command in _CODING else {}
        options = {**options, **rehearsal.options(each.command), **smaller, **own}
    foreign = _NOT_OF.get(each.command, ())
    options = {key: value for key, value in options.items() if key not in foreign}
    words: list[str] = []
    needs: tuple[str, ...] = ()
    video = options.pop("video", None)
    if each.command == "stream":
        words.append(str(rehearsal.video if rehearsal else video))
    if each.command == "anchor":
        words += ["--codec", of]
    elif each.command == "profile":
        run = recipe.runs.get(of)
        configs = run.config if run else of.split()
        words += [word for name in configs for word in ("--config", name)]
    elif each.of_weights and of == each.of:
        words += ["--checkpoint", of]
    else:
        run_name, stage = training.ends[of]
        words += ["--checkpoint", str(places.runs / run_name / stage)]
        needs = (_fit_of(run_name, stage, training),)
    if each.command in (*_CODING, "propagation"):
        specs = rehearsal.sequences if rehearsal else recipe.sequences
        options = {"sequences": list(specs), **options}
    if each.command != "stream" and each.command != "profile":
        options["name"] = each.name
    words += arguments(options)
    # Without the folder's name: it may be moved.
    deciding = [word.replace(str(places.output), "") for word in words]
    told = json.dumps([each.command, *deciding]).encode()
    stem = f"{safe_name(each.name)}-{hashlib.sha256(told).hexdigest()[:8]}"
    made = places.results / (stem if each.command in _FOLDERS else f"{stem}.json")
    path = made / f"{each.command}.json" if each.command in _FOLDERS else made
    return (
        Job(
            name=f"{each.command}-{stem}",
            command=each.command,
            arguments=(*words, "--output", str(made)),
            outputs=(path,),
            needs=needs,
            free=("--wandb",) if wandb and each.command in _CODING else (),
        ),
        path,
    )


_CODING = ("evaluate", "anchor")
"""Commands that the recipe's protocol is for."""

_NOT_OF = {
    "anchor": ("rate", "estimate", "target_bpp", "target_kbps", "scales", "latents"),
    "evaluate": ("qp", "crf", "quality"),
}
"""Options of a protocol that a command does not have."""

_FOLDERS = ("propagation", "stream")
"""Commands that write a folder with a JSON file of their name."""


def _fit_of(run: str, stage: str, training: Training) -> str:
    """Return the name of the job that ends with a run's stage."""
    for piece in training.pieces:
        if piece.run == run and stage in piece.stages:
            return f"fit-{run}" + (f"-to-{piece.stages[-1]}" if piece.stops else "")
    raise KeyError(f"{run}/{stage}")


def _missing(each: Measurement, rehearsal: Rehearsal | None) -> str:
    """Return why a measurement that needs something supplied is not done here."""
    if rehearsal and each.of_weights:
        stands_in = "of" in (each.rehearse or {})
        return "" if stands_in else "a rehearsal has no run in place of these weights"
    if not each.supply:
        return ""
    if each.command == "results":
        try:
            there = Path(with_variables(each.of)).is_file()
        except ValueError:
            there = False
        return "" if there else each.supply
    if rehearsal:
        return ""
    texts = [each.of, *(str(value) for value in each.options.values())]
    unset = [text for text in texts if _unset(text)]
    return each.supply if unset else ""


def _unset(text: str) -> bool:
    try:
        with_variables(text)
    except ValueError:
        return bool(VARIABLE.search(text))
    return False


def _table_job(
    recipe: Recipe,
    places: Places,
    needs: tuple[str, ...],
    rehearsal: Rehearsal | None,
    wandb: bool,
) -> Job:
    inside = "recipes" in recipe.path.parts and "/" in recipe.name
    words = recipe.name.split("/") if inside else [str(recipe.path)]
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
