"""Count a codec's parameters and MACs as the papers do, and time it if asked.

MACs are counted on the meta device: seconds and no memory at any size. They are those
of convolutions and matrix products on the padded picture, divided by the pixels of
the original one and by the frames of a unit: the convention of the papers' complexity
tables.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.codec import VideoCodec

EPILOG = """example:
  python -m experiments.profile --config experiments/configs/ui2c.yaml"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.profile",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", action="append", required=True, help="as for fit; can be repeated"
    )
    parser.add_argument("--height", type=int, default=1080, help="default: 1080")
    parser.add_argument("--width", type=int, default=1920, help="default: 1920")
    parser.add_argument("--output", help="write the figures to this JSON file")
    parser.add_argument(
        "--time", action="store_true", help="also time it, with random weights"
    )
    parser.add_argument(
        "--pipeline",
        metavar="P",
        type=int,
        help="also time P workers that code overlapping frames (DHVC without auxiliary "
        "path), beside one",
    )
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where to time (default: cuda if there is one)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed runs (default: 3)"
    )
    arguments = parser.parse_args(argv)
    from experiments.cli import run_command

    return run_command(lambda: profile(arguments))


def profile(arguments: argparse.Namespace) -> int:
    """Count, time, print and write."""
    from datamodules.whole_files import whole_or_nothing

    if arguments.repeats < 1:
        raise ValueError(f"--repeats is {arguments.repeats}, it must be at least 1")
    output = arguments.output
    # Entered first, so that a name that cannot be written is refused before the work.
    with whole_or_nothing(Path(output)) if output else nullcontext() as temporary:
        if temporary:
            temporary.touch()
        report = measure(arguments)
        if temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Count, time and print; return all figures."""
    import torch

    from experiments.bitstreams.coding_mode import choose_device
    from experiments.profile.pipeline import (
        check_pipeline,
        macs_bound,
        measure_pipeline,
        print_pipeline,
    )

    height, width = arguments.height, arguments.width
    if height < 1 or width < 1:
        raise ValueError(f"{width}x{height} is no picture size: both must be >= 1")
    with torch.device("meta"):
        codec = build_codec(arguments.config)
    workers = arguments.pipeline
    if workers is not None:
        check_pipeline(codec, workers)
    timed = arguments.time or workers
    device = choose_device(arguments.device if timed else "cpu")
    report = count(codec, height, width)
    print_report(report)
    if timed:
        codec = build_codec(arguments.config).to(device).eval()
    if arguments.time:
        report["time"] = timings(codec, height, width, arguments.repeats)
        for name, value in report["time"].items():
            print(f"{name:32} {value}")
    if workers:
        report["pipeline"] = {
            **measure_pipeline(codec, workers, height, width, arguments.repeats),
            "macs_bound": macs_bound(report, workers),
        }
        print_pipeline(report["pipeline"])
    return report


def build_codec(configs: Sequence[str]) -> "VideoCodec":
    """Return the network that the configuration files describe, untrained."""
    from experiments.fit.options import build_parser

    parser = build_parser("python -m experiments.profile", "")
    config = parser.parse_args([f"--config={path}" for path in configs])
    codec: VideoCodec = parser.instantiate(config).model.codec
    return codec


def count(codec: "VideoCodec", height: int, width: int) -> dict[str, Any]:
    """Return parameters and kMACs per pixel of ``codec``, whole and by module."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    pixels = height * width * codec.frames_per_unit
    kmacs: dict[str, float] = {}
    shares: dict[str, dict[str, float]] = {}
    for name, run in codec.passes(height, width).items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            with _by_module(codec, counter) as flops:
                run()
        kmacs[name] = counter.get_total_flops() / 2 / pixels / 1e3
        shares[name] = {part: n / 2 / pixels / 1e3 for part, n in flops.items()}
    modules = [
        {
            "name": name,
            "parameters": sum(p.numel() for p in part.parameters()),
            **{f"{key}_kmacs_per_pixel": shares[key].get(name, 0.0) for key in kmacs},
        }
        for name, part in _parts(codec)
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


def _parts(codec: "VideoCodec") -> list[tuple[str, Any]]:
    return [(n, m) for n, m in codec.named_modules() if n.count(".") == 1]


@contextmanager
def _by_module(codec: "VideoCodec", counter: Any) -> Iterator[dict[str, int]]:
    flops: dict[str, int] = {}
    begun: dict[str, int] = {}
    hooks = []
    for name, part in _parts(codec):

        def before(*_: Any, name: str = name) -> None:
            begun[name] = counter.get_total_flops()

        def after(*_: Any, name: str = name) -> None:
            done = counter.get_total_flops() - begun[name]
            flops[name] = flops.get(name, 0) + done

        hooks.append(part.register_forward_pre_hook(before))
        hooks.append(part.register_forward_hook(after))
    try:
        yield flops
    finally:
        for hook in hooks:
            hook.remove()


def print_report(report: dict[str, Any]) -> None:
    """Print the figures as a table."""
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


def timings(
    codec: "VideoCodec", height: int, width: int, repeats: int
) -> dict[str, Any]:
    """Return the fastest of ``repeats`` runs, in seconds per frame, and peak memory.

    ``network`` runs the transforms alone; the rest codes real bytes of a noise-free
    gradient. The weights are random: a trained model's streams are shorter, so its
    entropy coding is faster.
    """
    import resource
    import time

    import torch

    device = next(codec.parameters()).device
    n = codec.frames_per_unit

    def synchronise() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def best(run: Any) -> float:
        seconds = []
        for _ in range(repeats + 1):
            synchronise()
            begun = time.perf_counter()
            run()
            synchronise()
            seconds.append(time.perf_counter() - begun)
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
    if device.type == "cuda":
        result["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
        result["device"] = torch.cuda.get_device_name(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result["peak_memory_bytes"] = peak * (1 if sys.platform == "darwin" else 1024)
        result["device"] = f"cpu, {torch.get_num_threads()} threads"
    return result
