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


def of_one_size(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Give frames (..., H, W), and refuse one of another size than the first."""
    size: torch.Size | None = None
    for frame in frames:
        found = frame.shape[-2:]
        size = size or found
        if found != size:
            raise ValueError(
                f"a frame has {found[1]}x{found[0]} pixels, the ones before it had "
                f"{size[1]}x{size[0]}: all frames of a video must have one size"
            )
        yield frame


def as_shown(pixels: Tensor) -> Tensor:
    """Return decoded pixels as callers get them: float32, clamped to [0, 1].

    Those of float64 become whole multiples of 1 / ``SHOWN_STEPS``: results that differ
    in the last digits, as those of two machines do, give the same frame.
    """
    pixels = pixels.clamp(0.0, 1.0)
    if pixels.dtype == torch.float64:
        pixels = (pixels * SHOWN_STEPS).round() / SHOWN_STEPS
    return pixels.float()
