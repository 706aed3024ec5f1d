"""Encoding and decoding: frames per second with entropy coding, and without."""

from collections.abc import Iterator

from experiments.profile.benchmark.codecs import (
    LackingError,
    base_configs,
    build,
    described,
    layers,
    left_out,
    named,
    size_of,
)
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.part import reason
from lightning_modules.numerics import PORTABLE, pin

DTYPES = ("float32", "float16")

REPEATS = {"small": 1, "full": 2}


def measure(settings: Settings) -> Iterator[Figure]:
    """Time every codec with random weights, in each dtype."""
    # As encode and decode run.
    pin(PORTABLE)
    import torch

    for name in base_configs():
        try:
            config = layers(name, settings.form)
        except LackingError as error:
            yield left_out(name, error)
            continue
        codec = build(config)
        codec = codec.to(settings.device).eval().requires_grad_(False)
        for dtype in DTYPES:
            codec = codec.to(getattr(torch, dtype))
            yield from _of_dtype(named(name, config), codec, dtype, settings)
        del codec


def _of_dtype(
    name: str, codec: object, dtype: str, settings: Settings
) -> Iterator[Figure]:
    import torch

    from experiments.bitstreams.coding_mode import coding_mode
    from experiments.profile.timing import timings

    height, width = size_of(settings)
    shown = f"{name}, {dtype}"
    note = described(codec, height, width)
    device = torch.device(settings.device)
    try:
        with coding_mode(device):
            found = timings(codec, height, width, REPEATS[settings.form])
    except (ValueError, RuntimeError) as error:
        # What a GPU can and this device cannot, or memory: the next codec may.
        torch.cuda.empty_cache()
        yield Figure(f"coding, {shown}", None, "frames/s", error=reason(error))
        return
    for verb in ("encode", "decode"):
        yield Figure(
            f"{verb}, {shown}", 1 / found[f"{verb}_s_per_frame"], "frames/s", note=note
        )
        network = found.get(f"network_{verb}_s_per_frame")
        if network:
            yield Figure(
                f"{verb} without entropy coding, {shown}", 1 / network, "frames/s"
            )
    yield Figure(
        f"peak memory of coding, {shown}", found["peak_memory_bytes"] / 2**30, "GiB"
    )
