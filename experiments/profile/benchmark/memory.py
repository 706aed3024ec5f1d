"""Memory of a training step against frames, reckoned: ``--parts memory``.

The step runs on tensors that have shapes and no values, so a row of the schedule runs
at its own crop and length in any machine's memory, in minutes. Every storage is counted
from its birth until nothing holds it; the most that is held at once is the peak. Work
space inside single kernels and gaps of an allocator do not count: allow a tenth more.
"""

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.fit.options import instantiate
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.rows import codec_configs, model_arguments, parsed
from lightning_modules.base import CodecModule
from lightning_modules.draw import Draw
from lightning_modules.stages import Stage

GIGABYTE = 1e9
LARGEST = 40.0
"""Gigabytes of the device that every row must fit."""
SMALL_SIDE = 64
"""Sides of the clip that values are drawn for, before it is replaced."""

SHAPES: dict[str, tuple[str, tuple[int, ...], int]] = {
    "small": ("tiny", (5, 9), 64),
    "full": ("", (7, 16, 32), 0),
}
"""By form: size of the networks (the configuration's own where empty), numbers of
frames, crop (the row's own for 0)."""


class HeldBytes(TorchDispatchMode):
    """Counts what tensors hold, now and at most.

    Attributes:
        now: Bytes of all storages that something holds.
        peak: The most that ever were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                self.hold(each)
        return out

    def hold(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage until nothing holds it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_of_step(module: CodecModule, stage: Stage, samples: int) -> int:
    """Return the bytes that a step of a row holds at most.

    Args:
        module: Started with the row; its weights are replaced by ones without values.
        stage: The row.
        samples: Clips that a device takes at once.
    """
    module.train()
    draw = _draw(module, stage, samples)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    held = HeldBytes()
    with fake, held:
        _without_values(module)
        for weights in module.codec.parameters():
            held.hold(weights)
            # AdamW's two moments, and the average of weights that validation uses.
            held.now += 3 * weights.untyped_storage().nbytes()
        own = _full_size(draw, stage)
        precision = stage.precision or "32-true"
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16-mixed"):
            if stage.unroll == "unit":
                _step_units(module, own)
            else:
                out = module.codec(own.clip, own.rate, **own.conditions)
                module.loss(module.terms(own, out)).backward()
    return held.peak


def _step_units(module: CodecModule, draw: Draw) -> None:
    walk = module.codec.forward_units(draw.clip, draw.rate, **draw.conditions)
    start = 0
    for out in walk:
        stop = start + out.x_hat.shape[1]
        module.loss(module.terms(draw.between(start, stop), out)).backward()
        start = stop


def _draw(module: CodecModule, stage: Stage, samples: int) -> Draw:
    """Draw for a batch of small frames, with values."""
    clip = torch.zeros(samples, stage.frames, 3, SMALL_SIDE, SMALL_SIDE)
    return module.draw(clip, torch.arange(samples), training=True)


def _full_size(draw: Draw, stage: Stage) -> Draw:
    """Put frames of the row's crop in place of the small ones, without values."""

    def larger(x: torch.Tensor) -> torch.Tensor:
        if x.ndim < 4:
            return x if x.ndim == 0 else torch.empty_like(x).copy_(x)
        return x.new_empty(*x.shape[:-2], stage.crop, stage.crop)

    return replace(
        draw,
        clip=larger(draw.clip),
        rate=larger(draw.rate),
        lmbda=larger(draw.lmbda),
        frame_weights=larger(draw.frame_weights),
        conditions={name: larger(value) for name, value in draw.conditions.items()},
        groups={},
    )


def _without_values(module: CodecModule) -> None:
    for part in module.modules():
        stored: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for kind in stored:
            for name, own in kind.items():
                if own is None:
                    continue
                empty = torch.empty(own.shape, dtype=own.dtype)
                if isinstance(own, torch.nn.Parameter):
                    empty = torch.nn.Parameter(empty, own.requires_grad)
                kind[name] = empty


def started(config: str, size: str) -> tuple[CodecModule, list[Stage]]:
    """Return a configuration's module and its rows."""
    parser, options = parsed(model_arguments(config, size))
    made = instantiate(parser, options)
    return made.model, made.stages


def measure(settings: Settings) -> list[Figure]:
    """Measure each configuration's last row: by frames, and whole."""
    size, counts, crop = SHAPES[settings.form]
    figures = []
    for config in codec_configs():
        module, stages = started(config, size)
        last = stages[-1]
        row = replace(last, crop=crop or last.crop, precision="32-true")
        peaks = []
        for frames in counts:
            stage = replace(row, frames=frames)
            module.start_stage(stage, 0, 1, 0)
            peaks.append(peak_of_step(module, stage, 1))
        slope = (peaks[-1] - peaks[0]) / (counts[-1] - counts[0])
        offset = peaks[0] - slope * counts[0]
        done = "recomputed" if row.checkpoint_activations else "kept"
        note = (
            f"{size or 'own size'}, row {row.name}: one clip of {counts} frames, "
            f"{row.crop}x{row.crop}, float32; activations {done}"
        )
        name = f"{config}, a frame more"
        figures.append(Figure(name, slope / 1e6, "MB/frame", "", note))
        figures.append(Figure(f"{config}, no frame", offset / 1e6, "MB", "", note))
        whole = replace(row, frames=last.frames)
        for precision in ("32-true", "bf16-mixed"):
            stage = replace(whole, precision=precision)
            module.start_stage(stage, 0, 1, 0)
            peak = peak_of_step(module, stage, 1)
            note = f"one clip of {stage.frames} frames, {row.crop}x{row.crop}"
            name = f"{config}, last row, {precision}"
            goal = f"at most {LARGEST:g}"
            figures.append(Figure(name, peak / GIGABYTE, "GB", goal, note))
    return figures
