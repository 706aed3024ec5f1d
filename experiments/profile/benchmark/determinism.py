"""One stream decoded twice, by unlike kernels: how far are the frames apart?

With a GPU the second decoder runs there; without one it is a CPU's without oneDNN, so
that everything runs once.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from experiments.profile.benchmark.codecs import (
    LackingError,
    base_configs,
    build,
    layers,
    left_out,
    named,
)
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.part import reason
from lightning_modules.numerics import PORTABLE, pin

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.codec import VideoCodec

SIZE = 64, 96
UNITS = 2


def measure(settings: Settings) -> Iterator[Figure]:
    """Compare every codec's frames and tables, and those of its exact way if any."""
    pin(PORTABLE)
    import torch

    for name in base_configs():
        try:
            config = layers(name, "small")
        except LackingError as error:
            yield left_out(name, error)
            continue
        codec = build(config).eval().requires_grad_(False)
        torch.manual_seed(0)
        other = deepcopy(codec).to(settings.device)
        shown = named(name, config)
        yield _tables(shown, codec, other, settings)
        for told in ({}, *exact_ways(codec)):
            yield _frames(shown, codec, other, told, settings)


def exact_ways(codec: "VideoCodec") -> list[dict[str, Any]]:
    """Return the coding options that make a codec decode alike on every machine."""
    usual = codec.coding
    ways: list[dict[str, Any]] = []
    hints = get_type_hints(type(usual))
    try:
        for each in fields(usual):
            if codec.exact or get_origin(hints[each.name]) is not Literal:
                continue
            for value in get_args(hints[each.name]):
                # This architecture may not have it.
                with suppress(ValueError):
                    codec.configure(**{each.name: value})
                    if codec.exact:
                        ways.append({each.name: value})
                codec.coding = usual
    finally:
        codec.coding = usual
    return ways


def _frames(
    name: str,
    codec: "VideoCodec",
    other: "VideoCodec",
    told: dict[str, Any],
    settings: Settings,
) -> Figure:
    """Code with one, decode with both."""
    import torch

    from experiments.bitstreams.coding_mode import coding_mode
    from experiments.profile.timing import configured, moving_frames
    from lightning_modules.bitstream import BitstreamError
    from lightning_modules.packets import DesyncError

    height, width = SIZE
    source = moving_frames(
        UNITS * codec.frames_per_unit, height, width, torch.device("cpu")
    )
    rate = codec.rate_knob.points[len(codec.rate_knob.points) // 2]
    with configured(codec, **told), configured(other, **told):
        exact = codec.exact
        way = ", ".join(["exact" if exact else "usual", *map(str, told.values())])
        shown = f"{name}, {way}, decoded {_there(settings)}"
        goal = "0" if exact else ""
        try:
            with coding_mode(torch.device("cpu")):
                packets = list(codec.compress(source, rate))
                here = list(codec.decompress(packets, height, width))
            with coding_mode(torch.device(settings.device)), _unlike(settings):
                there = list(other.decompress(packets, height, width))
        except (BitstreamError, DesyncError) as error:
            said = {"error" if exact else "note": f"not decoded: {reason(error)}"}
            return Figure(shown, None, "of 255", goal, **said)
        except (ValueError, RuntimeError) as error:
            return Figure(shown, None, "of 255", goal, error=reason(error))
    worst = max(map(_distance, here, there))
    equal = all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(here, there, strict=True))
    failed = "" if equal or not exact else "frames that must be equal differ"
    note = "equal to the last bit" if equal else "largest difference of a sample"
    return Figure(shown, worst, "of 255", goal, note, failed)


def _distance(a: "Tensor", b: "Tensor") -> float:
    return 255 * float((a.cpu().double() - b.cpu().double()).abs().max())


def _tables(
    name: str, codec: "VideoCodec", other: "VideoCodec", settings: Settings
) -> Figure:
    """Count the entries of the coder's tables in which the two differ."""
    import numpy as np
    import torch

    from experiments.bitstreams.coding_mode import coding_mode

    with coding_mode(torch.device(settings.device)), _unlike(settings):
        there = other.tables
    differing = total = 0
    for part, table in codec.tables.items():
        for own in ("cdf", "length", "offset"):
            a, b = getattr(table, own), getattr(there[part], own)
            total += a.size
            differing += a.size if a.shape != b.shape else int(np.sum(a != b))
    return Figure(
        f"{name}, entries of tables built {_there(settings)} that differ",
        differing,
        "entries",
        "0",
        f"of {total}",
        "encoder and decoder would not have the same tables" if differing else "",
    )


def _there(settings: Settings) -> str:
    return "on the GPU" if settings.device == "cuda" else "without oneDNN"


@contextmanager
def _unlike(settings: Settings) -> Iterator[None]:
    """Compute with other kernels than the first decoder."""
    import torch

    onednn: Any = torch.backends.mkldnn
    before = onednn.enabled
    onednn.enabled = before and settings.device == "cuda"
    try:
        yield
    finally:
        onednn.enabled = before
