"""A codec's parameters and MACs, whole and by the parts of its network."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.codec import VideoCodec


def parts_of(codec: VideoCodec) -> list[tuple[str, nn.Module]]:
    """Return the parts that figures are given for, by their names in the codec."""
    return [(n, m) for n, m in codec.named_modules() if n.count(".") == 1]


@contextmanager
def spent_in(
    parts: Mapping[str, nn.Module], counter: Callable[[], float]
) -> Iterator[dict[str, float]]:
    """Add up how far a counter goes on while each part runs.

    Args:
        parts: By name.
        counter: Returns where it stands.
    """
    spent: dict[str, float] = dict.fromkeys(parts, 0)
    hooks = []
    for name, part in parts.items():

        def before(*_: Any, name: str = name) -> None:
            spent[name] -= counter()

        def after(*_: Any, name: str = name) -> None:
            spent[name] += counter()

        hooks.append(part.register_forward_pre_hook(before))
        hooks.append(part.register_forward_hook(after))
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def count(codec: VideoCodec, height: int, width: int) -> dict[str, Any]:
    """Return parameters and kMACs per pixel of ``codec``, whole and by part."""
    pixels = height * width * codec.frames_per_unit
    parts = dict(parts_of(codec))
    kmacs: dict[str, float] = {}
    shares: dict[str, dict[str, float]] = {}
    for name, run in codec.passes(height, width).items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            with spent_in(parts, counter.get_total_flops) as flops:
                run()
        kmacs[name] = counter.get_total_flops() / 2 / pixels / 1e3
        shares[name] = {part: n / 2 / pixels / 1e3 for part, n in flops.items()}
    modules = [
        {
            "name": name,
            "parameters": sum(p.numel() for p in part.parameters()),
            **{f"{key}_kmacs_per_pixel": shares[key][name] for key in kmacs},
        }
        for name, part in parts.items()
    ]
    return {
        "codec": type(codec).__name__.removesuffix("Codec"),
        "architecture": codec.architecture,
        "height": height,
        "width": width,
        "frames_per_unit": codec.frames_per_unit,
        "parameters": sum(p.numel() for p in codec.parameters()),
        "kmacs_per_pixel": kmacs,
        "published": dict(codec.published),
        "modules": modules,
    }


def print_complexity(report: Mapping[str, Any]) -> None:
    """Print what :func:`count` gives, beside what the paper says."""
    size = f"{report['width']}x{report['height']}"
    print(f"{report['codec']} at {size}, {report['frames_per_unit']} frames per unit")
    paper = report["published"]
    beside = f" (paper: {paper['parameters']:,.0f})" if paper else ""
    print(f"parameters {report['parameters']:,}{beside}")
    for name, value in report["kmacs_per_pixel"].items():
        beside = f" (paper: {paper[name]:.2f})" if name in paper else ""
        print(f"{name:10} {value:8.2f} kMACs/pixel{beside}")
    print(f"\n{'module':28} {'parameters':>12} {'encode':>9} {'decode':>9}")
    for entry in report["modules"]:
        print(
            f"{entry['name']:28} {entry['parameters']:12,} "
            f"{entry['encode_kmacs_per_pixel']:9.2f} "
            f"{entry['decode_kmacs_per_pixel']:9.2f}"
        )
