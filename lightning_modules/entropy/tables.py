"""Integer tables of probabilities: what encoder and decoder agree on to the bit."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

PRECISION = 16  # Bits of a cumulative frequency.
TOTAL = 1 << PRECISION
MAX_VALUE = 1 << 30  # Largest magnitude of a symbol or an offset.
TAIL_MASS = 1e-4  # Probability of values that are escaped, at most.
MAX_WIDTH = 1 << 15  # Symbol numbers within a table fit 16 signed bits.


@dataclass(frozen=True, eq=False)
class CdfTables:
    """Cumulative frequencies of a set of distributions, as integers.

    Symbol number ``k`` of table ``t`` stands for the value ``offset[t] + k`` and has
    the frequency ``cdf[t, k + 1] - cdf[t, k]`` of 65536. The last used symbol number
    is the escape: it stands for all other values, which follow in plain bits.

    Attributes:
        cdf: (tables, width), int32, rises from 0 to 65536 and then stays there.
        length: (tables,), int32, used entries of each row, one more than its symbols.
        offset: (tables,), int32, smallest value of each table.
    """

    cdf: Ints
    length: Ints
    offset: Ints

    def __post_init__(self) -> None:
        for name in ("cdf", "length", "offset"):
            array = np.array(getattr(self, name), dtype=np.int32, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self.check()

    def __len__(self) -> int:
        return len(self.cdf)

    def check(self) -> None:
        """Look for what no coder could decode.

        Raises:
            ValueError: Shapes disagree, or a row does not rise strictly from 0 to
                65536 within its length and stay there.
        """
        if self.cdf.ndim != 2 or not 3 <= self.cdf.shape[1] <= MAX_WIDTH:
            raise ValueError(
                f"cdf has shape {self.cdf.shape}, it must be (tables, width) with a "
                f"width from 3 to {MAX_WIDTH}"
            )
        rows, width = self.cdf.shape
        if self.length.shape != (rows,) or self.offset.shape != (rows,):
            raise ValueError(
                f"length {self.length.shape} and offset {self.offset.shape} must have "
                f"one entry for each of the {rows} tables"
            )
        used = np.arange(1, width) < self.length[:, None]
        steps = np.diff(self.cdf, axis=1)
        good = (
            (self.length >= 3)
            & (self.length <= width)
            & (np.abs(self.offset.astype(np.int64)) <= MAX_VALUE)
            & (self.cdf[:, 0] == 0)
            & (self.cdf[:, -1] == TOTAL)
            & np.where(used, steps > 0, steps == 0).all(axis=1)
        )
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                f"table {row} of {rows} is broken: its {self.length[row]} entries must "
                f"rise strictly from 0 to {TOTAL}, the rest repeat {TOTAL}, and its "
                f"offset {self.offset[row]} must lie within +-2^30"
            )

    @cached_property
    def lookup(self) -> npt.NDArray[np.int16]:
        """First symbol number that a decoder has to try, (tables, 256).

        Column ``b`` is for cumulative frequencies from ``256 b`` to ``256 b + 255``.
        """
        rows = np.arange(len(self))[:, None]
        used = np.arange(1, self.cdf.shape[1]) < self.length[:, None]
        first_bucket = -(-self.cdf[:, 1:].astype(np.int64) >> 8)
        starts = np.zeros((len(self), TOTAL // 256 + 1), dtype=np.int16)
        np.add.at(starts, (rows, first_bucket), used.astype(np.int16))
        return np.cumsum(starts, axis=1, dtype=np.int16)[:, :-1].copy()

    @cached_property
    def least_bits(self) -> float:
        """What a symbol costs at least: the most probable one of all tables, in bits.

        Far below one, so that many symbols fit a byte, but above 0.
        """
        return PRECISION - math.log2(np.diff(self.cdf, axis=1).max())

    def to_bytes(self) -> bytes:
        """Return the tables as bytes: equal tables give equal bytes."""
        shape = np.array(self.cdf.shape, dtype="<i4")
        arrays = (shape, self.cdf, self.length, self.offset)
        return b"".join(array.astype("<i4").tobytes() for array in arrays)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return int32 tensors that a checkpoint can hold."""
        names = ("cdf", "length", "offset")
        return {name: torch.from_numpy(getattr(self, name).copy()) for name in names}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "CdfTables":
        """Build the tables that :meth:`to_tensors` took apart.

        Raises:
            ValueError: An entry is missing or the tables are broken.
        """
        missing = {"cdf", "length", "offset"} - set(tensors)
        if missing:
            raise ValueError(f"tables without {sorted(missing)}: found {list(tensors)}")
        return cls(
            *(tensors[name].cpu().numpy() for name in ("cdf", "length", "offset"))
        )


def tables_from_pmf(
    pmf: npt.ArrayLike,
    length: npt.ArrayLike,
    offset: npt.ArrayLike,
    tail_mass: npt.ArrayLike,
) -> CdfTables:
    """Round probabilities to frequencies of 65536 in which nothing has frequency 0.

    What is more probable than 1/65536 shares what the rest leaves, and the fractions
    that are lost go to the largest remainders, so rows sum to 65536 exactly.

    Args:
        pmf: (tables, width), >= 0; only the first ``length`` entries of a row count.
        length: (tables,), values in each table, at least 1.
        offset: (tables,), the value that entry 0 of each row stands for.
        tail_mass: (tables,) or a scalar, >= 0, probability of the escape.

    Raises:
        ValueError: Probabilities are negative, not finite, or sum to 0 in a row, or
            shapes disagree.
    """
    masses = np.array(pmf, dtype=np.float64, ndmin=2)
    rows, width = masses.shape
    counts = np.asarray(length, dtype=np.int64)
    most = min(width, MAX_WIDTH - 2)
    if counts.shape != (rows,) or (counts < 1).any() or (counts > most).any():
        raise ValueError(
            f"length must hold {rows} numbers from 1 to {most}, one for each row of "
            f"pmf {masses.shape}: got {counts}"
        )
    column = np.arange(width + 1)
    escape = counts[:, None]
    masses = np.concatenate([masses, np.zeros((rows, 1))], axis=1)
    masses[column > escape] = 0.0
    np.put_along_axis(
        masses, escape, np.broadcast_to(tail_mass, (rows,))[:, None], axis=1
    )
    sums = masses.sum(axis=1, keepdims=True)
    good = np.isfinite(sums[:, 0]) & (sums[:, 0] > 0) & (masses >= 0).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"probabilities must be finite, >= 0 and not all 0: row {row} sums to "
            f"{sums[row, 0]} and its smallest is {masses[row].min()}"
        )

    used = column <= escape
    spare = TOTAL - counts - 1
    above = np.maximum(masses / sums - 1 / TOTAL, 0.0)
    share = above / above.sum(axis=1, keepdims=True) * spare[:, None]
    frequency = np.floor(share)
    remainder = np.where(used, share - frequency, -1.0)
    rank = np.argsort(np.argsort(-remainder, axis=1, kind="stable"), axis=1)
    missing = spare[:, None] - frequency.sum(axis=1, keepdims=True)
    frequency += rank < missing
    frequency = np.where(used, frequency + 1, 0)
    cdf = np.zeros((rows, width + 2), dtype=np.int64)
    cdf[:, 1:] = np.cumsum(frequency, axis=1)
    return CdfTables(
        cdf.astype(np.int32),
        (counts + 2).astype(np.int32),
        np.asarray(offset, dtype=np.int32),
    )


def _upper_tail(x: Floats) -> Floats:
    """Return P(X > x) of a standard normal X, with full relative precision."""
    flat = [0.5 * math.erfc(value * math.sqrt(0.5)) for value in x.ravel()]
    return np.array(flat).reshape(x.shape)


def gaussian_tables(scales: npt.ArrayLike, max_symbol: int | None = None) -> CdfTables:
    """Tabulate zero-mean Gaussians, rounded to whole numbers, one table per scale.

    A table holds the values from -c to c, where c is the smallest whole number >= 2
    with less than ``TAIL_MASS`` above it; rarer values are escaped.

    Args:
        scales: (levels,), standard deviations > 0.
        max_symbol: Largest c, at least 2; no limit by default.

    Raises:
        ValueError: A scale is not positive, or ``max_symbol`` is below 2.

    Source: DCVC-RT (arXiv 2502.20762) has 128 levels and ``max_symbol`` 8.
    """
    sigma = np.asarray(scales, dtype=np.float64).reshape(-1, 1)
    if not (np.isfinite(sigma).all() and (sigma > 0).all()) or sigma.size == 0:
        raise ValueError(f"scales must be positive numbers, got {sigma.ravel()}")
    if max_symbol is not None and max_symbol < 2:
        raise ValueError(f"max_symbol is {max_symbol}, it must be at least 2")
    reach = np.full(len(sigma), 2)
    while True:
        short = _upper_tail(reach[:, None] / sigma)[:, 0] >= TAIL_MASS
        if max_symbol is not None:
            short &= reach < max_symbol
        if not short.any():
            break
        reach[short] += 1
    width = 2 * int(reach.max()) + 1
    # The distance of each value from 0, in the half where tails are accurate.
    distance = np.abs(np.arange(width) - reach[:, None])
    pmf = _upper_tail((distance - 0.5) / sigma) - _upper_tail((distance + 0.5) / sigma)
    escape = 2 * _upper_tail((reach[:, None] + 0.5) / sigma)[:, 0]
    return tables_from_pmf(pmf, 2 * reach + 1, -reach, escape)
