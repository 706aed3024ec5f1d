"""Symbols into one stream of bytes and back: all that a codec knows of the coder.

An encoder or a decoder belongs to one stream and may pass from thread to thread, but
only one at a time may use it. Those of several streams share nothing that is written,
and while they compute other threads run.
"""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.clock import entropy_coding
from lightning_modules.entropy.tables import (
    MAX_VALUE,
    CdfTables,
    Ints,
    Rows,
    out_of_range,
)


def _checksum(checks: tuple[int, int]) -> int:
    """Return the CRC32 of two CRC32s: of all values and of all table indices."""
    return zlib.crc32(np.array(checks, dtype="<u4").tobytes())


def _flat(array: npt.NDArray[Any], name: str) -> None:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a flat array of integers, got shape {array.shape} and "
            f"{array.dtype}"
        )


def _within(
    array: npt.NDArray[Any], name: str, low: int, high: int
) -> npt.NDArray[Any]:
    if array.size and (array.min() < low or array.max() > high):
        raise out_of_range(name, array, low, high)
    return array


def _values(array: npt.NDArray[Any]) -> Ints:
    """Return symbols in int32; the coder looks at the range of what is int32."""
    _flat(array, "symbols")
    if array.dtype != np.int32:
        array = _within(array, "symbols", -MAX_VALUE, MAX_VALUE)
    return np.ascontiguousarray(array, dtype=np.int32)


def _rows(array: npt.NDArray[Any], tables: CdfTables) -> Rows:
    """Return table indices in uint16; the coder looks at the range of what is."""
    _flat(array, "table indices")
    if array.dtype != np.uint16:
        array = _within(array, "table indices", 0, len(tables) - 1)
    return np.ascontiguousarray(array, dtype=np.uint16)


class SymbolEncoder:
    """Codes values into one stream, in the order in which a decoder asks for them."""

    def __init__(self) -> None:
        self._checks = (0, 0)
        self._blocks: list[Any] = []

    @property
    def checksum(self) -> int:
        """CRC32 of all values and table indices so far, the decoder's too.

        Of two CRC32s: of the values and of the indices as little-endian int32, however
        they are split into pushes.
        """
        return _checksum(self._checks)

    @entropy_coding
    def push(
        self,
        symbols: npt.NDArray[np.integer[Any]],
        indices: npt.NDArray[np.integer[Any]],
        tables: CdfTables,
        *,
        own: bool = False,
    ) -> None:
        """Append values to the stream.

        Args:
            symbols: (n,), integers within +-2^30; those outside a table cost about
                2 log2(distance) + 1 bits and the escape. int32 is not converted.
            indices: (n,), integers, the row of ``tables`` for each value. uint16 is not
                converted.
            tables: Distributions; each push may bring others.
            own: Whether the encoder may write over ``symbols``, for want of memory that
                is at hand already.

        Raises:
            ValueError: An array has another shape, type or range.
        """
        from lightning_modules.entropy import rans

        if symbols.shape != indices.shape:
            raise ValueError(
                f"{symbols.shape} symbols do not match {indices.shape} table indices"
            )
        values, rows = _values(symbols), _rows(indices, tables)
        # The stream is written backwards at the end, so it is kept until then.
        block, self._checks = rans.block_of(values, rows, tables, self._checks, own=own)
        self._blocks.append(block)

    @entropy_coding
    def finish(self) -> bytes:
        """Return the stream of everything that was pushed."""
        from lightning_modules.entropy import rans

        return rans.encode(self._blocks)


class SymbolDecoder:
    """Reads values back from the bytes of one :class:`SymbolEncoder`.

    Attributes:
        asked: Whether values were asked for, by tables that may be the wrong ones.
    """

    def __init__(self, data: bytes) -> None:
        from lightning_modules.entropy import rans

        self.asked = False
        self._reader = rans.Reader(data)

    @property
    def checksum(self) -> int:
        """As the encoder's, of what was read."""
        return _checksum(self._reader.checks)

    @entropy_coding
    def pull(self, indices: npt.NDArray[np.integer[Any]], tables: CdfTables) -> Ints:
        """Return the next values, (n,) int32.

        Args:
            indices: (n,), integers, the row of ``tables`` for each value; they may
                depend on all values read before. uint16 is not converted.
            tables: The encoder's.

        Raises:
            ValueError: The bytes cannot come from an encoder, or an index is no row.
        """
        self.asked = True
        return self._reader.read(_rows(indices, tables), tables)

    def check_left(self, count: int, bits: float) -> None:
        """Make sure that so many values, which take so many bits at least, may follow.

        Raises:
            ValueError: The bytes that are left are too few for them.
        """
        self._reader.check_left(count, bits)

    @entropy_coding
    def finish(self) -> None:
        """Make sure that nothing is left.

        Raises:
            ValueError: The stream holds more or other values than were read.
        """
        self._reader.finish()


class OverflowingError(ValueError):
    """The networks give NaN or infinity, of which no picture can be made."""


def to_symbols(rounded: Tensor) -> npt.NDArray[np.int32]:
    """Return whole numbers as the entropy coder takes them.

    Raises:
        OverflowingError: One is not finite.
    """
    if not bool(rounded.isfinite().all()):
        raise OverflowingError(
            "the latent is not finite: the weights are untrained, damaged, or too "
            "large for this dtype"
        )
    symbols: npt.NDArray[np.int32] = rounded.to(torch.int32).cpu().numpy()
    return symbols


def tally(values: Ints) -> dict[int, int]:
    """Return how often each value occurs."""
    if not len(values):
        return {}
    low, high = int(values.min()), int(values.max())
    if high - low > len(values) + 256:
        found, counts = np.unique(values, return_counts=True)
    else:
        # Counting takes a tenth of sorting.
        all_counts = np.bincount(values - low)
        offsets = all_counts.nonzero()[0]
        found, counts = offsets + low, all_counts[offsets]
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
