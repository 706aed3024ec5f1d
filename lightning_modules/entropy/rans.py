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
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba import int64, types, uint64

from lightning_modules.entropy.tables import MAX_VALUE, CdfTables

Function = TypeVar("Function", bound=Callable[..., Any])

LANES = 4
MANY = 1 << 18  # Symbols from which four states are worth their bytes.
# With one lane, no word is missed while x is below LOWEST: there is none. So the start
# may be small; what it has beyond 1 serves to notice a wrong stream at its end.
FIRST = 1 << 15
LOWEST = 1 << 32  # A state with words behind it is never below.
MAX_BITS = 32  # b of a distance: values and offsets differ by 2^31 at most.
LOST = 2.0**-14  # Of a value's bits, at most, where a state of LOWEST or more rounds.
MARGIN = 40  # Words that one value may need: one per step, 1 + 33 + 2, and some.

_VECTOR = types.Array(types.int32, 1, "C", readonly=True)
_MATRIX = types.Array(types.int32, 2, "C", readonly=True)
_LOOKUP = types.Array(types.int16, 2, "C", readonly=True)
_STATES = types.Array(types.uint64, 1, "C")
_WORDS = types.Array(types.uint32, 1, "C")


def _jit(signature: object) -> Callable[[Function], Function]:
    """Compile for one signature, once per machine.

    No helper takes an array: at each call numba would count references to it, which
    costs more than all the rest of a symbol.
    """
    decorator = numba.njit(signature, cache=True, nogil=True)
    return cast(Callable[[Function], Function], decorator)


@_jit(
    types.UniTuple(types.int64, 2)(
        _VECTOR,
        _VECTOR,
        _MATRIX,
        _VECTOR,
        _VECTOR,
        _STATES,
        int64,
        int64,
        _WORDS,
        int64,
    )
)
def _encode_block(
    values: Any,
    indices: Any,
    cdf: Any,
    length: Any,
    offset: Any,
    states: Any,
    first: int,
    left: int,
    words: Any,
    cursor: int,
) -> Any:
    """Code values ``left`` - 1 down to 0, until ``words`` might not do for another.

    Returns how many values are left and where the next word goes.
    """
    lanes = len(states) - 1
    while left > 0 and cursor + MARGIN <= len(words):
        left -= 1
        row = indices[left]
        lane = (first + left) & lanes
        x = states[lane]
        escape = int64(length[row]) - 2
        number = int64(values[left]) - int64(offset[row])
        bits = 0
        step = 0
        distance = int64(0)
        if number < 0 or number >= escape:
            distance = -2 * number if number < 0 else 2 * (number - escape) + 1
            number = escape
            while distance >> (bits + 1):
                bits += 1
            step = bits + 1 + (bits + 15) // 16
        # Step 0 is the symbol, 1 to bits + 1 the prefix, the rest up to 16 bits each.
        while step >= 0:
            if step == 0:
                start = uint64(cdf[row, number])
                frequency = uint64(cdf[row, number + 1]) - start
            elif step <= bits + 1:
                start = uint64(1 << 15 if step <= bits else 0)
                frequency = uint64(1 << 15)
            else:
                at = 16 * (step - bits - 2)
                take = min(16, bits - at)
                part = (distance >> at) & ((1 << take) - 1)
                frequency = uint64(1) << uint64(16 - take)
                start = uint64(part) * frequency
            if x >= frequency << uint64(48):
                words[cursor] = x & uint64(0xFFFFFFFF)
                cursor += 1
                x >>= uint64(32)
            quotient = x // frequency
            x = (quotient << uint64(16)) + (x - quotient * frequency) + start
            step -= 1
        states[lane] = x
    return left, cursor


@_jit(
    int64(
        _VECTOR,
        _MATRIX,
        _VECTOR,
        _VECTOR,
        _LOOKUP,
        _STATES,
        int64,
        _WORDS,
        int64,
        types.Array(types.int32, 1, "C"),
    )
)
def _decode_block(
    indices: Any,
    cdf: Any,
    length: Any,
    offset: Any,
    lookup: Any,
    states: Any,
    first: int,
    words: Any,
    cursor: int,
    values: Any,
) -> Any:
    """Fill ``values``; return where the next word is.

    Or -1 for a value that cannot be coded, and -2 - i if the stream ends before value
    i: a state below the one that an encoder starts at.
    """
    lanes = len(states) - 1
    lowest = uint64(LOWEST) if lanes else uint64(FIRST)
    for i in range(len(indices)):
        row = indices[i]
        lane = (first + i) & lanes
        x = states[lane]
        slot = x & uint64(0xFFFF)
        number = int64(lookup[row, slot >> uint64(8)])
        # Ends within the table: its last entry is 65536, above every slot.
        while uint64(cdf[row, number + 1]) <= slot:
            number += 1
        start = uint64(cdf[row, number])
        frequency = uint64(cdf[row, number + 1]) - start
        x = frequency * (x >> uint64(16)) + slot - start
        if x < uint64(LOWEST) and cursor < len(words):
            x = (x << uint64(32)) | uint64(words[cursor])
            cursor += 1
        if x < lowest:
            return -2 - i
        escape = int64(length[row]) - 2
        if number == escape:
            distance = int64(0)
            bits = 0
            at = 0
            prefix = True
            while prefix or at < bits:
                take = 1 if prefix else min(16, bits - at)
                shift = uint64(16 - take)
                part = int64((x & uint64(0xFFFF)) >> shift)
                rest = x & ((uint64(1) << shift) - uint64(1))
                x = (x >> uint64(16) << shift) + rest
                if x < uint64(LOWEST) and cursor < len(words):
                    x = (x << uint64(32)) | uint64(words[cursor])
                    cursor += 1
                if x < lowest:
                    return -2 - i
                if not prefix:
                    distance |= part << at
                    at += take
                elif part == 0:
                    prefix = False
                elif bits < MAX_BITS:
                    bits += 1
                else:
                    return -1
            distance |= int64(1) << bits
            if distance & 1:
                number = escape + (distance >> 1)
            else:
                number = -(distance >> 1)
        value = number + int64(offset[row])
        if value < -MAX_VALUE or value > MAX_VALUE:
            return -1
        values[i] = value
        states[lane] = x
    return cursor


def encode(
    blocks: Sequence[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], CdfTables]],
) -> bytes:
    """Code blocks of (values, table indices, tables) into one stream.

    Arrays are flat, contiguous and of one length within a block; values lie within
    +-2^30 and indices within the tables.
    """
    first = sum(len(values) for values, _, _ in blocks)
    many = first >= MANY
    states = np.full(LANES if many else 1, LOWEST if many else FIRST, dtype=np.uint64)
    words = np.empty(first // 8 + MARGIN, dtype=np.uint32)
    cursor = 0
    for values, indices, tables in reversed(blocks):
        left = len(values)
        first -= left
        while left:
            if cursor + MARGIN > len(words):
                words = np.concatenate([words, np.empty_like(words)])
            left, cursor = _encode_block(
                values,
                indices,
                tables.cdf,
                tables.length,
                tables.offset,
                states,
                first,
                left,
                words,
                cursor,
            )
    if many:
        head = b"\0" + states.astype("<u8").tobytes()
    else:
        state = int(states[0])
        head = state.to_bytes((state.bit_length() + 7) // 8, "big")
    return head + words[:cursor][::-1].astype("<u4").tobytes()


class Reader:
    """Reads a stream of :func:`encode`, in as many steps as the caller likes."""

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
        if (self._states < self._first_state).any():
            raise ValueError(
                "the stream does not begin as this coder's do: it is damaged"
            )
        self._words = np.frombuffer(data[head:], dtype="<u4").astype(np.uint32)
        self._cursor = 0
        self._count = 0

    def read(
        self, indices: npt.NDArray[np.int32], tables: CdfTables
    ) -> npt.NDArray[np.int32]:
        """Return the next values, (n,), for table indices (n,) within the tables.

        Raises:
            ValueError: The stream ends before them, or a value is not among those that
                can be coded.
        """
        self.check_left(len(indices), 0.0)
        values = np.empty(len(indices), dtype=np.int32)
        cursor = _decode_block(
            indices,
            tables.cdf,
            tables.length,
            tables.offset,
            tables.lookup,
            self._states,
            self._count,
            self._words,
            self._cursor,
            values,
        )
        if cursor < -1:
            raise ValueError(
                f"the stream ends before value {self._count - 2 - cursor}: it is "
                "damaged, or was read with other tables"
            )
        if cursor < 0:
            raise ValueError(
                f"the stream is damaged: between values {self._count} and "
                f"{self._count + len(indices)} is one that cannot be coded"
            )
        self._cursor = cursor
        self._count += len(indices)
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
        left = 32 * words + float(np.log2(self._states / LOWEST).sum())
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
        if unread or (self._states != self._first_state).any():
            raise ValueError(
                f"the stream does not end after {self._count} values ({4 * unread} "
                "bytes are left): it is damaged, or was read with other tables"
            )
