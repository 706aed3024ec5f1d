"""Coding large pictures in overlapping tiles, so that memory is bounded.

A tile does not see what lies around it: its outer convolutions meet padding instead of
the picture, and attention and normalisation take in the tile only. So a clip coded in
tiles differs from the same clip coded whole, most of all at the seams. Results with and
without tiles, or with other tiles, must not be mixed in one comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lightning_modules.video_vae.backbone import SPACE_STRIDE, Backbone, check_clip


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut. The defaults are those of CV-VAE's own inference.

    Attributes:
        side: Of a tile, in pixels.
        overlap: Of neighbouring tiles, in pixels: there the one fades into the other.
            576 and 128 are the 22 % of arXiv 2405.20279's code.

    Raises:
        ValueError: Something is no multiple of 8, or more than two tiles could meet.
    """

    side: int = 576
    overlap: int = 128

    def __post_init__(self) -> None:
        if self.side % SPACE_STRIDE or self.overlap % SPACE_STRIDE:
            raise ValueError(
                f"tiles of {self.side} pixels that overlap by {self.overlap}: both "
                f"must be multiples of {SPACE_STRIDE}"
            )
        if self.side < SPACE_STRIDE or not 0 <= 3 * self.overlap <= self.side:
            raise ValueError(
                f"tiles of {self.side} pixels that overlap by {self.overlap}: the "
                "overlap must be between 0 and a third of the side"
            )


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in latent positions.

    Attributes:
        start: The first position that the tile sees.
        stop: The one after the last that it sees.
        fade_in: Where it begins to count: first position and length of the ramp.
        fade_out: Where it ceases to count: likewise.
    """

    start: int
    stop: int
    fade_in: tuple[int, int]
    fade_out: tuple[int, int]

    def weights(self, scale: int, like: Tensor) -> Tensor:
        """Return how much each sample counts, ``scale`` of them for a position."""
        positions = torch.arange(
            self.start * scale, self.stop * scale, device=like.device
        )
        rising = _ramp(positions, self.fade_in, scale)
        falling = _ramp(positions, self.fade_out, scale)
        return (rising * (1 - falling)).to(like.dtype)


def spans(length: int, tiling: Tiling) -> list[Span]:
    """Return the fewest tiles that cover an axis, all of one size, evenly spread.

    Where tiles overlap by more than asked for, the ramp lies in the middle: what is
    nearest to a border is not used.

    Args:
        length: Of the axis, in latent positions.
        tiling: How to cut.
    """
    side, overlap = (n // SPACE_STRIDE for n in (tiling.side, tiling.overlap))
    if length <= side:
        return [Span(0, length, (0, 0), (length, 0))]
    steps = -(-(length - side) // (side - overlap))
    starts = [i * (length - side) // steps for i in range(steps + 1)]
    seams = [
        (after + (before + side - after - overlap) // 2, overlap)
        for before, after in pairwise(starts)
    ]
    ramps = [(0, 0), *seams, (length, 0)]
    return [
        Span(start, start + side, fade_in, fade_out)
        for start, (fade_in, fade_out) in zip(starts, pairwise(ramps), strict=True)
    ]


def encode_in_tiles(backbone: Backbone, clip: Tensor, tiling: Tiling | None) -> Tensor:
    """Return the latent of a clip, encoded tile by tile.

    Not to be mixed with latents of whole pictures in one comparison.

    Args:
        backbone: Encodes a tile.
        clip: (B, T, 3, H, W), as for :meth:`Backbone.encode`.
        tiling: How to cut; ``None`` for whole pictures.

    Raises:
        ValueError: The clip has a shape that the backbone cannot encode.
    """
    check_clip(clip)
    height, width = (n // SPACE_STRIDE for n in clip.shape[-2:])
    return _merge(backbone.encode, clip, (height, width), tiling, SPACE_STRIDE, 1)


def decode_in_tiles(
    backbone: Backbone, latent: Tensor, tiling: Tiling | None
) -> Tensor:
    """Return the clip of a latent, decoded tile by tile; not clamped.

    Not to be mixed with clips that were decoded whole in one comparison.

    Args:
        backbone: Decodes a tile.
        latent: (B, c, t, h, w), as for :meth:`Backbone.decode`.
        tiling: How to cut; ``None`` for whole pictures.
    """
    height, width = latent.shape[-2:]
    return _merge(backbone.decode, latent, (height, width), tiling, 1, SPACE_STRIDE)


def _merge(
    transform: Callable[[Tensor], Tensor],
    x: Tensor,
    size: tuple[int, int],
    tiling: Tiling | None,
    given: int,
    wanted: int,
) -> Tensor:
    """Transform ``x`` by tiles; ``given`` and ``wanted`` are samples per position."""
    if tiling is None:
        return transform(x)
    rows, columns = (spans(length, tiling) for length in size)
    if len(rows) == len(columns) == 1:
        return transform(x)
    merged: Tensor | None = None
    for row in rows:
        for column in columns:
            tile = transform(
                x[
                    ...,
                    row.start * given : row.stop * given,
                    column.start * given : column.stop * given,
                ]
            )
            if merged is None:
                height, width = (length * wanted for length in size)
                merged = tile.new_zeros(*tile.shape[:-2], height, width)
            weights = row.weights(wanted, tile)[:, None] * column.weights(wanted, tile)
            merged[
                ...,
                row.start * wanted : row.stop * wanted,
                column.start * wanted : column.stop * wanted,
            ] += tile * weights
    assert merged is not None
    return merged


def _ramp(positions: Tensor, fade: tuple[int, int], scale: int) -> Tensor:
    """Return 0 before a ramp, 1 after it, and even steps within."""
    first, length = fade
    if not length:
        return (positions >= first * scale).float()
    return ((positions - first * scale + 0.5) / (length * scale)).clamp(0, 1)
