"""``fit`` with a stopwatch: ``python -m experiments.profile.benchmark.watched_fit``.

It trains as the command does, and ends at the last step that is timed: what comes after
that, a checkpoint of gigabytes, is not measured.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.fit.command import main as fit


class Stopwatch:
    """Times optimizer steps, and ends the process after the last one.

    The first half of the steps is not timed: kernels are chosen, compiled and cached,
    and loaders fill their queues.

    Args:
        path: Where the figures go.
        steps: How many are waited for.
        until: Time, as ``time.time`` gives it, at which fewer must do.
    """

    def __init__(self, path: Path, steps: int, until: float) -> None:
        self._path = path
        self._steps = steps
        self._until = until
        self._times: list[float] = []

    def step(self, *_: Any) -> None:
        """Note a step; at the last one write the figures and end."""
        self._times.append(time.perf_counter())
        done = len(self._times)
        if done == self._steps // 2:
            _synchronize()
        # Two at least: one is no interval.
        if done < self._steps and (time.time() < self._until or done < 2):
            return
        _synchronize()
        first = done // 2
        seconds = time.perf_counter() - self._times[first - 1]
        figures = {"seconds": seconds / (done - first), "steps": done - first}
        self._path.write_text(json.dumps({**figures, "memory": _peak_memory()}))
        os._exit(0)


def main(argv: Sequence[str]) -> int:
    """Train with the options after the first three: file, steps, and seconds."""
    path, steps, seconds, *options = argv
    # Imported here: the process does no more than this before it trains.
    from torch.optim.optimizer import register_optimizer_step_post_hook

    watch = Stopwatch(Path(path), int(steps), time.time() + float(seconds))
    register_optimizer_step_post_hook(watch.step)
    return fit(options)


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_memory() -> int:
    """Return the bytes that torch allocated at most, of a CPU the resident set's."""
    import resource

    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
