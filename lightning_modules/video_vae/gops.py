"""Groups of pictures: which frames are coded together, and how groups are joined.

With overlap neighbouring groups share a frame: it is the last of one and the first of
the next, coded in both, and shown as a mean of the two decoded copies.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lightning_modules.video_vae.backbone import TIME_STRIDE

Item = TypeVar("Item")


@dataclass(frozen=True)
class Gop(Generic[Item]):
    """Frames that are coded together.

    Attributes:
        frames: In order.
        shown: How many of them are complete when this group is decoded: the others
            (at most one) are shared with the next group, which completes them.
        blends: Whether the first one is shared with the group before.
    """

    frames: list[Item]
    shown: int
    blends: bool


def cut(frames: Iterable[Item], length: int, overlap: bool) -> Iterator[Gop[Item]]:
    """Cut a sequence into groups, holding one of them and one frame more.

    n frames make ceil((n - 1) / (length - 1)) groups with overlap (at least one), and
    ceil(n / length) without.

    Args:
        frames: Frames, or what stands for them.
        length: Frames of a group; the last one may have fewer.
        overlap: Whether groups share their outer frames.

    Source: arXiv paper's section on overlapping groups, stride length - 1.
    """
    source = iter(frames)
    begun: list[Item] = []
    blends = False
    while group := [*begun, *islice(source, length - len(begun))]:
        # Only a frame that follows makes the last one a shared one.
        ahead = list(islice(source, 1)) if overlap and len(group) == length else []
        yield Gop(group, len(group) - len(ahead), blends)
        begun = [group[-1], *ahead] if ahead else []
        blends = bool(ahead)


def padded_length(frames: int) -> int:
    """Return the next 4 n + 1, at which a video VAE can code so many frames."""
    return -(-(frames - 1) // TIME_STRIDE) * TIME_STRIDE + 1


def join(
    decoded: Tensor, shown: int, blends: bool, held: Tensor | None, theta: float
) -> tuple[Tensor, Tensor]:
    """Return the frames that a group completes, and what the next one needs.

    Args:
        decoded: The group's frames, (..., T, 3, H, W), neither clamped nor rounded.
        shown: As in :class:`Gop`.
        blends: As in :class:`Gop`.
        held: What this gave for the group before, or ``None`` if that is not there:
            then the group's own copy of a shared frame stands alone.
        theta: Share of the earlier group's copy in a shared frame, 0 to 1.

    Returns:
        Frames (..., shown, 3, H, W), and the frame after them if it was decoded,
        (..., 0 or 1, 3, H, W).
    """
    following = decoded[..., shown : shown + 1, :, :, :]
    complete = decoded[..., :shown, :, :, :]
    if blends and held is not None:
        first, rest = complete.split([1, shown - 1], dim=-4)
        mixed = theta * held + (1.0 - theta) * first
        complete = torch.cat([mixed, rest], dim=-4)
    return complete, following
