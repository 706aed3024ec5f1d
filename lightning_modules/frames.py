"""Frames before a codec sees them and after: padding, one size, what is shown."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

SHOWN_STEPS = 2**17
"""Levels of a sample that float64 networks show, far finer than 8 bits."""


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge until both sides divide by ``multiple``.

    Args:
        x: (B, C, H, W).
        multiple: At least 1.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom == right == 0:
        return x
    return F.pad(x, (0, right, 0, bottom), mode="replicate")


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """Return the sides of a frame after :func:`pad_to_multiple`."""
    return height + -height % multiple, width + -width % multiple


def pad_frames(frames: Tensor, length: int) -> Tensor:
    """Repeat the last frame of (B, T, ...) until there are ``length`` of them."""
    missing = length - frames.shape[1]
    if missing <= 0:
        return frames
    tail = frames[:, -1:].expand(-1, missing, *frames.shape[2:])
    return torch.cat([frames, tail], dim=1)


def check_frames(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Give frames, and refuse what is none.

    Args:
        frames: Each (3, H, W), floating point, RGB in [0, 1], all of one size; so a
            tensor (T, 3, H, W) is frames too.

    Raises:
        ValueError: One is not so, or there is none.
    """
    size: torch.Size | None = None
    for number, frame in enumerate(frames):
        _check_frame(frame, number)
        found = frame.shape[-2:]
        size = size or found
        if found != size:
            raise ValueError(
                f"frame {number} has {found[1]}x{found[0]} pixels, the ones before it "
                f"had {size[1]}x{size[0]}: all frames of a video must have one size"
            )
        yield frame
    if size is None:
        raise ValueError("there is no frame to code")


def _check_frame(frame: Tensor, number: int) -> None:
    wanted = "must be a tensor (3, H, W), RGB in [0, 1]"
    if not isinstance(frame, Tensor):
        raise ValueError(
            f"frame {number} is of type {type(frame).__name__}, it {wanted}: of an "
            "array (H, W, 3) in 8 bits take torch.from_numpy(x).permute(2, 0, 1) / 255"
        )
    shape = tuple(frame.shape)
    if len(shape) == 4:
        raise ValueError(
            f"frame {number} has the shape {shape}, it {wanted}: code the clips of a "
            "batch (B, T, 3, H, W) one by one, each as (T, 3, H, W)"
        )
    if len(shape) != 3 or shape[0] != 3 or not frame.numel():
        raise ValueError(f"frame {number} has the shape {shape}, it {wanted}")
    if not frame.is_floating_point():
        raise ValueError(
            f"frame {number} has the dtype {frame.dtype}, it {wanted}: divide 8 bits "
            "by 255"
        )
    least, most = (float(value) for value in frame.aminmax())
    # So written it refuses what is no number, too.
    if not (least >= 0 and most <= 1):
        raise ValueError(
            f"frame {number} has values from {least:g} to {most:g}, it {wanted}: "
            "divide 8 bits by 255, clamp what was resized"
        )


def as_shown(pixels: Tensor) -> Tensor:
    """Return decoded pixels as callers get them: float32, clamped to [0, 1].

    Those of float64 become whole multiples of 1 / ``SHOWN_STEPS``: results that differ
    in the last digits, as those of two machines do, give the same frame.
    """
    pixels = pixels.clamp(0.0, 1.0)
    if pixels.dtype == torch.float64:
        pixels = (pixels * SHOWN_STEPS).round() / SHOWN_STEPS
    return pixels.float()
