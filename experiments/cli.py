"""What the commands that run a codec share: exit codes, devices, determinism, sums.

Nothing heavy is imported here before it is used, so that ``--help`` is instant.
"""

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

# Of 8-bit frames that are identical the PSNR is infinite; means need a number.
MAX_PSNR = 99.9


def run_command(command: Callable[[], int | None], *, sigterm_ends: bool = True) -> int:
    """Run a command and return its exit code.

    Args:
        command: What to do.
        sigterm_ends: Whether SIGTERM, which a cluster sends, ends it as Ctrl-C does,
            so that it clears away what is half written.

    Returns:
        What the command returns, or 0; or 2 after one line ``error: ...`` on stderr
        for what the user can mend (:class:`ValueError`, :class:`OSError`,
        :class:`MemoryError`); or 130 after Ctrl-C or SIGTERM. Any other exception is a
        bug and keeps its traceback.
    """
    try:
        with _sigterm_as_ctrl_c() if sigterm_ends else nullcontext():
            return command() or 0
    except (ValueError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, unless somebody handles it already."""
    own = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not own or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def parse_size(text: str) -> tuple[int, int]:
    """Turn ``416x240`` (width x height) into (height, width)."""
    width, times, height = text.partition("x")
    if not (times and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 1920x1080")
    return int(height), int(width)


def parse_fps(text: str) -> Fraction:
    """Turn ``25``, ``29.97`` or ``30000/1001`` into an exact rate."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no frame rate such as 25, 29.97 or 30000/1001"
        ) from None


def check_paths(
    source: Path, target: Path | None, checkpoint: Path | None = None
) -> None:
    """Raise ``ValueError`` if there is no source, or writing would replace an input."""
    if not source.exists():
        raise ValueError(f"there is no file or directory {source}")
    if target and target.exists() and target.samefile(source):
        raise ValueError(f"IN and OUT are the same file, {source}")
    if checkpoint and checkpoint.exists() and target and target.exists():
        if target.samefile(checkpoint):
            raise ValueError(f"OUT is the checkpoint, {checkpoint}")


def check_folder(folder: Path) -> None:
    """Raise ``ValueError`` if a folder of --output is a file, or lies in one."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(
                f"--output: {place} is a file, it must be a folder: choose another"
            )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add where the networks of an encoder run, and in what."""
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where the networks run (default: cuda if there is one)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16", "float64"],
        default="float32",
        help="what they compute in; decoders follow (default: float32); float64 is "
        "slow, and decodes with other threads and kernels too",
    )


def choose_device(name: str) -> "torch.device":
    """Return the device called ``auto`` (CUDA if there is one), ``cpu`` or ``cuda``.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda" and not available:
        raise ValueError("there is no CUDA device here: use --device cpu")
    return torch.device(name)


@contextmanager
def coding_mode(device: "torch.device") -> Iterator[None]:
    """Compute without gradients and the same way every time, then restore.

    A decoder must arrive at the encoder's numbers bit by bit: no kernels chosen by
    timing, no TF32, deterministic algorithms wherever torch has them.

    Args:
        device: Where it computes. Convolutions on a CPU are deterministic as they are,
            and asking for it costs two seconds of imports.
    """
    import torch

    if device.type == "cpu":
        with torch.inference_mode():
            yield
        return
    # cuBLAS reads it when it is first used; other values are not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
            torch.inference_mode(),
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)
        torch.set_float32_matmul_precision(precision)


def track(items: Iterable[T], verb: str, total: int | None) -> Iterable[T]:
    """Pass items through and show how many there were, on a terminal only."""
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track as show

    console = Console(stderr=True)
    return show(items, verb, total=total, console=console, transient=True)


def frame_bytes(frame: "Tensor") -> bytes:
    """Return a frame's float32 values as bytes, for hashing."""
    return frame.float().cpu().contiguous().numpy().tobytes()


def psnr(frame: "Tensor", reference: "Tensor") -> float:
    """Return the RGB PSNR in dB of two frames (3, H, W) as 8-bit files hold them."""
    import torch

    a, b = (
        x.float().cpu().clamp(0, 1).mul(255).round().to(torch.float64)
        for x in (frame, reference)
    )
    error = (a - b).square().mean().item() / 255**2
    if error == 0:
        return MAX_PSNR
    return min(MAX_PSNR, -10 * math.log10(error))


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
        f"{path}: {frames} frames of {size[1]}x{size[0]}, {nbytes} bytes, "
        f"{costs['bpp']:.4f} bpp, {costs['kbps']:.1f} kbps"
    )


def speed(frames: int, seconds: float) -> str:
    """Say how fast frames were coded, without reading and writing them."""
    return f"{frames / seconds:.2f} frames/s, {seconds:.1f} s"
