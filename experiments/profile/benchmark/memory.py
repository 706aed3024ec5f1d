"""Memory of a training step against frames, reckoned: ``--parts memory``.

Peaks lie on a line over frames: a slope, and an offset for weights and one unit. See
``reckoned`` for the way, and what it leaves out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.reckoned import peak_of_step, started
from experiments.profile.benchmark.rows import codec_configs
from experiments.profile.benchmark.training import batch_of
from lightning_modules.base import CodecModule
from lightning_modules.stages import Stage

GIGABYTE = 1e9
LARGEST = 40.0
"""Gigabytes of the device that every row must fit."""
GOAL = f"at most {LARGEST:g}"

SHAPES: dict[str, tuple[str, tuple[int, ...], int]] = {
    "small": ("tiny", (3, 5), 64),
    "full": ("", (7, 16, 32), 0),
}
"""By form: size of the networks (the configuration's own where empty), numbers of
frames, crop (the row's own for 0)."""

SETTINGS = (
    ("32-true", True),
    ("32-true", False),
    ("bf16-mixed", True),
    ("bf16-mixed", False),
)
"""Precisions, and whether activations are recomputed. The first takes all numbers of
frames, to show that they lie on a line, the others the first two."""


def measure(settings: Settings) -> Iterator[Figure]:
    """Reckon each configuration's last row by frames, and every row that is heaviest.

    The small form leaves out all but float32 with recomputed activations.
    """
    size = SHAPES[settings.form][0]
    for config in codec_configs():
        module, stages = started(config, size)
        try:
            yield from _of_config(config, module, stages, settings.form)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            note = f"left out from here on: {error.func} depends on values"
            yield Figure(config, None, "", note=note)


def _of_config(
    config: str, module: CodecModule, stages: Sequence[Stage], form: str
) -> Iterator[Figure]:
    _, counts, crop = SHAPES[form]
    full = form == "full"
    last = replace(stages[-1], crop=crop or stages[-1].crop)
    chosen = SETTINGS if full else SETTINGS[:1]
    for number, (precision, recompute) in enumerate(chosen):
        row = replace(last, precision=precision, checkpoint_activations=recompute)
        own = counts[:2] if number else counts
        yield from _line(module, config, row, own, stages[-1].frames)
    for row in heaviest(stages[:-1]) if full else ():
        for precision in ("32-true", "bf16-mixed"):
            stage = replace(row, precision=precision)
            peak = peak_of_step(module, stage, batch_of(row))
            name = f"{config}, row {row.name}, {_described(stage)}"
            yield Figure(name, peak / GIGABYTE, "GB", GOAL, _shape(stage))


def _line(
    module: CodecModule, config: str, row: Stage, counts: Sequence[int], frames: int
) -> Iterator[Figure]:
    """Reckon a row at several numbers of frames, and give their line."""
    samples = batch_of(row)
    peaks = [peak_of_step(module, replace(row, frames=n), samples) for n in counts]
    slope, offset, off = line(counts, peaks)
    name = f"{config}, {row.name}, {_described(row)}"
    note = f"{counts} frames: {', '.join(f'{p / GIGABYTE:.3f}' for p in peaks)} GB"
    if len(counts) > 2:
        note += f", at most {off / 1e6:.1f} MB off the line"
    yield Figure(f"{name}: a frame more", slope / 1e6, "MB/frame", "", note)
    yield Figure(f"{name}: offset", offset / 1e6, "MB")
    whole = (offset + slope * frames) / GIGABYTE
    goal = GOAL if row.checkpoint_activations else ""
    note = _shape(replace(row, frames=frames))
    yield Figure(f"{name}: all frames", whole, "GB", goal, note)


def line(counts: Sequence[int], peaks: Sequence[int]) -> tuple[float, float, float]:
    """Return slope and offset of peaks over frames, by the ends, and what lies off."""
    slope = (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])
    offset = peaks[0] - slope * counts[0]
    pairs = zip(counts, peaks, strict=True)
    return slope, offset, max(abs(p - offset - slope * n) for n, p in pairs)


def heaviest(stages: Sequence[Stage]) -> list[Stage]:
    """Return the rows of which no other one needs as much for the same kind of step."""
    return [
        stage
        for number, stage in enumerate(stages)
        if not any(
            _kind(stage) == _kind(other)
            and _sizes(stage) <= _sizes(other)
            and all(a <= b for a, b in zip(_sizes(stage), _sizes(other), strict=True))
            and (_sizes(stage) != _sizes(other) or place > number)
            for place, other in enumerate(stages)
        )
    ]


def _kind(stage: Stage) -> tuple[object, ...]:
    terms = sorted(name for name, weight in stage.weights.items() if weight)
    options = sorted(stage.options.items())
    recompute = stage.checkpoint_activations
    return recompute, stage.unroll, options, sorted(stage.trainable), terms


def _sizes(stage: Stage) -> tuple[int, int, int]:
    return stage.frames, stage.crop, batch_of(stage)


def _described(stage: Stage) -> str:
    kept = "recomputed" if stage.checkpoint_activations else "kept"
    return f"{stage.precision}, {kept}"


def _shape(stage: Stage) -> str:
    return (
        f"{batch_of(stage)} of {stage.batch_size} clips, {stage.frames} frames, "
        f"{stage.crop}x{stage.crop}"
    )
