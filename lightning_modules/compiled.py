"""The same network, run faster in training: compiled blocks, channels last in memory.

Weights, their names and checkpoints are those of a network that is neither.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.codec import VideoCodec

BACKEND = "inductor"
"""What compiles."""

OPTIONS: dict[str, dict[str, Any]] = {"inductor": {"deterministic": True}}
"""Of backends that have some. Kernels are not chosen by their time: a run that goes on
would choose others, and round otherwise."""

MOST_SHAPES = 512
"""Of inputs of one kind of block, over all widths and stages; torch would fall back to
eager after 8, and training go on in another arithmetic than it began with."""

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def compile_blocks(codec: VideoCodec) -> None:
    """Let a codec's blocks run compiled in training, in place.

    In evaluation mode they run as they are: validation and coding then give what any
    machine gives that loads the checkpoint, with a compiler or without.

    Args:
        codec: Names the kinds of its ``compiled_blocks``.

    Raises:
        ValueError: See :func:`blocks_to_compile`.
    """
    blocks = blocks_to_compile(codec)
    settings: Any = torch._dynamo.config
    settings.recompile_limit = settings.accumulated_recompile_limit = MOST_SHAPES
    settings.fail_on_recompile_limit_hit = True
    for block in blocks:
        # One graph for each shape: where one for many shapes came up amid a step, an
        # activation would be recomputed by another graph than it was computed by.
        block.compile(
            backend=BACKEND,
            dynamic=False,
            fullgraph=True,
            options=OPTIONS.get(str(BACKEND)),
        )
        block._compiled_call_impl = partial(_call, block, block._compiled_call_impl)


def blocks_to_compile(codec: VideoCodec) -> list[nn.Module]:
    """Return a codec's sub-modules of its ``compiled_blocks``, without those inside.

    Raises:
        ValueError: There are none.
    """
    if blocks := _outermost(codec, codec.compiled_blocks):
        return blocks
    raise ValueError(
        f"trainer: {codec.shown_name} has no blocks that can be compiled: set compile "
        "to false"
    )


def _call(block: nn.Module, compiled: Any, *inputs: Any, **more: Any) -> Any:
    if not block.training:
        return block._call_impl(*inputs, **more)
    try:
        return compiled(*inputs, **more)
    except torch._dynamo.exc.FailOnRecompileLimitHit as error:
        raise ValueError(
            f"trainer: compile has met more than {MOST_SHAPES} shapes of what "
            f"{type(block).__name__} reads: let the stages have fewer crops, batch "
            "sizes and lengths in one command (--to_stage), or set compile to false"
        ) from error


def _outermost(
    module: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> list[nn.Module]:
    """Return the sub-modules of some kinds that lie in no other such."""
    if isinstance(module, kinds):
        return [module]
    return [b for child in module.children() for b in _outermost(child, kinds)]


def check_compiler(device: torch.device) -> None:
    """Raise ``ValueError`` if this machine cannot compile for a device."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
        if device.type != "cpu":
            torch.compile(_probe, backend=BACKEND)(torch.zeros(8, device=device))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"trainer: compile is true, but nothing can be compiled here ({reason}): "
            "install a C++ compiler (g++; the variable CXX names another), or set "
            "compile to false"
        ) from error


def _probe(x: Tensor) -> Tensor:
    return (x + 1).cos()


def put_channels_last(codec: VideoCodec) -> None:
    """Lay a codec's kernels out with channels last; no value changes."""
    for weights in codec.parameters():
        if weights.ndim in CHANNELS_LAST:
            layout = CHANNELS_LAST[weights.ndim]
            weights.data = weights.data.to(memory_format=layout)
