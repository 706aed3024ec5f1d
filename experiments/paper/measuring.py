"""The jobs that measure."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from experiments.paper.fitting import job_of
from experiments.paper.job import Job
from experiments.paper.places import Places
from experiments.paper.recipe import (
    VARIABLE,
    Measurement,
    Options,
    Recipe,
    arguments,
    with_variables,
)
from experiments.paper.rehearsal import Rehearsal
from experiments.paper.training import Training
from experiments.results.drawing.names import safe_name

CODING = ("evaluate", "anchor")
"""Commands that the recipe's protocol is for."""

NOT_OF = {
    "anchor": ("rate", "estimate", "target_bpp", "target_kbps", "scales", "latents"),
    "evaluate": ("qp", "crf", "quality"),
}
"""Options of a protocol that a command does not have."""

FOLDERS = ("propagation", "stream")
"""Commands that write a folder with a JSON file of their name."""


@dataclass(frozen=True)
class Measuring:
    """Makes the jobs of measurements.

    Attributes:
        recipe: Has the protocol.
        places: Where files lie.
        training: Says which runs' ends are measured.
        rehearsal: How it is rehearsed, or ``None``.
        wandb: Whether results are logged to W&B.
    """

    recipe: Recipe
    places: Places
    training: Training
    rehearsal: Rehearsal | None
    wandb: bool

    def job(self, each: Measurement) -> tuple[Job | None, Path]:
        """Return a measurement's job, if it needs one, and the file of its figures."""
        command = each.command
        if command == "results":
            return None, Path(with_variables(each.of))
        options = self._options(each)
        words, needs = self._subject(each, options)
        words += arguments(options)
        # Without the folder's name: it may be moved.
        deciding = [word.replace(str(self.places.output), "") for word in words]
        told = json.dumps([command, *deciding]).encode()
        stem = f"{safe_name(each.name)}-{hashlib.sha256(told).hexdigest()[:8]}"
        in_folder = command in FOLDERS
        made = self.places.results / (stem if in_folder else f"{stem}.json")
        path = made / f"{command}.json" if in_folder else made
        job = Job(
            name=f"{command}-{stem}",
            command=command,
            arguments=(*words, "--output", str(made)),
            outputs=(path,),
            needs=needs,
            free=("--wandb",) if self.wandb and command in CODING else (),
        )
        return job, path

    def _options(self, each: Measurement) -> Options:
        """Return the options of its command: its own over those of the protocol."""
        command, recipe, rehearsal = each.command, self.recipe, self.rehearsal
        options = dict(each.options)
        if command in CODING:
            options = {**recipe.protocol, **options}
        if command in (*CODING, "propagation"):
            options = {"sequences": list(recipe.sequences), **options}
        if rehearsal:
            if "sequences" in options:
                # Those of a recipe or a measurement are real ones.
                options["sequences"] = list(rehearsal.sequences)
            if "video" in options:
                options["video"] = str(rehearsal.video)
            smaller = recipe.rehearse if command in CODING else {}
            options |= {**rehearsal.options(command), **smaller}
            options |= {k: v for k, v in (each.rehearse or {}).items() if k != "of"}
        if command not in ("stream", "profile"):
            options["name"] = each.name
        foreign = NOT_OF.get(command, ())
        return {key: value for key, value in options.items() if key not in foreign}

    def _subject(
        self, each: Measurement, options: Options
    ) -> tuple[list[str], tuple[str, ...]]:
        """Return what is measured, as arguments, and the jobs that make it."""
        of = each.of
        if self.rehearsal:
            of = (each.rehearse or {}).get("of", of)
        if each.command == "anchor":
            return ["--codec", of], ()
        if each.command == "profile":
            run = self.recipe.runs.get(of)
            configs = run.config if run else of.split()
            return [word for name in configs for word in ("--config", name)], ()
        video = [str(options.pop("video"))] if each.command == "stream" else []
        if each.of_weights and of == each.of:
            return [*video, "--checkpoint", of], ()
        run_name, stage = self.training.ends[of]
        checkpoint = str(self.places.runs / run_name / stage)
        needs = (job_of(run_name, stage, self.training),)
        return [*video, "--checkpoint", checkpoint], needs


def why_left_out(each: Measurement, rehearsal: Rehearsal | None) -> str:
    """Return why a measurement is not done here; empty if it is."""
    if rehearsal and each.of_weights:
        stands_in = "of" in (each.rehearse or {})
        return "" if stands_in else "a rehearsal has no run in place of these weights"
    if not each.supply:
        return ""
    if each.command == "results":
        return "" if _is_set(each.of) and _is_there(each.of) else each.supply
    if rehearsal:
        return ""
    texts = [each.of, *(str(value) for value in each.options.values())]
    return "" if all(map(_is_set, texts)) else each.supply


def _is_there(text: str) -> bool:
    return Path(with_variables(text)).is_file()


def _is_set(text: str) -> bool:
    """Whether all variables that a text names have a value."""
    if not VARIABLE.search(text):
        return True
    try:
        with_variables(text)
    except ValueError:
        return False
    return True
