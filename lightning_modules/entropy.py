"""From latents to bits: estimates that train, integer tables and a coder that count.

Training asks what symbols would cost (:func:`gaussian_bits`) under a quantiser with
useful gradients (:func:`ste_round`, :func:`uniform_noise`). Real coding turns the
model into integer tables once (:class:`CdfTables`), and then exchanges arrays and
bytes with :class:`SymbolEncoder` and :class:`SymbolDecoder`, which are all that a
codec knows of the coder behind them.
"""

import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.clock import entropy_coding

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

PRECISION = 16  # Bits of a cumulative frequency.
TOTAL = 1 << PRECISION
MAX_VALUE = 1 << 30  # Largest magnitude of a symbol or an offset.
MASK = (1 << 32) - 1
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


def gaussian_tables(
    scales: npt.ArrayLike,
    max_symbol: int | None = None,
    tail_mass: float = 1e-4,
) -> CdfTables:
    """Tabulate zero-mean Gaussians, rounded to whole numbers, one table per scale.

    A table holds the values from -c to c, where c is the smallest whole number >= 2
    with less than ``tail_mass`` above it; rarer values are escaped.

    Args:
        scales: (levels,), standard deviations > 0.
        max_symbol: Largest c, at least 2; no limit by default.
        tail_mass: Probability, in (0, 0.5).

    Raises:
        ValueError: A scale is not positive, or ``max_symbol`` is below 2.

    Source: DCVC-RT (arXiv 2502.20762) has 128 levels and ``max_symbol`` 8.
    """
    sigma = np.asarray(scales, dtype=np.float64).reshape(-1, 1)
    if not (np.isfinite(sigma).all() and (sigma > 0).all()) or sigma.size == 0:
        raise ValueError(f"scales must be positive numbers, got {sigma.ravel()}")
    if max_symbol is not None and max_symbol < 2:
        raise ValueError(f"max_symbol is {max_symbol}, it must be at least 2")
    if not 0 < tail_mass < 0.5:
        raise ValueError(f"tail_mass is {tail_mass}, it must lie within (0, 0.5)")
    reach = np.full(len(sigma), 2)
    while True:
        short = _upper_tail(reach[:, None] / sigma)[:, 0] >= tail_mass
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


class _Checksum:
    """Running CRC32 of coded values and table indices, however they are split."""

    def __init__(self) -> None:
        self._values = 0
        self._indices = 0

    def update(self, values: Ints, indices: Ints) -> None:
        self._values = zlib.crc32(values.astype("<i4", copy=False).data, self._values)
        self._indices = zlib.crc32(
            indices.astype("<i4", copy=False).data, self._indices
        )

    @property
    def value(self) -> int:
        both = np.array([self._values, self._indices], dtype="<u4")
        return zlib.crc32(both.tobytes())


def _int32(array: npt.NDArray[Any], name: str, low: int, high: int) -> Ints:
    """Return a flat array as contiguous int32 after a look at its range.

    Raises:
        ValueError: It is no flat array of whole numbers from ``low`` to ``high``.
    """
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a flat array of integers, got shape {array.shape} and "
            f"{array.dtype}"
        )
    if array.size and (array.min() < low or array.max() > high):
        raise ValueError(
            f"{name} must lie within {low}..{high}, got {array.min()}..{array.max()}"
        )
    return np.ascontiguousarray(array, dtype=np.int32)


class SymbolEncoder:
    """Codes values into one stream, in the order in which a decoder asks for them."""

    def __init__(self) -> None:
        self._pushes: list[tuple[Ints, Ints, CdfTables]] = []
        self._checksum = _Checksum()

    @entropy_coding
    def push(
        self,
        symbols: npt.NDArray[np.integer[Any]],
        indices: npt.NDArray[np.integer[Any]],
        tables: CdfTables,
    ) -> None:
        """Append values to the stream.

        Args:
            symbols: (n,), integers within +-2^30; those outside a table cost about
                2 log2(distance) + 1 bits and the escape.
            indices: (n,), integers, the row of ``tables`` for each value.
            tables: Distributions; each push may bring others.

        Raises:
            ValueError: An array has another shape, type or range.
        """
        if symbols.shape != indices.shape:
            raise ValueError(
                f"{symbols.shape} symbols do not match {indices.shape} table indices"
            )
        values = _int32(symbols, "symbols", -MAX_VALUE, MAX_VALUE)
        rows = _int32(indices, "table indices", 0, len(tables) - 1)
        self._checksum.update(values, rows)
        # The stream is written backwards at the end: keep what the caller may reuse.
        self._pushes.append((values.copy(), rows.copy(), tables))

    @property
    def checksum(self) -> int:
        """CRC32 of all values and table indices so far."""
        return self._checksum.value

    @entropy_coding
    def finish(self) -> bytes:
        """Return the stream of everything that was pushed."""
        from lightning_modules import rans

        return rans.encode(self._pushes)


class SymbolDecoder:
    """Reads values back from the bytes of one :class:`SymbolEncoder`."""

    def __init__(self, data: bytes) -> None:
        from lightning_modules import rans

        self._reader = rans.Reader(data)
        self._checksum = _Checksum()

    @entropy_coding
    def pull(self, indices: npt.NDArray[np.integer[Any]], tables: CdfTables) -> Ints:
        """Return the next values, (n,) int32.

        Args:
            indices: (n,), integers, the row of ``tables`` for each value; they may
                depend on all values read before.
            tables: The encoder's.

        Raises:
            ValueError: The bytes cannot come from an encoder, or an index is no row.
        """
        rows = _int32(indices, "table indices", 0, len(tables) - 1)
        values = self._reader.read(rows, tables)
        self._checksum.update(values, rows)
        return values

    @property
    def checksum(self) -> int:
        """CRC32 of all values and table indices so far; equals the encoder's."""
        return self._checksum.value

    @entropy_coding
    def finish(self) -> None:
        """Make sure that nothing is left.

        Raises:
            ValueError: The stream holds more or other values than were read.
        """
        self._reader.finish()


def ste_round(x: Tensor) -> Tensor:
    """Round to whole numbers; the gradient passes as if nothing had happened."""
    return x + (x.round() - x).detach()


def uniform_noise(like: Tensor, seeds: Tensor, stream: int) -> Tensor:
    """Draw noise that depends on a sample's seed and on nothing else.

    It is a hash of seed, stream and position in the sample, so that batch, rank,
    device and resume change nothing.

    Args:
        like: (B, ...), gives shape and device.
        seeds: (B,), int64, one per sample.
        stream: Number from 0 to 2^32 - 1 that tells draws for one sample apart.

    Returns:
        Of the shape of ``like``, float32, in [-0.5, 0.5).

    Raises:
        ValueError: There is not one seed per sample, or the stream is out of range.
    """
    if seeds.shape != like.shape[:1] or not 0 <= stream <= MASK:
        raise ValueError(
            f"noise of shape {tuple(like.shape)} needs {like.shape[0]} seeds, got "
            f"{tuple(seeds.shape)}, and a stream from 0 to 2^32 - 1, got {stream}"
        )
    seeds = seeds.to(device=like.device, dtype=torch.int64)
    key = _mix(_mix(_mix(seeds & MASK) ^ (seeds >> 32 & MASK)) ^ stream)[:, None]
    # Spread over all bits: neighbours that differ in one bit would come out alike.
    position = torch.arange(math.prod(like.shape[1:]), device=like.device)
    position = position * 0x61C88647 & MASK
    # Two keys: with one, all samples would be shuffled parts of one sequence.
    hashed = _mix(position ^ key, _mix(key ^ 0x5BF03635))
    # 24 bits: what float32 holds exactly, or 0.5 itself could come out.
    return ((hashed >> 8).float() * 2.0**-24 - 0.5).view(like.shape)


def _mix(x: Tensor, key: Tensor | int = 0) -> Tensor:
    """Hash 32-bit numbers, held in int64 where no product overflows."""
    x = (x ^ (x >> 16)).mul_(0x7FEB352D).add_(key).bitwise_and_(MASK)
    x.bitwise_xor_(x >> 15).mul_(0x45D9F3B5).bitwise_and_(MASK)
    return x.bitwise_xor_(x >> 16)


class _LowerBound(torch.autograd.Function):
    """max(x, bound) that lets a gradient pass below the bound if it raises x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """Return max(x, bound), with a gradient wherever descent would raise x."""
    bounded: Tensor = _LowerBound.apply(x, bound)
    return bounded


def gaussian_bits(
    values: Tensor, scales: Tensor, min_scale: float = 0.11, min_mass: float = 1e-9
) -> Tensor:
    """Estimate what zero-mean values cost, in bits, element by element.

    Args:
        values: Any shape, what is coded (rounded or with noise) less its mean.
        scales: Of the same shape, standard deviations, used at ``min_scale`` or more.
        min_scale: Smallest standard deviation.
        min_mass: Smallest probability; no element costs more than its -log2.

    Returns:
        float32, >= 0, of the shape of ``values``.

    Source: the mass of [v - 1/2, v + 1/2], arXiv 1802.01436, section 3.
    """
    # In float32 nothing here is on autocast's list, so it stays float32.
    scales = lower_bound(scales.float(), min_scale) * math.sqrt(2)
    # Both ends in the half where erfc is accurate: 1 - small would lose it.
    distance = values.float().abs()
    nearer = torch.erfc((distance - 0.5) / scales)
    farther = torch.erfc((distance + 0.5) / scales)
    return -torch.log2(lower_bound(0.5 * (nearer - farther), min_mass))
