"""One part of the benchmark in a process of its own: what fails there, ends there."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.profile.benchmark.figures import Figure, Part, Settings

ROOT = Path(__file__).parents[3]

FIGURES = "figures.jsonl"
LOG = "log.txt"
"""Files in a part's scratch folder: a line for each figure, and all that it prints."""


@dataclass
class Outcome:
    """What came of a part.

    Attributes:
        name: Of the part.
        seconds: How long it took.
        figures: What it measured.
        error: Why it has no more; empty if nothing went wrong.
    """

    name: str
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    error: str = ""

    @property
    def errors(self) -> list[str]:
        """What went wrong, each in one line."""
        own = [f"{f.name}: {f.error}" for f in self.figures if f.error]
        return [*filter(None, [self.error]), *own]


def run_part(name: str, module: str, settings: Settings) -> Outcome:
    """Measure a part, for no longer than its settings allow.

    Args:
        name: Of the part.
        module: Has ``measure``.
        settings: Of the part; its scratch folder is its own.
    """
    outcome = Outcome(name)
    stopped = False
    given = {k: str(v) if isinstance(v, Path) else v for k, v in vars(settings).items()}
    begun = time.monotonic()
    with (settings.scratch / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name, module, json.dumps(given)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment() | alone(settings),
            # With all that it starts, so that nothing of it stays.
            start_new_session=True,
        )
        try:
            limit = None if settings.seconds == float("inf") else settings.seconds
            process.wait(limit)
        except subprocess.TimeoutExpired:
            stopped = True
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    outcome.seconds = time.monotonic() - begun
    ended = False
    for line in _lines(settings.scratch / FIGURES):
        if "name" in line:
            outcome.figures.append(_finite(Figure(**line)))
        else:
            ended = True
            outcome.error = line["error"]
    if stopped and not ended:
        outcome.error = f"stopped after the {settings.seconds:.0f} s that it had"
    elif not ended:
        outcome.error = f"its process ended with exit code {process.returncode}: " + (
            last_line(settings.scratch / LOG) or "it said nothing"
        )
    return outcome


def _finite(figure: Figure) -> Figure:
    """Return a figure that JSON can hold: one without end is a failure."""
    if figure.value is None or math.isfinite(figure.value):
        return figure
    error = figure.error or f"it is {figure.value}, which is no number"
    return replace(figure, value=None, error=error)


def environment() -> dict[str, str]:
    """Return the environment of a process that imports this suite from anywhere."""
    search = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}


def alone(settings: Settings) -> dict[str, str]:
    """Return the environment of the small form on a CPU: one thread.

    Tiny networks are faster so, and others that use the machine disturb them less.
    """
    if settings.form == "full" or settings.device != "cpu":
        return {}
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def last_line(log: Path) -> str:
    """Return the last line of a log that says something; empty if none does."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def reason(error: BaseException) -> str:
    """Return an error in one line; of a bug also its kind."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON; it may have been killed in its last."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def main(argv: Sequence[str]) -> int:
    """Measure the part of a module, and write a line for each figure."""
    module, given = argv[0], json.loads(argv[1])
    for name in ("clips", "scratch"):
        given[name] = Path(given[name]) if given[name] else None
    settings = Settings(**given)
    error = ""
    with (settings.scratch / FIGURES).open("a") as file:

        def put(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        try:
            part: Part = import_module(module).measure
            for figure in part(settings):
                put(asdict(figure))
        except (Exception, SystemExit) as caught:
            error = reason(caught)
            raise
        finally:
            put({"error": error})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
