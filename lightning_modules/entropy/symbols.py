"""Symbols into one stream of bytes and back: all that a codec knows of the coder."""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.clock import entropy_coding
from lightning_modules.entropy.tables import MAX_VALUE, CdfTables, Ints


class _Checked:
    """Keeps a CRC32 of coded values and table indices, however they are split."""

    def __init__(self) -> None:
        self._values = 0
        self._indices = 0

    def _note(self, values: Ints, indices: Ints) -> None:
        self._values = zlib.crc32(values.astype("<i4", copy=False).data, self._values)
        self._indices = zlib.crc32(
            indices.astype("<i4", copy=False).data, self._indices
        )

    @property
    def checksum(self) -> int:
        """CRC32 of all values and table indices so far, the same on both sides."""
        both = np.array([self._values, self._indices], dtype="<u4")
        return zlib.crc32(both.tobytes())


def _int32(array: npt.NDArray[Any], name: str, low: int, high: int) -> Ints:
    """Return a flat array of whole numbers in a range as contiguous int32."""
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


class SymbolEncoder(_Checked):
    """Codes values into one stream, in the order in which a decoder asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self._pushes: list[tuple[Ints, Ints, CdfTables]] = []

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
        self._note(values, rows)
        # The stream is written backwards at the end: keep what the caller may reuse.
        self._pushes.append((values.copy(), rows.copy(), tables))

    @entropy_coding
    def finish(self) -> bytes:
        """Return the stream of everything that was pushed."""
        from lightning_modules.entropy import rans

        return rans.encode(self._pushes)


class SymbolDecoder(_Checked):
    """Reads values back from the bytes of one :class:`SymbolEncoder`.

    Attributes:
        asked: Whether values were asked for, by tables that may be the wrong ones.
    """

    def __init__(self, data: bytes) -> None:
        from lightning_modules.entropy import rans

        super().__init__()
        self.asked = False
        self._reader = rans.Reader(data)

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
        self.asked = True
        rows = _int32(indices, "table indices", 0, len(tables) - 1)
        values = self._reader.read(rows, tables)
        self._note(values, rows)
        return values

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


def tally(values: npt.NDArray[np.int32]) -> dict[int, int]:
    """Return how often each value occurs."""
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
