"""A stage is one row of a training schedule, and one row is one ``Trainer.fit``."""

import re
from dataclasses import dataclass, field, replace
from math import cos, inf, pi
from typing import Any, Literal

AUTO = "auto"
"""What the machine that a run begins on is good at."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", AUTO)
"""Lightning's precisions that keep the weights float32, as the suite's code expects."""

TAKEN = (
    *("config.yaml", "media", "metrics.csv", "results", "tensorboard"),
    *("wandb", "wandb_checkpoints.txt", "wandb_id.txt"),
)
"""What a run's folder holds beside its stages' folders."""


def check_least(whose: str, options: object, **least: float) -> None:
    """Raise ``ValueError`` if a number is too small or not finite.

    Args:
        whose: Whose options they are, for the message.
        options: Has them as attributes; what is no number passes.
        least: The least value of each.
    """
    for name, low in least.items():
        value = getattr(options, name)
        if isinstance(value, int | float) and not low <= value < inf:
            raise ValueError(
                f"{whose}: {name} is {value}, it must be at least {low}"
                + (" and finite" if isinstance(value, float) else "")
            )


def check_precision(whose: str, precision: str) -> None:
    """Raise ``ValueError`` if nothing can be trained in a precision."""
    if precision not in PRECISIONS:
        raise ValueError(
            f"{whose}: there is no precision {precision!r} to train in, choose from "
            f"{', '.join(PRECISIONS)}"
        )


@dataclass(frozen=True)
class Stage:
    """One row of a schedule.

    Attributes:
        name: Directory of its checkpoints, value of ``--from_stage``: letters, digits
            and ``_``, from the second one on also ``-`` and ``.``.
        steps: Optimizer steps.
        frames: Frames of a training clip.
        crop: Side of the square crop in pixels.
        batch_size: Clips per optimizer step over all devices together, so that a
            run means the same on 1 GPU and on 8.
        lr: Learning rate (at its peak, if the schedule varies it).
        schedule: ``constant`` or ``cosine`` (down to 1 % of ``lr``).
        warmup: Steps in which the learning rate rises linearly from 0.
        weights: Of loss terms, by name. What it does not name has weight 1 if it is a
            term of the codec, as ``rate`` and ``distortion`` are, and 0 otherwise. A
            term of weight 0 is not computed.
        trainable: Sub-modules of the codec that train; empty means all.
        frozen: Sub-modules that do not, for example because no frame of this stage
            reaches them.
        options: Arguments of the codec's training draws that this stage changes,
            for example ``{"references": {"blank": 1.0}}``.
        data: Arguments of the data module that this stage changes, for example
            another ``source`` and ``root`` for long clips; but ``--data.X`` on the
            command line holds for every stage without ``--stages.NAME.data.X``.
        checkpoint_activations: Recompute each unit's activations in the backward
            pass: memory for one unit instead of all, about a third more time.
        precision: Lightning's precision, for example ``bf16-mixed``; that of the
            trainer if null.
        unroll: How far gradients go back, and what a step is: a whole ``clip``, or a
            ``unit`` of it, which refers to the units before it as to constants. A
            batch of clips then takes as many steps as they have units.
        clip_norm: Largest gradient norm; that of the trainer if null.
        balance: Each training sample's loss is divided by its lambda to this power. At
            0, as in the papers, high rates have most of the gradient; 0.5 lets all
            rates learn alike.

    Raises:
        ValueError: A value is out of range, or no folder can have the name.
    """

    name: str
    steps: int
    frames: int
    crop: int = 256
    batch_size: int = 8
    lr: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    weights: dict[str, float] = field(default_factory=dict)
    trainable: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    checkpoint_activations: bool = False
    precision: str | None = None
    unroll: Literal["clip", "unit"] = "clip"
    clip_norm: float | None = None
    balance: float = 0.0

    def __post_init__(self) -> None:
        this = f"stage {self.name!r}"
        if not re.fullmatch(r"\w[\w.-]*", self.name) or self.name in TAKEN:
            raise ValueError(
                f"{this}: a folder of the run gets its name, so it must consist of "
                "letters, digits, '_', '-' and '.', begin with none of the last two, "
                f"and not be one of {', '.join(TAKEN)}"
            )
        check_least(this, self, steps=1, frames=1, crop=1, batch_size=1, warmup=0)
        if not 0 < self.lr < inf:
            raise ValueError(f"{this}: lr is {self.lr}, it must be above 0 and finite")
        if self.clip_norm is not None and not 0 < self.clip_norm < inf:
            raise ValueError(
                f"{this}: clip_norm is {self.clip_norm}, it must be above 0 and finite"
            )
        if not 0 <= self.balance <= 1:
            raise ValueError(f"{this}: balance is {self.balance}, it must be 0 to 1")
        for name, weight in self.weights.items():
            if not 0 <= weight < inf:
                raise ValueError(
                    f"{this}: the weight of {name} is {weight}, it must be at least 0 "
                    "and finite"
                )
        if self.precision is not None:
            check_precision(this, self.precision)
        if twice := sorted({"frames", "crop", "batch_size"} & set(self.data)):
            raise ValueError(f"{this}: {twice} belong in the row itself, not in data")

    @property
    def codes(self) -> bool:
        """Whether bits count in the loss; where they do not, there need be none."""
        return self.weights.get("rate", 1.0) != 0.0

    def lr_at(self, step: int) -> float:
        """Return the learning rate of optimizer step ``step``, from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.01 + 0.99 * (1 + cos(pi * min(1.0, done))) / 2)


UNTRAINED = Stage("untrained", 1, 1)
"""The stage of a module that no stage has been started for."""


@dataclass(frozen=True)
class Shrink:
    """Caps that turn any schedule into a rehearsal of minutes.

    Every row stays, so a rehearsal runs what the cluster will run; only its own
    ``data`` and ``clip_norm`` are dropped, so that those of the rehearsal serve all.

    Attributes:
        total_steps: Steps of all stages together, split in proportion to theirs.
        min_steps: Steps that no stage goes below (unless it has fewer).
        frames: Longest clip.
        crop: Largest crop.
        batch_size: Largest batch.
        lr_scale: Factor on every learning rate: few steps need large ones.

    Raises:
        ValueError: A value is out of range.
    """

    total_steps: int = 400
    min_steps: int = 10
    frames: int = 5
    crop: int = 64
    batch_size: int = 4
    lr_scale: float = 10.0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("total_steps", "min_steps", "frames", "crop"), 1)
        check_least("shrink", self, **least, batch_size=1)
        if not 0 < self.lr_scale < inf:
            raise ValueError(
                f"shrink: lr_scale is {self.lr_scale}, it must be above 0 and finite"
            )

    def apply(self, stages: list[Stage]) -> list[Stage]:
        """Return the schedule with every row capped; rows keep their names."""
        whole = sum(stage.steps for stage in stages)
        return [
            replace(
                stage,
                steps=min(
                    stage.steps,
                    max(self.min_steps, round(self.total_steps * stage.steps / whole)),
                ),
                frames=min(stage.frames, self.frames),
                crop=min(stage.crop, self.crop),
                batch_size=min(stage.batch_size, self.batch_size),
                lr=stage.lr * self.lr_scale,
                warmup=0,
                data={},
                clip_norm=None,
            )
            for stage in stages
        ]


def check_stages(stages: list[Stage]) -> None:
    """Raise ``ValueError`` if there is no stage or two share a name."""
    if not stages:
        raise ValueError("the schedule has no stage: give at least one row in `stages`")
    names = [stage.name for stage in stages]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"stage names must differ, but these occur twice: {twice}")
