"""Integer tables of probabilities: what encoder and decoder agree on to the bit."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int32]
Rows = npt.NDArray[np.uint16]
Wide = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

PRECISION = 16  # Bits of a cumulative frequency.
TOTAL = 1 << PRECISION
MAX_VALUE = 1 << 30  # Largest magnitude of a symbol or an offset.
TAIL_MASS = 1e-4  # Probability of values that are escaped, at most.
MAX_WIDTH = 1 << 15  # Symbol numbers within a table fit 16 signed bits.
MAX_TABLES = 1 << 16  # Their numbers fit 16 bits.

# A symbol as a decoder looks it up: 16 bits of where its frequencies start, 16 of how
# many there are, its value plus MAX_VALUE. Or, with ODD, its number: it is an escape,
# or its value is MAX_VALUE or more.
FIELD = (1 << 31) - 1
ODD = 1 << 63
BUCKETS = 1 << 18  # Of all tables, of 8 bytes each: a processor's second cache.


def out_of_range(name: str, found: Any, low: int, high: int) -> ValueError:
    """Return the error that numbers, an array or a tensor, are not within a range."""
    return ValueError(
        f"{name} must lie within {low}..{high}, got {found.min()}..{found.max()}"
    )


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
        if rows > MAX_TABLES:
            raise ValueError(f"{rows} tables are too many: at most {MAX_TABLES}")
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
    def first(self) -> Ints:
        """Place of each table's first symbol among those of all tables, (tables,)."""
        first: Ints = np.cumsum(self.length - 1, dtype=np.int32) - (self.length - 1)
        return first

    @cached_property
    def escape(self) -> Ints:
        """Number of each table's escape, (tables,)."""
        return self.length - 2

    @property
    def _used(self) -> npt.NDArray[np.bool_]:
        return np.arange(self.cdf.shape[1] - 1) < self.length[:, None] - 1

    def _starts_and_frequencies(self) -> tuple[Wide, Wide]:
        used = self._used
        start = self.cdf[:, :-1][used].astype(np.uint64)
        return start, self.cdf[:, 1:][used].astype(np.uint64) - start

    @cached_property
    def entries(self) -> Wide:
        """What an encoder needs of each symbol of all tables, (2 symbols,).

        ``x // f`` is ``(x + b) * factor >> 64 + s``, exactly for all x below f 2^48:
        no division, which takes longer than all the rest. The second number holds, 16
        bits each but the last two, start, frequency f, s in 8 bits and b.

        Source: the method of A. D. Robison, "N-bit unsigned division via N-bit
        multiply-add", ARITH 2005.
        """
        start, f = self._starts_and_frequencies()
        s = (np.frexp(f)[1] - 1).astype(np.uint64)
        # 2^(64 + s) / f, 32 bits at a time.
        half = np.uint64(32)
        high, rest = np.divmod(np.uint64(1) << s + half, f)
        low, rest = np.divmod(rest << half, f)
        # Of a power of two it would be 2^64.
        exact = rest == 0
        factor = np.where(exact & (low == 0), ~np.uint64(0), (high << half) + low)
        # Rounded down, and x + 1 for x, unless the error would come to 2^(64 + s).
        up = (s == 15) & (rest * f > 1 << 31)
        entry = start | f << np.uint64(16) | s << half | (~up).astype(np.uint64) << 40
        return np.stack([factor + up, entry], axis=1).ravel()

    @cached_property
    def symbols(self) -> Wide:
        """What a decoder needs of each symbol of all tables, (symbols,)."""
        start, frequency = self._starts_and_frequencies()
        used = self._used
        number = np.broadcast_to(np.arange(used.shape[1]), used.shape)[used]
        value = number + np.repeat(self.offset.astype(np.int64), self.length - 1)
        odd = (number == np.repeat(self.escape, self.length - 1)) | (value >= MAX_VALUE)
        field = np.where(odd, number, value + MAX_VALUE).astype(np.uint64)
        field = field << np.uint64(32) | np.where(odd, np.uint64(ODD), np.uint64(0))
        return start | frequency << np.uint64(16) | field

    @cached_property
    def buckets(self) -> tuple[Wide, Wide]:
        """Where a decoder begins to look for a symbol.

        The 65536 cumulative frequencies of a table fall into a power of two of equal
        buckets, about four for each symbol: so what is coded often takes little room.

        Returns:
            First symbol of each bucket, and for each table the place of its first
            bucket, with 8 bits for the width's logarithm below it.
        """
        bits = np.ceil(np.log2(self.length - 1)).astype(np.int64) + 2
        while (1 << bits).sum() > BUCKETS and bits.max() > 1:
            bits = np.maximum(bits - 1, 1)
        shift = PRECISION - np.minimum(bits, PRECISION)
        size = TOTAL >> shift
        begin = np.cumsum(size) - size
        symbols = self.length - 1
        start = self.cdf[:, :-1][self._used].astype(np.int64)
        by, most = np.repeat(shift, symbols), np.repeat(size, symbols)
        # A symbol's first bucket, if any begins in it; of several the last one stays.
        bucket = (start + (1 << by) - 1) >> by
        inside = bucket < most
        first = np.zeros(size.sum(), dtype=np.int32)
        first[(np.repeat(begin, symbols) + bucket)[inside]] = inside.nonzero()[0]
        found = self.symbols[np.maximum.accumulate(first)]
        return found, (begin << 8 | shift).astype(np.uint64)

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
