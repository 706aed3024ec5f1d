"""Where scales pass from one level to the next: comparisons in the logarithm's stead.

A level is the rounded logarithm of a scale, in torch's arithmetic, which is part of
each stream that is written. Its last digit is the machine's; but it never falls where
scales rise, so between two levels lies one number, from which on scales are of the
higher one. These numbers are found by asking torch. So levels are torch's own for all
scales, and choosing one takes two comparisons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.entropy.tables import Ints, Rows

REACH = 64
"""Float numbers around the logarithm's own edge that are asked for. Roundings of the
logarithm, a difference and a quotient move it by less than 16."""
BITS: dict[torch.dtype, type[np.signedinteger[Any]]] = {
    torch.float32: np.int32,
    torch.float64: np.int64,
}


FLOATS: dict[torch.dtype, type[np.floating[Any]]] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
}


def flat(x: Tensor) -> npt.NDArray[Any]:
    """Return the elements of a tensor on a CPU in raster order, a copy if need be."""
    array: npt.NDArray[Any] = x.detach().contiguous().numpy()
    return array.reshape(-1)


@dataclass(frozen=True, eq=False)
class ScaleEdges:
    """The edges of one type of float, as :func:`~.elements.find_rows` wants them.

    Attributes:
        low: Bits where the first bucket begins.
        high: Bits within the last bucket, above the last edge.
        shift: Low bits that differ within a bucket.
        base: Level at each bucket's beginning.
        edge: Bits from which on a bucket's scales are one level higher.
        infinity: Bits of infinity.
        magnitude: All bits but the sign.
    """

    low: np.signedinteger[Any]
    high: np.signedinteger[Any]
    shift: int
    base: Rows
    edge: npt.NDArray[np.signedinteger[Any]]
    infinity: np.signedinteger[Any]
    magnitude: np.signedinteger[Any]

    def rows(self, scales: Tensor, at: Ints, plane: int, count: int) -> Rows | None:
        """Return the level of each coded element, or ``None`` if a scale is NaN.

        Args:
            scales: Of all elements, on a CPU.
            at: Places of coded elements in each plane.
            plane: Elements of a plane, 0 if all are coded.
            count: How many are.
        """
        from lightning_modules.entropy.elements import find_rows

        rows = np.empty(count, dtype=np.uint16)
        bits = flat(scales).view(self.edge.dtype)
        missing = find_rows(self.edge.dtype.type)(
            bits,
            at,
            plane,
            self.low,
            self.high,
            self.infinity,
            self.magnitude,
            self.shift,
            self.base,
            self.edge,
            rows,
        )
        return None if missing else rows


def find_edges(
    rule: Callable[[Tensor], Tensor], middles: Sequence[float], dtype: torch.dtype
) -> ScaleEdges | None:
    """Return the edges of a rule.

    Args:
        rule: Gives the level of each scale, 0 to ``len(middles)``.
        middles: Scales > 0, rising: where levels end, but for rounding.
        dtype: Of scales.

    Returns:
        ``None`` if the rule falls somewhere, so that there are none.
    """
    kind = BITS[dtype]
    centre = torch.tensor(middles, dtype=dtype).numpy().view(kind)
    near = centre[:, None] + np.arange(-REACH, REACH + 1, dtype=kind)
    levels = rule(torch.from_numpy(near).view(dtype)).numpy()
    lower = np.arange(len(middles))
    steps = np.diff(levels, axis=1)
    whole = (levels[:, 0] == lower).all() and (levels[:, -1] == lower + 1).all()
    if not whole or (steps < 0).any():
        return None
    edges = near[lower, steps.argmax(axis=1) + 1].astype(np.int64)
    # As wide as possible with no more than one edge in each bucket.
    gaps = np.diff(edges) if len(edges) > 1 else edges
    shift = int(gaps.min()).bit_length() - 1
    first, last = int(edges[0]) >> shift, int(edges[-1]) >> shift
    begins = np.arange(first, last + 1) << shift
    base = np.searchsorted(edges, begins, side="right")
    following = np.append(edges, np.iinfo(kind).max)[base]
    infinity = torch.tensor(torch.inf, dtype=dtype).numpy().view(kind)
    return ScaleEdges(
        kind(first << shift),
        kind(edges[-1]),
        shift,
        base.astype(np.uint16),
        following.astype(kind),
        kind(infinity),
        kind(np.iinfo(kind).max),
    )
