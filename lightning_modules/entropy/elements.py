"""One pass over a latent's elements: which are coded, as what, by which table.

A latent is flat, in raster order. ``at`` are the places of coded elements within each
plane of ``plane`` elements; where ``plane`` is 0 all elements are coded.
"""

from typing import Any

import numpy as np
from numba import int32, int64, types, uint16, uint64

from lightning_modules.entropy.compiled import (
    FLAGS,
    INTS,
    SHORTS,
    compiled,
    compiled_by_type,
    vector,
    written,
)
from lightning_modules.entropy.tables import MAX_VALUE


@compiled(int64(FLAGS, written(INTS)))
def find_places(keep: Any, at: Any) -> Any:
    """Fill ``at`` with the places of what is kept, and return their number."""
    count = 0
    for i in range(len(keep)):
        at[count] = i
        count += int64(keep[i])
    return count


@compiled_by_type(
    lambda number: types.bool_(
        vector(number),
        INTS,
        int64,
        number,
        number,
        written(INTS),
        written(vector(number)),
    ),
    np.float32,
)
def round_elements(
    x: Any, at: Any, plane: int, low: Any, high: Any, values: Any, whole: Any
) -> Any:
    """Round what is coded to whole numbers.

    Args:
        x: The latent.
        at: See above.
        plane: See above.
        low: Smallest number; smaller ones become it.
        high: Largest, likewise.
        values: (coded elements,), to fill.
        whole: The rounded latent, to fill where elements are coded.

    Returns:
        Whether one is NaN or not within +-2^30, so that the others mean nothing.
    """
    bad = False
    if plane == 0:
        for i in range(len(x)):
            v = x[i]
            bad |= v != v
            v = np.rint(min(max(v, low), high))
            bad |= not abs(v) <= MAX_VALUE
            values[i] = int32(v)
            whole[i] = int32(v)
        return bad
    first = uint64(0)
    for begin in range(0, len(x), plane):
        for k in range(len(at)):
            i = uint64(begin) + uint64(at[k])
            v = x[i]
            bad |= v != v
            v = np.rint(min(max(v, low), high))
            bad |= not abs(v) <= MAX_VALUE
            values[first + uint64(k)] = int32(v)
            whole[i] = int32(v)
        first += uint64(len(at))
    return bad


@compiled_by_type(
    lambda number: types.void(INTS, INTS, int64, written(vector(number))), np.float32
)
def put_values(values: Any, at: Any, plane: int, whole: Any) -> None:
    """Fill a latent with the values of its coded elements, and leave the others."""
    if plane == 0:
        for i in range(len(values)):
            whole[i] = values[i]
        return
    first = uint64(0)
    for begin in range(0, len(whole), plane):
        for k in range(len(at)):
            i = uint64(begin) + uint64(at[k])
            whole[i] = values[first + uint64(k)]
        first += uint64(len(at))


@compiled_by_type(
    lambda number: types.bool_(
        vector(number),
        INTS,
        int64,
        number,
        number,
        number,
        number,
        int64,
        SHORTS,
        vector(number),
        written(SHORTS),
    ),
    np.int32,
)
def find_rows(
    scales: Any,
    at: Any,
    plane: int,
    low: Any,
    high: Any,
    infinity: Any,
    magnitude: Any,
    shift: int,
    base: Any,
    edge: Any,
    rows: Any,
) -> Any:
    """Find the level of each coded element's scale.

    Floats stand in for integers with their bits, which are in the same order: a
    bucket's scales differ in the lowest bits, and are of its base level or, from its
    edge on, of the next.

    Args:
        scales: Bits of the scales of all elements.
        at: See above.
        plane: See above.
        low: Where the first bucket begins; smaller ones count as it.
        high: In the last bucket; larger ones count as it.
        infinity: Bits of infinity.
        magnitude: All bits but the sign.
        shift: Bits within a bucket.
        base: (buckets,).
        edge: (buckets,).
        rows: (coded elements,), to fill.

    Returns:
        Whether a scale is NaN.
    """
    bad = False
    if plane == 0:
        for i in range(len(scales)):
            scale = scales[i]
            bad |= (scale & magnitude) > infinity
            scale = min(max(scale, low), high)
            bucket = uint64((scale - low) >> shift)
            rows[i] = base[bucket] + uint16(scale >= edge[bucket])
        return bad
    first = uint64(0)
    for begin in range(0, len(scales), plane):
        for k in range(len(at)):
            scale = scales[uint64(begin) + uint64(at[k])]
            bad |= (scale & magnitude) > infinity
            scale = min(max(scale, low), high)
            bucket = uint64((scale - low) >> shift)
            row = base[bucket] + uint16(scale >= edge[bucket])
            rows[first + uint64(k)] = row
        first += uint64(len(at))
    return bad
