"""Measured figures, and a fair ratio of two ways to do one thing."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: The measured thing, such as ``"fit beside a plain loop, UI2C small"``.
        value: The number; ``None`` where there is none, and ``note`` or ``error`` says
            why.
        unit: Its unit, such as ``"s/step"``, ``"ratio"`` or ``"clips/CPU s"``.
        goal: The wanted value, such as ``"at most 1.05"``; empty where there is none.
        note: Sizes, threads and samples: the conditions of the measurement.
        error: Why this figure failed, where its part goes on without it; the command's
            exit code tells of it.
    """

    name: str
    value: float | None
    unit: str
    goal: str = ""
    note: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Conditions that every part of the benchmark shares.

    Attributes:
        form: ``small`` takes seconds a part, on any machine; ``full`` is the figure
            that a table shows.
        device: Where networks run, ``cpu`` or ``cuda``.
        clips: Folder of real videos for parts that read some; made videos where None.
        scratch: Existing folder for files, removed afterwards.
        seconds: Time that the part has; it is stopped then, and keeps the figures that
            it has given.
    """

    form: Literal["small", "full"] = "small"
    device: str = "cpu"
    clips: Path | None = None
    scratch: Path
    seconds: float = math.inf


LACKS_PYAV = "left out: it needs the package av, with which videos are read"
"""The note of a part that reads videos, on a machine that cannot."""


def has_pyav() -> bool:
    """Return whether videos can be read; machines for benchmarks may lack that."""
    return find_spec("av") is not None


Part = Callable[[Settings], Iterable[Figure]]
"""Measures one part: ``measure`` of each module that ``PARTS`` names.

It runs in a process of its own. One that gives figures as they come keeps them if it
fails or is stopped.
"""


def alternating(
    candidate: Callable[[], object],
    baseline: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float]:
    """Time two ways to do one thing in turns, after one run of each that warms up.

    Args:
        candidate: The one way.
        baseline: The other.
        repeats: Timed runs of each.
        clock: Gives seconds; by default CPU seconds of this process and its threads,
            which other load on the machine disturbs least.

    Returns:
        Median seconds of the candidate, and median of the ratios candidate / baseline
        of neighbouring runs.
    """
    candidate()
    baseline()
    seconds, ratios = [], []
    for _ in range(repeats):
        begun = clock()
        candidate()
        between = clock()
        baseline()
        ended = clock()
        seconds.append(between - begun)
        ratios.append((between - begun) / max(ended - between, 1e-9))
    return median(seconds), median(ratios)
