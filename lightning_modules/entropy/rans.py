"""A range coder of asymmetric numeral systems (rANS), compiled by numba.

A coder's state is one 64-bit number x. Coding a symbol of frequency f of 65536 that
starts at the cumulative frequency c turns x into ``(x // f << 16) + x % f + c``,
which grows it by the symbol's information; the low 32 bits move out as a word when
they would no longer fit. The decoder undoes the steps in reverse, so an encoder codes
the last symbol first and its words are stored backwards.

A value outside its table is coded as the table's escape, then its distance d from the
table, counted 1, 2, 3... alternating above (odd) and below (even), as Elias-gamma
code: b one-bits, a zero-bit, then the b low bits of d, lowest 16 first, where
b = floor(log2 d). These bits are symbols with a frequency that is a power of two.

Streams are little-endian:

* Few symbols, one state, which starts at 2^15: the state's bytes without leading
  zeros, highest first (it is never 0, so neither is the first byte), then words. A
  state with words behind it has 5 to 8 bytes, so the stream's length tells how many.
* ``MANY`` symbols or more, four states that take turns symbol by symbol, so that a
  processor works on four at once; each starts at 2^32: a zero byte, four states of
  8 bytes, then words.

Source: J. Duda, arXiv 1311.2540, section 3; F. Giesen, arXiv 1402.3392, for lanes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_modules.entropy.checksums import TABLES as CRC_TABLES
from lightning_modules.entropy.rans_kernels import (
    BAD_ROW,
    BAD_VALUE,
    ENDED,
    FIRST,
    LOWEST,
    decode,
    prepare,
)
from lightning_modules.entropy.rans_kernels import encode as encode_block
from lightning_modules.entropy.tables import (
    MAX_VALUE,
    CdfTables,
    Ints,
    Rows,
    out_of_range,
)

LANES = 4
MANY = 1 << 18  # Symbols from which four states are worth their bytes.
LOST = 2.0**-14  # Of a value's bits, at most, where a state of LOWEST or more rounds.

Checks = tuple[int, int]
"""CRC32 of all values so far, and of their rows, as int32."""


@dataclass(frozen=True, eq=False)
class Block:
    """Symbols that are ready to be coded.

    Attributes:
        places: (n,), of each symbol among the entries of the tables.
        distances: Of those that are not in their tables.
        steps: How many words they take at most.
        tables: Theirs.
    """

    places: Ints
    distances: npt.NDArray[np.int64]
    steps: int
    tables: CdfTables


def block_of(
    values: Ints,
    rows: Rows,
    tables: CdfTables,
    checks: Checks = (0, 0),
    *,
    own: bool = False,
) -> tuple[Block, Checks]:
    """Look values up in their tables; return the checks after them too.

    Args:
        values: (n,), contiguous.
        rows: (n,), contiguous.
        tables: Distributions.
        checks: Those before.
        own: Whether the block may take the place of the values in memory.

    Raises:
        ValueError: A value is not within +-2^30, or a row is no table.
    """
    places = values if own else np.empty(len(values), dtype=np.int32)
    distances = np.empty(len(values), dtype=np.int64)
    state, count, steps, *after = prepare(
        values,
        rows,
        tables.first,
        tables.offset,
        tables.escape,
        CRC_TABLES,
        *checks,
        places,
        distances,
    )
    if state & BAD_ROW:
        raise out_of_range("table indices", rows, 0, len(tables) - 1)
    if state & BAD_VALUE:
        raise out_of_range("symbols", values, -MAX_VALUE, MAX_VALUE)
    block = Block(places, distances[:count].copy(), steps, tables)
    return block, (after[0], after[1])


def encode(blocks: Sequence[Block]) -> bytes:
    """Code blocks into one stream."""
    first = sum(len(block.places) for block in blocks)
    many = first >= MANY
    states = np.array([LOWEST] * LANES if many else [FIRST], dtype=np.uint64)
    # Only what is written takes memory.
    words = np.empty(sum(block.steps for block in blocks) + 1, dtype=np.uint32)
    cursor = len(words) - 1
    for block in reversed(blocks):
        first -= len(block.places)
        cursor = encode_block(
            block.places,
            block.distances,
            block.tables.entries,
            states,
            first,
            words,
            cursor,
        )
    if many:
        head = b"\0" + states.astype("<u8").tobytes()
    else:
        state = int(states[0])
        head = state.to_bytes((state.bit_length() + 7) // 8, "big")
    return head + words[cursor + 1 :].astype("<u4", copy=False).tobytes()


class Reader:
    """Reads a stream of :func:`encode`, in as many steps as the caller likes.

    Attributes:
        checks: Of all values that were read.
    """

    def __init__(self, data: bytes) -> None:
        """Take a stream apart.

        Raises:
            ValueError: No encoder writes a stream of this length, or that begins so.
        """
        many = data[:1] == b"\0"
        if many:
            head = 1 + 8 * LANES
        else:
            head = len(data) if len(data) <= 8 else 5 + (len(data) - 5) % 4
        if not data or len(data) < head or (len(data) - head) % 4:
            raise ValueError(
                f"a stream of {len(data)} bytes was not written by this coder: it is "
                "cut or damaged"
            )
        if many:
            self._states = np.frombuffer(data[1:head], dtype="<u8").astype(np.uint64)
        else:
            state = int.from_bytes(data[:head], "big")
            self._states = np.array([state], dtype=np.uint64)
        self._first_state = LOWEST if many else FIRST
        if min(self._states.tolist()) < self._first_state:
            raise ValueError(
                "the stream does not begin as this coder's do: it is damaged"
            )
        self._words = np.frombuffer(data[head:], dtype="<u4").astype(np.uint32)
        self._cursor = 0
        self._count = 0
        self.checks: Checks = (0, 0)

    def read(self, rows: Rows, tables: CdfTables) -> Ints:
        """Return the next values, (n,), for table indices (n,).

        Raises:
            ValueError: A row is no table, the stream ends before the values, or one is
                not among those that can be coded.
        """
        self.check_left(len(rows), 0.0)
        # Numpy compares many at once, the coder one by one.
        if len(rows) and rows.max() >= len(tables):
            raise out_of_range("table indices", rows, 0, len(tables) - 1)
        values = np.empty(len(rows), dtype=np.int32)
        cursor, *checks = decode(
            rows,
            tables.first,
            tables.offset,
            tables.escape,
            tables.symbols,
            *tables.buckets,
            self._states,
            self._count,
            self._words,
            self._cursor,
            values,
            CRC_TABLES,
            *self.checks,
        )
        if cursor <= ENDED:
            raise ValueError(
                f"the stream ends before value {self._count + ENDED - cursor}: it is "
                "damaged, or was read with other tables"
            )
        if cursor < 0:
            raise ValueError(
                f"the stream is damaged: between values {self._count} and "
                f"{self._count + len(rows)} is one that cannot be coded"
            )
        self.checks = checks[0], checks[1]
        self._cursor = cursor
        self._count += len(rows)
        return values

    def check_left(self, count: int, bits: float) -> None:
        """Check that the stream can hold values that are still to be read.

        Args:
            count: Their number, at least.
            bits: What they take, at least, by the frequencies of their tables.

        Raises:
            ValueError: It is too short for them.
        """
        if len(self._states) == 1:
            # They are few. And near its start a state takes some values for nothing.
            if self._count + count >= MANY:
                raise ValueError(
                    f"{self._count + count} values were asked for, and the stream has "
                    f"fewer than {MANY}"
                )
            return
        words = len(self._words) - self._cursor
        left = 32 * words + sum(math.log2(x / LOWEST) for x in self._states.tolist())
        if (1 - LOST) * bits > left + 1:
            raise ValueError(
                f"{count} more values take {math.ceil(bits / 8)} bytes at least, and "
                f"the stream has {math.ceil(left / 8)}: it is cut or damaged"
            )

    def finish(self) -> None:
        """Check that the stream ends here.

        Raises:
            ValueError: Words are left, or a state is not where an encoder starts.
        """
        unread = len(self._words) - self._cursor
        if unread or set(self._states.tolist()) != {self._first_state}:
            raise ValueError(
                f"the stream does not end after {self._count} values ({4 * unread} "
                "bytes are left): it is damaged, or was read with other tables"
            )
