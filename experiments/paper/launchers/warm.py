"""Jobs in processes that have loaded everything: a rehearsal is mostly imports else."""

import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

from experiments.cli.lvc import COMMANDS
from experiments.paper.job import Job
from experiments.paper.launchers.local import Running, Start
from lightning_modules.numerics import PINS

LOADED = (
    "experiments.fit.run",
    "experiments.fit.options",
    "experiments.evaluate.jobs",
    "experiments.evaluate.learned",
    "experiments.anchor.command",
    "experiments.compare.command",
    "experiments.profile.complexity",
)


class _Warm:
    def __init__(self, process: Any) -> None:
        self.process = process

    def code(self) -> int | None:
        code: int | None = self.process.exitcode
        return code

    def stop(self, *, by_force: bool) -> None:
        self.process.kill() if by_force else self.process.terminate()


def warm_start() -> Start:
    """Return what starts a job in a copy of a process that has loaded the suite."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    before = dict(os.environ)
    try:
        # What coding commands hold themselves to before they load torch.
        for name, value in PINS.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)

    def start(job: Job, log: Path, place: int, places: int) -> Running:
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [*job.arguments, *job.free]
        process = context.Process(target=_run, args=(job.command, words, str(log)))
        process.start()
        return _Warm(process)

    return start


def _run(command: str, words: Sequence[str], log: str) -> None:
    """Run a command in this process, with its output in a file."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [command, *words]
    sys.exit(import_module(COMMANDS[command][0]).main(words))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
