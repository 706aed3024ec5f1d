"""Seconds and memory of a codec with random weights."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from experiments.bitstreams.coding_mode import peak_memory
from lightning_modules.codec import VideoCodec

OVERLAPPED_UNITS = 6
"""Enough for a thread to be behind, and to catch up."""


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return a clock in seconds that waits for a device before it is read."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


@contextmanager
def configured(codec: VideoCodec, **coding: Any) -> Iterator[None]:
    """Let a codec code otherwise for a while; see :meth:`VideoCodec.configure`."""
    usual = codec.coding, codec.execution
    codec.configure(**coding)
    try:
        yield
    finally:
        codec.coding, codec.execution = usual


def moving_frames(
    count: int, height: int, width: int, device: torch.device
) -> list[Tensor]:
    """Return a gradient that moves by 4 pixels a frame, each (3, H, W)."""
    ramp = torch.linspace(0, 1, width, device=device).expand(3, height, width)
    return [ramp.roll(4 * number, -1) for number in range(count)]


def are_equal(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two codings gave the same packets, or the same frames."""
    return len(a) == len(b) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y
        for x, y in zip(a, b, strict=True)
    )


def timings(
    codec: VideoCodec,
    height: int,
    width: int,
    repeats: int,
    overlap: bool | None = None,
) -> dict[str, Any]:
    """Return the fastest of ``repeats`` runs, in seconds per frame, and peak memory.

    ``network`` runs the transforms alone; the rest codes real bytes of a noise-free
    gradient. The weights are random: a trained model's streams are shorter, so its
    entropy coding is faster.

    Args:
        codec: On its device and in its dtype.
        height: Of the frames in pixels.
        width: Of the frames in pixels.
        repeats: Timed runs.
        overlap: Whether to time encoding with overlap beside encoding without, on
            ``OVERLAPPED_UNITS`` units; by default where encoders overlap by themselves.

    Raises:
        ValueError: With overlap other bytes come out.
    """
    device = codec.devices[0]
    n = codec.frames_per_unit
    now = clock_of(device)

    def best(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repeats + 1):
            begun = now()
            run()
            seconds.append(now() - begun)
        # The first run allocates and compiles.
        return min(seconds[1:]) / n

    ramp = torch.linspace(0, 1, width, device=device).expand(3, height, width)
    frames = [ramp] * n
    rate = codec.rate_knob.points[len(codec.rate_knob.points) // 2]
    codec.tables  # noqa: B018 (built once per model, not per run)
    with configured(codec, overlap="off"):
        packets = list(codec.compress(frames, rate))
        with torch.inference_mode():
            passes = codec.passes(height, width)
            result: dict[str, Any] = {
                f"network_{name}_s_per_frame": best(run) for name, run in passes.items()
            }
        result["encode_s_per_frame"] = best(lambda: list(codec.compress(frames, rate)))
        result["decode_s_per_frame"] = best(
            lambda: list(codec.decompress(packets, height, width))
        )
    if codec.overlaps if overlap is None else overlap:
        result |= _overlapped(codec, height, width, repeats)
    result |= {
        f"{name.removesuffix('_s_per_frame')}_fps": 1 / seconds
        for name, seconds in list(result.items())
    }
    result["peak_memory_bytes"] = peak_memory(device)
    result["dtype"] = str(codec.like.dtype).removeprefix("torch.")
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name(device)
    else:
        result["device"] = f"cpu, {torch.get_num_threads()} threads"
    return result


def _overlapped(
    codec: VideoCodec, height: int, width: int, repeats: int
) -> dict[str, float]:
    """Time several units, with overlap and without in turns; see :func:`timings`."""
    device = codec.devices[0]
    count = OVERLAPPED_UNITS * codec.frames_per_unit
    frames = moving_frames(count, height, width, device)
    rate = codec.rate_knob.points[len(codec.rate_knob.points) // 2]
    now = clock_of(device)
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    packets: dict[str, list[Any]] = {}
    for _ in range(repeats + 1):
        for mode, taken in seconds.items():
            with configured(codec, overlap=mode):
                begun = now()
                packets[mode] = list(codec.compress(frames, rate))
                taken.append(now() - begun)
    if not are_equal(packets["off"], packets["on"]):
        raise ValueError("with overlap other bytes come out than without: it is broken")
    # The first run allocates and compiles.
    off, on = (min(seconds[mode][1:]) / count for mode in ("off", "on"))
    return {"encode_units_s_per_frame": off, "encode_overlapped_s_per_frame": on}
