"""What a run computes in: chosen for the machine, kept where it goes on, and said.

``auto`` becomes what the first machine is good at, before anything is stored or
compared: a run's ``config.yaml`` and its loggers name what it trained in. A run that
goes on, on whatever machine, goes on in that.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.fit.options import TrainerOptions
from lightning_modules.float32 import allow, restored
from lightning_modules.ranks import gather
from lightning_modules.stages import AUTO, Stage

FORMER = {"precision": "32-true", "matmul_precision": None}
"""What a run was trained in whose ``config.yaml`` does not say it."""

AMPERE = 8
"""Compute capability from which on NVIDIA's GPUs have bfloat16 and TF32."""


@dataclass(frozen=True)
class Machine:
    """What products are fast in here.

    Attributes:
        name: Of the GPUs that a run takes, or ``CPU``.
        precision: Lightning's.
        matmul_precision: Torch's.
    """

    name: str
    precision: str
    matmul_precision: str

    @classmethod
    def of(cls, options: TrainerOptions) -> "Machine":
        """Return that of the GPUs or the processor that the options choose."""
        gpus = torch.cuda.device_count() if options.accelerator != "cpu" else 0
        if not gpus:
            return cls("CPU", "32-true", "highest")
        names = dict.fromkeys(torch.cuda.get_device_name(gpu) for gpu in range(gpus))
        name = " and ".join(names)
        if torch.version.hip:
            return cls(name, "bf16-mixed", "highest")
        # All of them, of which a run may take some: the ranks must agree.
        oldest = min(torch.cuda.get_device_capability(gpu)[0] for gpu in range(gpus))
        if oldest < AMPERE:
            return cls(name, "32-true", "highest")
        return cls(name, "bf16-mixed", "high")


def settle(
    options: dict[str, Any], config: Namespace, begun: Mapping[str, Any] | None
) -> str:
    """Replace each ``auto`` by what it stands for in this run, and say it.

    Args:
        options: Of the run, as plain values; changed.
        config: The same, with classes instantiated; changed.
        begun: What the run was begun with, as its ``config.yaml`` has it; ``None``
            for a new run.

    Returns:
        One line: what the run computes in.
    """
    trainer: TrainerOptions = config.trainer
    machine = Machine.of(trainer)
    stages: list[Stage] = config.stages or []
    own = {name: getattr(machine, name) for name in FORMER}
    new = choice = _Choice.of(trainer, stages, own, {})
    if begun is not None:
        choice = _Choice.of(trainer, stages, _kept(begun), _kept_rows(begun))
    for name in FORMER:
        value = getattr(choice, name)
        setattr(trainer, name, value)
        options["trainer"][name] = value
    for number, (_, value) in enumerate(choice.rows):
        config.stages[number] = replace(stages[number], precision=value)
        options["stages"][number]["precision"] = value
    said = f"computes in {choice.in_words(', matmul_precision ')}, on {machine.name}"
    if new != choice:
        said += ", as the run began: one begun here would take "
        said += new.in_words(" and ")
    return said


@dataclass(frozen=True)
class _Choice:
    """What a run computes in, without ``auto``; ``rows`` are pairs of name and own."""

    precision: str
    matmul_precision: str | None
    rows: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(
        cls,
        options: TrainerOptions,
        stages: list[Stage],
        auto: Mapping[str, Any],
        auto_rows: Mapping[str, str | None],
    ) -> "_Choice":
        """Return what is given, and in place of ``auto`` those values."""
        both = {name: getattr(options, name) for name in FORMER}
        both = {n: auto[n] if value == AUTO else value for n, value in both.items()}
        rows = tuple(
            (stage.name, auto_rows.get(stage.name) or auto["precision"])
            if stage.precision == AUTO
            else (stage.name, stage.precision)
            for stage in stages
        )
        return cls(**both, rows=rows)

    def in_words(self, between: str) -> str:
        """Say both."""
        found: dict[str, list[str]] = {}
        for row, precision in self.rows:
            found.setdefault(precision or self.precision, []).append(row)
        names = [*found] or [self.precision]
        if len(found) > 1:
            names = [f"{name} ({', '.join(rows)})" for name, rows in found.items()]
        matmul = self.matmul_precision or "as torch begins"
        digits = {"high": " (TF32)", "medium": " (TF32, bfloat16)"}.get(matmul, "")
        return f"{' and '.join(names)}{between}{matmul}{digits}"


def _kept(begun: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the trainer of a run computes in, as its configuration has it."""
    trainer = begun.get("trainer")
    return {**FORMER, **(trainer if isinstance(trainer, dict) else {})}


def _kept_rows(begun: Mapping[str, Any]) -> dict[str, str | None]:
    """Return its rows' own precisions; what is wrong there is told where it is used."""
    rows = begun.get("stages")
    named = [r for r in rows if isinstance(r, dict)] if isinstance(rows, list) else []
    return {str(row.get("name")): row.get("precision") for row in named}


def with_former(options: dict[str, Any]) -> dict[str, Any]:
    """Return an earlier version's options with what it trained in, unsaid."""
    trainer = options.get("trainer")
    if not isinstance(trainer, dict):
        return options
    return {**options, "trainer": {**FORMER, **trainer}}


def comparable(options: dict[str, Any]) -> dict[str, Any]:
    """Return options in which no row names the precision that it has anyway."""
    trainer, rows = options.get("trainer"), options.get("stages")
    if not isinstance(trainer, dict) or not isinstance(rows, list):
        return options
    usual = trainer.get("precision")
    named = [
        {**row, "precision": None}
        if isinstance(row, dict) and row.get("precision") == usual
        else row
        for row in rows
    ]
    return {**options, "stages": named}


@contextmanager
def computing(options: TrainerOptions) -> Iterator[None]:
    """Train with a run's exactness of float32 products; then restore the process's.

    Args:
        options: Without ``auto``.
    """
    with restored():
        _set(options)
        yield


def _set(options: TrainerOptions) -> None:
    if options.matmul_precision is not None:
        allow(options.matmul_precision, benchmark=options.benchmark)
    torch.backends.cudnn.benchmark = options.benchmark


class OneArithmetic(Callback):
    """Has every rank compute as the options say, and look that the others do, too.

    Args:
        options: Without ``auto``.
        precision: Of the stage.
    """

    def __init__(self, options: TrainerOptions, precision: str) -> None:
        self.options = options
        self.precision = precision

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set it in processes that did not come through the command, and compare.

        Raises:
            ValueError: Ranks differ: their machines have other GPUs, and each chose
                for itself. On all ranks alike.
        """
        _set(self.options)
        ranks = gather((self.precision, self.options.matmul_precision))
        found = list(dict.fromkeys(ranks))
        if len(found) > 1:
            told = "; ".join(f"{own} from rank {ranks.index(own)}" for own in found)
            raise ValueError(
                f"the machines chose precision and matmul_precision apart ({told}): "
                "give --trainer.precision and --trainer.matmul_precision"
            )
