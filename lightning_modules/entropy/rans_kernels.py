"""The loops of the coder that :mod:`~lightning_modules.entropy.rans` describes.

Where four states take turns, four symbols are coded at a time, each state in a register
of its own. What is rare goes one by one: an escape, symbols before the first state's
turn, and the last words of a stream.
"""

from typing import Any

from numba import int32, int64, types, uint32, uint64

from lightning_modules.entropy.checksums import crc_of_rows, crc_of_values
from lightning_modules.entropy.compiled import (
    INTS,
    LONGS,
    SHORTS,
    WIDE,
    WORDS,
    compiled,
    high_product,
    inlined,
    written,
)
from lightning_modules.entropy.tables import FIELD, MAX_VALUE, ODD, TOTAL

LOWEST = 1 << 32  # A state with words behind it is never below.
# With one lane, no word is missed while x is below LOWEST: there is none. So the start
# may be small; what it has beyond 1 serves to notice a wrong stream at its end.
FIRST = 1 << 15
MAX_BITS = 32  # b of a distance: values and offsets differ by 2^31 at most.
LOW, LOW_HALF = 0xFFFF, 0xFFFFFFFF

# Of what prepare returns.
GOOD, BAD_VALUE, BAD_ROW = 0, 1, 2
# Of what decode returns instead of the next word's place.
IMPOSSIBLE, ENDED = -1, -2


@compiled(
    types.UniTuple(int64, 5)(
        INTS,
        SHORTS,
        INTS,
        INTS,
        INTS,
        WORDS,
        uint32,
        uint32,
        written(INTS),
        written(LONGS),
    )
)
def prepare(
    values: Any,
    rows: Any,
    first: Any,
    offset: Any,
    escape: Any,
    crc_tables: Any,
    values_crc: Any,
    rows_crc: Any,
    places: Any,
    distances: Any,
) -> Any:
    """Look up where each symbol stands among the entries of its tables.

    Args:
        values: (n,).
        rows: (n,).
        first: (tables,), place of each table's first entry.
        offset: (tables,), value of that entry.
        escape: (tables,), number of each table's escape.
        crc_tables: Of :mod:`~lightning_modules.entropy.checksums`.
        values_crc: CRC32 of the values before.
        rows_crc: CRC32 of the rows before.
        places: (n,), to fill; an escape's is inverted. It may be ``values`` itself.
        distances: (n,), to fill with the distance of each escape, in their order.

    Returns:
        State, number of escapes, words that suffice, and both CRC32.
    """
    # Before values may be written over.
    values_crc = crc_of_values(values_crc, values, crc_tables)
    rows_crc = crc_of_rows(rows_crc, rows, crc_tables)
    tables = len(first)
    state = int64(GOOD)
    count = int64(0)
    steps = int64(len(values))
    for i in range(len(values)):
        row = int64(rows[i])
        if row >= tables:
            state = int64(BAD_ROW)
            row = int64(0)
        value = int64(values[i])
        if value < -MAX_VALUE or value > MAX_VALUE:
            state |= int64(BAD_VALUE)
        number = value - int64(offset[row])
        last = int64(escape[row])
        if number >= 0 and number < last:
            places[i] = int64(first[row]) + number
            continue
        distance = -2 * number if number < 0 else 2 * (number - last) + 1
        places[i] = ~(int64(first[row]) + last)
        distances[count] = distance
        count += 1
        while distance > 1:
            distance >>= 1
            steps += 2
        steps += 1
    return (
        state,
        count,
        steps,
        int64(values_crc),
        int64(rows_crc),
    )


@inlined
def _coded(x: Any, place: Any, entries: Any, words: Any, cursor: Any) -> Any:
    """Return a state after a symbol, and where the next word goes."""
    at = uint64(2 * place)
    factor, entry = entries[at], entries[at + uint64(1)]
    frequency = (entry >> uint64(16)) & uint64(LOW)
    # No branch: it is often foreseen wrongly.
    words[uint64(cursor)] = uint32(x & uint64(LOW_HALF))
    full = (x >> uint64(48)) >= frequency
    cursor -= int64(full)
    x = x >> uint64(32) if full else x
    quotient = high_product(x + (entry >> uint64(40)), factor)
    quotient >>= (entry >> uint64(32)) & uint64(63)
    x += (entry & uint64(LOW)) + quotient * (uint64(TOTAL) - frequency)
    return x, cursor


@compiled(int64(INTS, LONGS, WIDE, written(WIDE), int64, written(WORDS), int64))
def encode(
    places: Any,
    distances: Any,
    entries: Any,
    states: Any,
    first: int,
    words: Any,
    cursor: int,
) -> Any:
    """Code symbols, the last one first, and return where the next word goes.

    Args:
        places: (n,), of :func:`prepare`.
        distances: Of its escapes.
        entries: (2 m,), two for each symbol of the tables.
        states: (1,) or (4,).
        first: Number of the first symbol in the stream.
        words: Filled downwards; there must be one for each step.
        cursor: Where the next word goes.
    """
    lanes = len(states) - 1
    left = len(places)
    pending = len(distances)
    while left > 0:
        if lanes == 0:
            x = states[0]
            while left > 0 and places[uint64(left - 1)] >= 0:
                left -= 1
                place = int64(places[uint64(left)])
                x, cursor = _coded(x, place, entries, words, cursor)
            states[0] = x
        elif (first + left) & 3 == 0:
            x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
            while left >= 4:
                p0, p1 = (
                    int64(places[uint64(left - 4)]),
                    int64(places[uint64(left - 3)]),
                )
                p2, p3 = (
                    int64(places[uint64(left - 2)]),
                    int64(places[uint64(left - 1)]),
                )
                if (p0 | p1 | p2 | p3) < 0:
                    break
                left -= 4
                x3, cursor = _coded(x3, p3, entries, words, cursor)
                x2, cursor = _coded(x2, p2, entries, words, cursor)
                x1, cursor = _coded(x1, p1, entries, words, cursor)
                x0, cursor = _coded(x0, p0, entries, words, cursor)
            states[0], states[1], states[2], states[3] = x0, x1, x2, x3
        if left == 0:
            break
        left -= 1
        place = int64(places[left])
        lane = (first + left) & lanes
        x = states[lane]
        if place < 0:
            place = ~place
            pending -= 1
            distance = distances[pending]
            bits = 0
            while distance >> (bits + 1):
                bits += 1
            # Steps 1 to bits + 1 are the prefix, the rest have up to 16 bits each.
            for step in range(bits + 1 + (bits + 15) // 16, 0, -1):
                if step <= bits + 1:
                    shift = uint64(15)
                    start = uint64(1 << 15 if step <= bits else 0)
                else:
                    at = 16 * (step - bits - 2)
                    take = min(16, bits - at)
                    shift = uint64(16 - take)
                    part = (distance >> at) & ((1 << take) - 1)
                    start = uint64(part) << shift
                frequency = uint64(1) << shift
                if x >> uint64(48) >= frequency:
                    words[cursor] = uint32(x & uint64(LOW_HALF))
                    cursor -= 1
                    x >>= uint64(32)
                rest = x & (frequency - uint64(1))
                x = ((x >> shift) << uint64(16)) + rest + start
        states[lane], cursor = _coded(x, place, entries, words, cursor)
    return cursor


@inlined
def _first(x: Any, row: Any, buckets: Any, bucket_of: Any) -> Any:
    """Return the first symbol of the bucket that a state is in: mostly the state's."""
    at = bucket_of[row]
    return buckets[(at >> uint64(8)) + ((x & uint64(LOW)) >> (at & uint64(63)))]


@inlined
def _ends_before(symbol: Any, x: Any) -> Any:
    """Return whether a state holds a later symbol of its table."""
    slot = x & uint64(LOW)
    return slot - (symbol & uint64(LOW)) >= (symbol >> uint64(16)) & uint64(LOW)


@compiled(uint64(uint64, uint64, int64, int64, WIDE))
def _later(x: Any, symbol: Any, first: Any, offset: Any, symbols: Any) -> Any:
    """Return the symbol that a state holds, among those after one of its table."""
    place = first + int64((symbol >> uint64(32)) & uint64(FIELD))
    if symbol < uint64(ODD):
        place -= offset + MAX_VALUE
    # It ends within the table: the last symbol's frequencies go up to 65536.
    while _ends_before(symbol, x):
        place += 1
        symbol = symbols[uint64(place)]
    return symbol


@inlined
def _without(x: Any, symbol: Any) -> Any:
    """Return a state before a symbol, that may want a word."""
    frequency = (symbol >> uint64(16)) & uint64(LOW)
    return frequency * (x >> uint64(16)) + (x & uint64(LOW)) - (symbol & uint64(LOW))


@inlined
def _renewed(x: Any, words: Any, cursor: Any) -> Any:
    """Return a state with a word, if it wants one, and where the next word is."""
    wants = x < uint64(LOWEST)
    longer = (x << uint64(32)) | uint64(words[uint64(cursor)])
    return longer if wants else x, cursor + int64(wants)


@inlined
def _value(symbol: Any) -> Any:
    return int32(int64(symbol >> uint64(32)) - MAX_VALUE)


@compiled(
    types.UniTuple(int64, 3)(
        SHORTS,
        INTS,
        INTS,
        INTS,
        WIDE,
        WIDE,
        WIDE,
        written(WIDE),
        int64,
        WORDS,
        int64,
        written(INTS),
        WORDS,
        uint32,
        uint32,
    )
)
def decode(
    rows: Any,
    first: Any,
    offset: Any,
    escape: Any,
    symbols: Any,
    buckets: Any,
    bucket_of: Any,
    states: Any,
    count: int,
    words: Any,
    cursor: int,
    values: Any,
    crc_tables: Any,
    values_crc: Any,
    rows_crc: Any,
) -> Any:
    """Fill ``values``; return where the next word is, and both CRC32 after them.

    Args:
        rows: (n,), all of them tables.
        first: (tables,), place of each table's first symbol.
        offset: (tables,), its value.
        escape: (tables,), number of each table's escape.
        symbols: (m,), of all tables.
        buckets: Of all tables: the first symbol of each.
        bucket_of: (tables,), its first bucket and their width; see ``CdfTables``.
        states: (1,) or (4,).
        count: Number of the first value in the stream.
        words: Of the stream.
        cursor: Where the next word is.
        values: (n,), to fill.
        crc_tables: Of :mod:`~lightning_modules.entropy.checksums`.
        values_crc: CRC32 of the values before.
        rows_crc: CRC32 of the rows before.

    Returns:
        Instead of the word's place ``IMPOSSIBLE`` for a value that cannot be coded, and
        ``ENDED`` - i if the stream ends before value i: a state below the one that an
        encoder starts at.
    """
    lanes = len(states) - 1
    lowest = uint64(LOWEST) if lanes else uint64(FIRST)
    number_of_words = len(words)
    n = len(rows)
    i = int64(0)
    while i < n:
        if lanes == 0:
            x = states[0]
            while i < n and cursor < number_of_words:
                row = rows[uint64(i)]
                s = _first(x, row, buckets, bucket_of)
                if _ends_before(s, x):
                    s = _later(x, s, first[row], offset[row], symbols)
                if s >= uint64(ODD):
                    break
                x = _without(x, s)
                # A branch: the next symbol can be looked for before it is decided.
                if x < uint64(LOWEST):
                    x = (x << uint64(32)) | uint64(words[uint64(cursor)])
                    cursor += 1
                values[uint64(i)] = _value(s)
                i += 1
            states[0] = x
        elif (count + i) & 3 == 0:
            x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
            while i + 4 <= n and cursor + 4 <= number_of_words:
                k = uint64(i)
                r0, r1 = rows[k], rows[k + uint64(1)]
                r2, r3 = rows[k + uint64(2)], rows[k + uint64(3)]
                s0 = _first(x0, r0, buckets, bucket_of)
                if _ends_before(s0, x0):
                    s0 = _later(x0, s0, first[r0], offset[r0], symbols)
                s1 = _first(x1, r1, buckets, bucket_of)
                if _ends_before(s1, x1):
                    s1 = _later(x1, s1, first[r1], offset[r1], symbols)
                s2 = _first(x2, r2, buckets, bucket_of)
                if _ends_before(s2, x2):
                    s2 = _later(x2, s2, first[r2], offset[r2], symbols)
                s3 = _first(x3, r3, buckets, bucket_of)
                if _ends_before(s3, x3):
                    s3 = _later(x3, s3, first[r3], offset[r3], symbols)
                if (s0 | s1 | s2 | s3) >= uint64(ODD):
                    break
                x0, cursor = _renewed(_without(x0, s0), words, cursor)
                x1, cursor = _renewed(_without(x1, s1), words, cursor)
                x2, cursor = _renewed(_without(x2, s2), words, cursor)
                x3, cursor = _renewed(_without(x3, s3), words, cursor)
                values[k], values[k + uint64(1)] = _value(s0), _value(s1)
                values[k + uint64(2)], values[k + uint64(3)] = _value(s2), _value(s3)
                i += 4
            states[0], states[1], states[2], states[3] = x0, x1, x2, x3
        if i == n:
            break
        row = rows[uint64(i)]
        lane = (count + i) & lanes
        x = states[lane]
        s = _first(x, row, buckets, bucket_of)
        if _ends_before(s, x):
            s = _later(x, s, first[row], offset[row], symbols)
        x = _without(x, s)
        if x < uint64(LOWEST) and cursor < number_of_words:
            x = (x << uint64(32)) | uint64(words[cursor])
            cursor += 1
        if x < lowest:
            return ENDED - i, int64(0), int64(0)
        number = int64((s >> uint64(32)) & uint64(FIELD))
        if s < uint64(ODD):
            number -= int64(offset[row]) + MAX_VALUE
        last = int64(escape[row])
        if number == last:
            distance = int64(0)
            bits = 0
            read = 0
            prefix = True
            while prefix or read < bits:
                take = 1 if prefix else min(16, bits - read)
                by = uint64(16 - take)
                part = int64((x & uint64(LOW)) >> by)
                rest = x & ((uint64(1) << by) - uint64(1))
                x = (x >> uint64(16) << by) + rest
                if x < uint64(LOWEST) and cursor < number_of_words:
                    x = (x << uint64(32)) | uint64(words[uint64(cursor)])
                    cursor += 1
                if x < lowest:
                    return ENDED - i, int64(0), int64(0)
                if not prefix:
                    distance |= part << read
                    read += take
                elif part == 0:
                    prefix = False
                elif bits < MAX_BITS:
                    bits += 1
                else:
                    return int64(IMPOSSIBLE), int64(0), int64(0)
            distance |= int64(1) << bits
            if distance & 1:
                number = last + (distance >> 1)
            else:
                number = -(distance >> 1)
        value = number + int64(offset[row])
        if value < -MAX_VALUE or value > MAX_VALUE:
            return int64(IMPOSSIBLE), int64(0), int64(0)
        values[uint64(i)] = value
        states[lane] = x
        i += 1
    return (
        cursor,
        int64(crc_of_values(values_crc, values, crc_tables)),
        int64(crc_of_rows(rows_crc, rows, crc_tables)),
    )
