"""What a pipeline of workers gains: measured, and what the costs of scales allow.

Source: arXiv 2410.02598, section 6.2.2; Fig. 15 compares four devices with one.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from experiments.bitstreams.coding_mode import coding_mode
from experiments.profile.complexity import parts_of, spent_in
from experiments.profile.timing import (
    are_equal,
    clock_of,
    configured,
    moving_frames,
)
from experiments.results.drawing.tables import Table, numbers, words
from lightning_modules.codec import VideoCodec

FRAMES_PER_WORKER = 8
"""How many are timed; the pipeline fills and drains within them."""


def check_pipeline(codec: VideoCodec, workers: int) -> None:
    """Refuse a codec that so many workers cannot code with.

    Raises:
        ValueError: They cannot, or there are none.
    """
    if not hasattr(codec.coding, "pipeline"):
        name = codec.shown_name
        raise ValueError(f"{name} has no parallel pipeline: leave out --pipeline")
    with configured(codec, pipeline=workers):
        pass


def measure_pipeline(
    codec: VideoCodec, workers: int, height: int, width: int, repeats: int
) -> dict[str, Any]:
    """Time one worker and several, coding and decoding real bytes.

    Args:
        codec: On its device. On CUDA worker i has GPU i modulo their number; on a CPU
            every worker, and the one that they are compared with, has one thread.
        workers: How many.
        height: Of the frames in pixels.
        width: Of the frames in pixels.
        repeats: The fastest of so many runs counts.

    Returns:
        What they ran on, and for ``encode`` and ``decode`` what :func:`_measure` gives.

    Raises:
        ValueError: The packets or frames of several workers are not those of one.
    """
    count = FRAMES_PER_WORKER * workers
    frames = moving_frames(count, height, width, torch.device("cpu"))
    rate = codec.rate_knob.points[len(codec.rate_knob.points) // 2]
    with configured(codec, pipeline=workers):
        devices = [str(device) for device in codec.devices]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with coding_mode(codec.devices[0]):
            # The first run allocates and compiles.
            packets = list(codec.compress(frames, rate))

            def encode() -> list[Any]:
                return list(codec.compress(frames, rate))

            def decode() -> list[Any]:
                return list(codec.decompress(packets, height, width))

            return {
                "workers": workers,
                "devices": devices,
                "cores": os.cpu_count(),
                "frames": len(frames),
                "encode": _measure(encode, codec, workers, len(frames), repeats),
                "decode": _measure(decode, codec, workers, len(frames), repeats),
            }
    finally:
        torch.set_num_threads(threads)


def _measure(
    run: Callable[[], list[Any]],
    codec: VideoCodec,
    workers: int,
    frames: int,
    repeats: int,
) -> dict[str, Any]:
    """Return seconds per frame: whole on one and on several, and of each part on one.

    ``model`` is what the parts allow; see :func:`bound`.
    """

    def seconds() -> float:
        begun = time.perf_counter()
        result = run()
        taken = (time.perf_counter() - begun) / frames
        if not are_equal(expected, result):
            raise ValueError(
                f"{workers} workers do not compute what one does: their devices differ"
            )
        return taken

    parts = {
        name.rpartition(".")[2]: part
        for name, part in parts_of(codec)
        if next(part.parameters(), None) is not None
    }
    expected = run()
    # In turns, so that whatever else the machine does hits all of them.
    alone, together, apart = [], [], []
    for _ in range(repeats):
        alone.append(seconds())
        with configured(codec, pipeline=workers):
            together.append(seconds())
        # The entropy decoding is in the parts.
        with spent_in(parts, clock_of(codec.devices[0])) as spent:
            whole = seconds()
        shares = {name: value / frames for name, value in spent.items()}
        apart.append({**shares, "rest": whole - sum(shares.values())})
    parts_s = min(apart, key=lambda shares: sum(shares.values()))
    return {
        "parts_s_per_frame": parts_s,
        "one_worker_s_per_frame": min(alone),
        "pipeline_s_per_frame": min(together),
        "speedup": min(alone) / min(together),
        "model": bound(parts_s, workers),
    }


def bound(parts: Mapping[str, float], workers: int) -> dict[str, Any]:
    """Return the least cost per frame that a pipeline can reach, and what sets it.

    A scale waits for the same scale of the frame before, so no two frames are at it at
    once; everything else can be spread over all workers.

    Args:
        parts: Costs in any unit, those of scales named ``scale...``.
        workers: How many.
    """
    total = sum(parts.values())
    scales = {name: cost for name, cost in parts.items() if name.startswith("scale")}
    slowest, cost = max(scales.items(), key=lambda item: item[1])
    period = max(total / workers, cost)
    return {
        "per_frame": period,
        "speedup": total / period,
        "set_by": slowest if cost > total / workers else "workers",
    }


def macs_bound(
    modules: Sequence[Mapping[str, Any]], workers: int
) -> dict[str, dict[str, Any]]:
    """Return :func:`bound` from the counted kMACs per pixel, by pass.

    Args:
        modules: Of :func:`experiments.profile.complexity.count`.
        workers: How many.
    """
    bounds = {}
    for name in ("encode", "decode"):
        key = f"{name}_kmacs_per_pixel"
        costs = {each["name"].rpartition(".")[2]: each[key] for each in modules}
        bounds[name] = bound(costs, workers)
    return bounds


def pipeline_table(figures: Mapping[str, Any]) -> Table:
    """Return what was measured beside what is possible."""
    workers, cores = figures["workers"], figures["cores"]
    names = figures["encode"]["parts_s_per_frame"]
    table = Table(
        f"pipeline of {workers} workers on {', '.join(figures['devices'])}, "
        f"{figures['dtype']}; "
        f"{cores} cores; {figures['frames']} frames, fill and drain included",
        [*words("ms per frame"), *numbers(*names, spec=".1f")],
    )
    if set(figures["devices"]) == {"cpu"} and cores < workers:
        table.notes.append(f"{cores} cores cannot run {workers} workers at once")
    for key in ("encode", "decode"):
        measured, macs = figures[key], figures["macs_bound"][key]
        model = measured["model"]
        costs = [1e3 * cost for cost in measured["parts_s_per_frame"].values()]
        table.rows.append([key, *costs])
        table.notes.append(
            f"{key}: {1e3 * measured['one_worker_s_per_frame']:.1f} ms on one worker, "
            f"{1e3 * measured['pipeline_s_per_frame']:.1f} ms on {workers}: "
            f"x{measured['speedup']:.2f}; bound by measured costs "
            f"x{model['speedup']:.2f} ({model['set_by']}), by MACs "
            f"x{macs['speedup']:.2f} ({macs['set_by']})"
        )
    return table
