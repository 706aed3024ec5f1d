"""How a codec runs: which device, the same numbers every time, and what it costs."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from datamodules.paths import printable
from lightning_modules.allocator import keep_freed_memory
from lightning_modules.float32 import exact


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA if there is one), ``cpu`` or ``cuda``.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda" and not available:
        raise ValueError("there is no CUDA device here: use --device cpu")
    return torch.device(name)


@contextmanager
def coding_mode(device: torch.device) -> Iterator[None]:
    """Compute without gradients and the same way every time, then restore.

    A decoder must arrive at the encoder's numbers bit by bit: :func:`exact`, as a
    codec's packets are anyway, and deterministic algorithms wherever torch has them.

    Args:
        device: Where it computes. Convolutions on a CPU are deterministic as they are,
            and asking for it costs two seconds of imports. There the process keeps the
            memory that networks free, to its end.
    """
    if device.type == "cpu":
        keep_freed_memory()
        with exact(device), torch.inference_mode():
            yield
        return
    # cuBLAS reads it when it is first used; other values are not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with exact(device), torch.inference_mode():
            yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)


def frame_bytes(frame: Tensor) -> bytes:
    """Return a frame's float32 values as bytes, for hashing."""
    return frame.float().cpu().contiguous().numpy().tobytes()


def peak_memory(device: torch.device) -> int:
    """Return the bytes of memory at their peak since this was last called.

    On a GPU those that torch allocated, on a CPU the resident set of the process; where
    the kernel cannot forget a peak, since the process began.
    """
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    kilobytes = int(fields["VmHWM"].split()[0])
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    return kilobytes * 1024


def costs_of(
    frames: int, size: tuple[int, int], fps: Fraction, nbytes: int
) -> dict[str, float]:
    """Return ``bpp`` and ``kbps`` of a bitstream: all its bytes, original pixels.

    Args:
        frames: Frames shown.
        size: (height, width) before any padding.
        fps: Frames per second when played.
        nbytes: Size of the bitstream with its header.
    """
    bits = 8 * nbytes
    return {
        "bpp": bits / (frames * size[0] * size[1]),
        "kbps": float(bits * fps / frames) / 1000,
    }


def summary(
    path: Path, frames: int, size: tuple[int, int], fps: Fraction, nbytes: int
) -> str:
    """Say what was written to a path and what it costs; see :func:`costs_of`."""
    costs = costs_of(frames, size, fps, nbytes)
    return (
        f"{printable(path)}: {frames} frames of {size[1]}x{size[0]}, {nbytes} bytes, "
        f"{costs['bpp']:.4f} bpp, {costs['kbps']:.1f} kbps"
    )


def speed(frames: int, seconds: float) -> str:
    """Say how fast frames were coded, without reading and writing them."""
    return f"{frames / seconds:.2f} frames/s, {seconds:.1f} s"
