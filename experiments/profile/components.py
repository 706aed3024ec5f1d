"""Principal components of blocks of video, and how much of other video they hold.

Mirror images of the training blocks count as much as the blocks. Then each component is
even or odd along rows and along columns, and those of one kind follow from a matrix of
a sixteenth of the size: blocks of 64x64 pixels take minutes, not hours.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

Block: TypeAlias = tuple[int, int, int]
"""Frames, rows and columns."""


@dataclass(frozen=True)
class _Kind:
    """Components that are even or odd along rows, and along columns.

    Attributes:
        rows: (a, h), orthonormal, from a column of pixels to its even or odd part.
        columns: (b, w), likewise from a row of pixels.
        mean: (frames * 3 * a * b,).
        vectors: As many rows, a component in each column, the strongest first.
    """

    rows: Tensor
    columns: Tensor
    mean: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class Components:
    """Principal components of blocks, the strongest first over all kinds.

    Attributes:
        block: Frames, rows and columns of a block.
        trained_on: How many blocks.
    """

    block: Block
    trained_on: int
    _kinds: tuple[_Kind, ...]
    _order: Tensor

    def errors(self, blocks: Iterable[Tensor]) -> Tensor:
        """Return the mean square error of blocks by how many components they have.

        Args:
            blocks: Batches (N, frames, 3, rows, columns), RGB in [0, 1].

        Returns:
            (samples of a block + 1,), float64: first that of the mean alone, last 0.

        Raises:
            ValueError: There is no block.
        """
        count = 0
        kept = torch.zeros(prod(self.block) * 3, dtype=torch.float64)
        for batch in blocks:
            count += len(batch)
            parts = [
                (_part(batch, kind.rows, kind.columns) - kind.mean) @ kind.vectors
                for kind in self._kinds
            ]
            kept += torch.cat([part.square().sum(0) for part in parts])
        if not count:
            raise ValueError("there is no block to measure on")
        # From the weakest up, so that no difference of large numbers remains.
        strongest = kept[self._order]
        lost = strongest.flip(0).cumsum(0).flip(0)
        return torch.cat([lost, lost.new_zeros(1)]) / (count * len(kept))


def find_components(blocks: Iterable[Tensor], block: Block) -> Components:
    """Return the principal components of blocks and of their mirror images.

    Args:
        blocks: Batches (N, frames, 3, rows, columns), RGB in [0, 1]; one at a time is
            held.
        block: Frames, rows and columns.

    Raises:
        ValueError: There is no block.
    """
    frames, height, width = block
    pairs = [
        (rows, columns)
        for rows, columns in product(_halves(height), _halves(width))
        if len(rows) and len(columns)
    ]
    sizes = [frames * 3 * len(rows) * len(columns) for rows, columns in pairs]
    sums = [torch.zeros(size, dtype=torch.float64) for size in sizes]
    squares = [torch.zeros(size, size, dtype=torch.float64) for size in sizes]
    count = 0
    for batch in blocks:
        count += len(batch)
        for pair, total, square in zip(pairs, sums, squares, strict=True):
            part = _part(batch, *pair)
            total += part.sum(0)
            square.addmm_(part.T, part)
    if not count:
        raise ValueError("there is no block to train on")
    kinds: list[_Kind] = []
    strengths: list[Tensor] = []
    for number, (pair, total) in enumerate(zip(pairs, sums, strict=True)):
        # That of a block and its mirror image has no odd part.
        mean = total / count if number == 0 else torch.zeros_like(total)
        covariance = squares.pop(0).div_(count).sub_(torch.outer(mean, mean))
        values, vectors = torch.linalg.eigh(covariance)
        kinds.append(_Kind(*pair, mean, vectors.flip(1)))
        strengths.append(values.flip(0))
    order = torch.cat(strengths).argsort(descending=True, stable=True)
    return Components(block, count, tuple(kinds), order)


def _halves(side: int) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the even signals of a length, and of the odd."""
    ones = torch.eye(side, dtype=torch.float64)
    even = (ones + ones.flip(1))[: (side + 1) // 2]
    odd = (ones - ones.flip(1))[: side // 2]
    return torch.nn.functional.normalize(even), torch.nn.functional.normalize(odd)


def _part(blocks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the part of blocks of one kind, (N, frames * 3 * a * b), float64."""
    return (rows @ blocks.double() @ columns.T).flatten(1)
