"""A codec's parameters and MACs, whole and by the parts of its network."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.results.drawing.tables import Table, numbers, words
from lightning_modules.codec import VideoCodec

PAPERS_SIZE = (1080, 1920)
"""Height and width of the papers' complexity tables."""


def parts_of(codec: VideoCodec) -> list[tuple[str, nn.Module]]:
    """Return the parts that figures are given for, by their names in the codec."""
    return [(n, m) for n, m in codec.named_modules() if n.count(".") == 1]


@contextmanager
def spent_in(
    parts: Mapping[str, nn.Module], counter: Callable[[], float]
) -> Iterator[dict[str, float]]:
    """Add up how far a counter goes on while each part, or a layer of it, runs.

    Args:
        parts: By name.
        counter: Returns where it stands.
    """
    spent: dict[str, float] = dict.fromkeys(parts, 0)
    # A codec may call a part as a whole or its layers one by one.
    running = dict.fromkeys(parts, 0)

    def before(name: str, *_: Any) -> None:
        if not running[name]:
            spent[name] -= counter()
        running[name] += 1

    def after(name: str, *_: Any) -> None:
        running[name] -= 1
        if not running[name]:
            spent[name] += counter()

    with ExitStack() as hooks:
        for name, part in parts.items():
            for layer in part.modules():
                hook = layer.register_forward_pre_hook(partial(before, name))
                hooks.enter_context(hook)
                hooks.enter_context(layer.register_forward_hook(partial(after, name)))
        yield spent


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
        "codec": codec.shown_name,
        "architecture": codec.architecture,
        "height": height,
        "width": width,
        "frames_per_unit": codec.frames_per_unit,
        "parameters": sum(p.numel() for p in codec.parameters()),
        "kmacs_per_pixel": kmacs,
        "latents": latents_of(codec),
        "published": dict(codec.published),
        "modules": modules,
    }


def latents_of(codec: VideoCodec) -> dict[str, Any] | None:
    """Return how many numbers pixels are made of, in each 16x16 of a frame, too.

    ``None`` if the codec does not count them.
    """
    latents = codec.latents
    if latents is None:
        return None
    per_16x16 = latents.per_pixel * 256
    return {**asdict(latents), "levels": dict(latents.levels), "per_16x16": per_16x16}


def kmacs_per_pixel(codec: VideoCodec) -> dict[str, float]:
    """Return the figures of each pass at 1920x1080, as ``<pass>_kmacs_per_pixel``.

    They are counted on the meta device, in about a second and without memory. A codec
    that cannot be counted there has none, and a warning says why.
    """
    try:
        with torch.device("meta"):
            like = type(codec)(**codec.architecture)
        kmacs = count(like, *PAPERS_SIZE)["kmacs_per_pixel"]
    except (RuntimeError, NotImplementedError) as error:
        warnings.warn(f"kMACs per pixel were not counted: {error}", stacklevel=2)
        return {}
    return {f"{name}_kmacs_per_pixel": value for name, value in kmacs.items()}


def complexity_table(report: Mapping[str, Any]) -> Table:
    """Return what :func:`count` gives, beside what the paper says."""
    size = f"{report['width']}x{report['height']}"
    kmacs, paper = report["kmacs_per_pixel"], report["published"]
    table = Table(
        f"{report['codec']} at {size}, {report['frames_per_unit']} frames per unit",
        [
            *words("module"),
            *numbers("parameters"),
            *numbers(*(f"{name} (kMACs/pixel)" for name in kmacs), spec=".2f"),
        ],
    )
    for part in report["modules"]:
        costs = [part[f"{name}_kmacs_per_pixel"] for name in kmacs]
        table.rows.append([part["name"], f"{part['parameters']:,}", *costs])
    table.rows.append(["all", f"{report['parameters']:,}", *kmacs.values()])
    if paper:
        costs = [paper.get(name) for name in kmacs]
        table.rows.append(["paper", f"{paper['parameters']:,.0f}", *costs])
    return table
