"""Seconds and memory of a codec with random weights."""

import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.bitstreams.coding_mode import peak_memory
from lightning_modules.codec import VideoCodec


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return a clock in seconds that waits for a device before it is read."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def timings(codec: VideoCodec, height: int, width: int, repeats: int) -> dict[str, Any]:
    """Return the fastest of ``repeats`` runs, in seconds per frame, and peak memory.

    ``network`` runs the transforms alone; the rest codes real bytes of a noise-free
    gradient. The weights are random: a trained model's streams are shorter, so its
    entropy coding is faster.
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
    result["peak_memory_bytes"] = peak_memory(device)
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name(device)
    else:
        result["device"] = f"cpu, {torch.get_num_threads()} threads"
    return result
