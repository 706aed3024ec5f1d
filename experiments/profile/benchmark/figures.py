"""Measured figures, and the conditions that they are measured in."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
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
