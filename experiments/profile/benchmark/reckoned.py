"""A training step without values: its memory, at any size, on any machine.

The step runs on tensors that have shapes and no values, so a row of the schedule runs
at its own crop and length in any machine's memory. Work space inside single kernels
and gaps of an allocator do not count: allow a tenth more.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from experiments.fit.options import instantiate
from experiments.profile.benchmark.gpu_casts import GpuCasts
from experiments.profile.benchmark.held_bytes import HeldBytes
from experiments.profile.benchmark.rows import model_arguments, parsed
from lightning_modules.base import CodecModule
from lightning_modules.draw import Draw
from lightning_modules.entropy.lasting import lasting
from lightning_modules.losses import find_term
from lightning_modules.stages import Stage

SMALL_SIDE = 64
"""Sides of the clip that values are drawn for, before it is replaced."""

COPIES = 3
"""Of what trains, beside the weights and their gradients: AdamW's two moments, and the
buckets in which ranks exchange gradients."""


def started(config: str, size: str) -> tuple[CodecModule, list[Stage]]:
    """Return a configuration's module and its rows.

    Args:
        config: Its name.
        size: Of the networks; empty for its own.
    """
    parser, options = parsed(model_arguments(config, size))
    made = instantiate(parser, options)
    return made.model, made.stages


def peak_of_step(module: CodecModule, stage: Stage, samples: int) -> int:
    """Return the bytes that a step of a row holds at most on a device of several.

    That is all that lives on the device: weights, their average (``ema_decay``),
    gradients and the optimizer's state, the batch, activations, losses and figures.

    Args:
        module: It is started with the row; its weights have no part in it.
        stage: The row; its precision is float32's where it names none.
        samples: Clips that a device takes at once.
    """
    module.start_stage(stage, 0, 1, 0)
    module.train()
    draw = _draw(module, stage, samples)
    if any(find_term(row).needs for row in module._weighed_rows().values()):
        # Loaded once per process: later users need its values.
        assert module.losses.lpips
    half = stage.precision == "bf16-mixed"
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    held = HeldBytes()
    casts = GpuCasts() if half else nullcontext()
    with fake, held, casts, _figures_apart(module), _without_values(module):
        for weights in module.codec.parameters():
            held.hold(weights)
            size = weights.untyped_storage().nbytes()
            # One more for the average of weights.
            held.add(size * (1 + COPIES * weights.requires_grad))
        train_once(module, _full_size(draw, stage), half)
    return held.peak


def train_once(module: CodecModule, draw: Draw, half: bool = False) -> None:
    """Go forth and back as a training step does, without its optimizer.

    Args:
        module: Started with a row.
        draw: What it drew of a batch.
        half: Whether autocast is on, on the CPU.
    """

    def cast() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=half)

    if module.stage.unroll == "clip":
        with cast():
            out = module.codec(draw.clip, draw.rate, **draw.conditions)
            loss = module._weigh(draw, out, False)
        # As in Lightning's step, which goes on while ``out`` is held no longer.
        del out
        _backward(loss)
        return
    start = 0
    with cast():
        walk = module.codec.forward_units(draw.clip, draw.rate, **draw.conditions)
        for out in walk:
            stop = start + out.x_hat.shape[1]
            loss = module._weigh(draw.between(start, stop), out, False)
            _backward(loss)
            start = stop


def _backward(loss: Tensor) -> None:
    # Torch's own function of that name turns modes off in what is recomputed.
    engine: Any = torch.autograd.Variable._execution_engine
    start = (loss,), (torch.ones_like(loss),)
    engine.run_backward(
        *start, False, False, (), allow_unreachable=True, accumulate_grad=True
    )


@contextmanager
def _figures_apart(module: CodecModule) -> Iterator[None]:
    """Let a module forget what it noted of steps without values."""
    rates = module._rates
    module._figures.clear()
    # No kernel runs that could be wrong.
    module.codec.autocasts_on_cpu = True
    # It would take those of other steps as they are.
    module._rates = torch.empty(0)
    try:
        yield
    finally:
        module._figures.clear()
        del module.codec.autocasts_on_cpu
        module._rates, module._frame_terms = rates, {}
        module.zero_grad(set_to_none=True)


def _draw(module: CodecModule, stage: Stage, samples: int) -> Draw:
    """Draw for a batch of small frames, with values."""
    clip = torch.zeros(samples, stage.frames, 3, SMALL_SIDE, SMALL_SIDE)
    return module.draw(clip, torch.arange(samples), training=True)


def _full_size(draw: Draw, stage: Stage) -> Draw:
    """Put frames of the row's crop in place of the small ones, without values."""

    def larger(x: Tensor) -> Tensor:
        if x.ndim == 0:
            # A codec decides by it. Made anew, it has its value here, too.
            with lasting():
                value = x.item()
            return torch.tensor(value)
        if x.ndim < 4:
            return torch.empty_like(x).copy_(x)
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


@contextmanager
def _without_values(module: CodecModule) -> Iterator[None]:
    """Put weights without values in the place of a module's own, for a while."""
    kept: list[tuple[dict[str, Any], str, Any]] = []
    for part in module.modules():
        stored: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        kept += [(k, n, own) for k in stored for n, own in k.items() if own is not None]
    try:
        for kind, name, own in kept:
            empty = torch.empty_strided(own.shape, own.stride(), dtype=own.dtype)
            if isinstance(own, torch.nn.Parameter):
                empty = torch.nn.Parameter(empty, own.requires_grad)
            kind[name] = empty
        yield
    finally:
        for kind, name, own in kept:
            kind[name] = own
