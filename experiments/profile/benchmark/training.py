"""One training run that is timed, and its options; what several parts share."""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from experiments.profile.benchmark.codecs import layers
from experiments.profile.benchmark.figures import Settings
from experiments.profile.benchmark.part import environment, last_line
from lightning_modules.lpips_network import heads_file
from lightning_modules.stages import Stage

STEPS = {"small": 4, "full": 50}
"""Optimizer steps, half of which are timed."""

GPUS = 8
"""Devices that a configuration's batch is meant for; one of them is measured."""

WAITING = "train/data_wait"
"""Key of the share of a step in which training waits for its data."""

NO_MEMORY = re.compile(r"memory ran out|out of memory", re.IGNORECASE)


class MemoryRanOutError(ValueError):
    """A row does not fit into this machine's memory."""


@dataclass(frozen=True)
class Timed:
    """What was measured of a run.

    Attributes:
        seconds: Of an optimizer step.
        steps: How many were timed.
        memory: Bytes at the peak: those that torch allocated on a GPU, or the resident
            set on a CPU.
        data_wait: Share of a step in which it waited for data, or ``None`` if the run
            does not say.
    """

    seconds: float
    steps: int
    memory: int
    data_wait: float | None


def train(
    name: str, row: Stage, settings: Settings, seconds: float, *more: str
) -> Timed:
    """Train a row for some steps, as ``fit`` does, and time it.

    Args:
        name: Of the codec's configuration.
        row: One of its rows.
        settings: Of the part.
        seconds: For all of it.
        more: Options of ``fit``.

    Raises:
        MemoryRanOutError: It does.
        ValueError: The run fails or does not come to its second step in time.
    """
    label = f"{name}-{row.name}-{len(list(settings.scratch.iterdir()))}"
    timed = settings.scratch / f"{label}.json"
    log = settings.scratch / f"{label}.log"
    steps = STEPS[settings.form]
    # The rest is for its imports, and for the step that is running then.
    command = [sys.executable, "-P", "-m", "experiments.profile.benchmark.watched_fit"]
    command += [str(timed), str(steps), str(0.8 * seconds)]
    command += [*options_of(name, row, settings), f"--run={label}", *more]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**environment(), "WANDB_MODE": "disabled"},
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"it came to no second step within {seconds:.0f} s ({last_line(log)})"
            ) from None
        finally:
            process.kill()
            process.wait()
    if not timed.exists():
        said = log.read_text(errors="replace")
        if NO_MEMORY.search(said):
            raise MemoryRanOutError(last_line(log))
        raise ValueError(f"exit code {process.returncode}: {last_line(log)}")
    return Timed(
        **json.loads(timed.read_text()),
        data_wait=data_wait(settings.scratch / label / "metrics.csv"),
    )


def options_of(name: str, row: Stage, settings: Settings) -> list[str]:
    """Return the options of ``fit`` that train a row alone, on made clips."""
    stage = f"--stages.{row.name}"
    options = [f"--config={each}" for each in layers(name, settings.form)]
    options += [f"--runs_dir={settings.scratch}", "--logger=csv"]
    options += [f"--from_stage={row.name}", f"--to_stage={row.name}"]
    options += ["--data.source=synthetic", "--data.root=null", "--data.val_clips=0"]
    options += [f"--data.workers={workers()}", "--trainer.devices=1"]
    accelerator = "gpu" if settings.device == "cuda" else "cpu"
    options += [f"--trainer.accelerator={accelerator}"]
    options += ["--trainer.log_every_n_steps=5", "--trainer.save_every_n_steps=1000000"]
    options += ["--tracking.strips_every_n_validations=0"]
    if settings.form == "full":
        options += [f"{stage}.steps={10 * STEPS['full']}"]
        options += [f"{stage}.batch_size={batch_of(row)}"]
    # Weights that have to be downloaded change no time.
    options += ["--model.lpips=random"]
    if heads_file("alex") is None:
        options += [f"{stage}.weights={json.dumps({**row.weights, 'lpips': 0.0})}"]
    return options


def batch_of(row: Stage) -> int:
    """Return the clips that one device of eight trains on in a step."""
    return max(1, row.batch_size // GPUS)


def workers() -> int:
    """Return how many processes load data: a core for each, and one that trains."""
    return max(1, min(8, len(os.sched_getaffinity(0)) - 1))


def data_wait(path: Path) -> float | None:
    """Return the share of a step that waits for data, as ``metrics.csv`` has it.

    The first value has the start of the loaders in it.
    """
    if not path.exists():
        return None
    with path.open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["name"] == WAITING]
    values = [float(row["value"]) for row in found]
    return median(values[1:] or values) if values else None


def has_option(name: str) -> bool:
    """Return whether this version's trainer knows an option."""
    from experiments.fit.options import TrainerOptions

    return name in {field.name for field in fields(TrainerOptions)}


def conditions(row: Stage, settings: Settings, *more: str) -> str:
    """Say what a run trained on."""
    size = f"{row.frames} frames of {row.crop}x{row.crop}, batch {batch_of(row)}"
    if settings.form == "small":
        size = "tiny, frames of 64x64"
    return ", ".join([row.name, size, *more])
