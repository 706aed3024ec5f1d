"""CRC32 of whole numbers as little-endian int32, without writing them out.

A CRC is linear over bits: that of a block is the exclusive or of one table entry for
each of its numbers, chosen by the number's place in the block, and of the CRC before it
moved past the block. Nearly all numbers fit one byte or two, the rest goes byte by
byte. The results are ``zlib.crc32`` of the int32 array, which stays the definition.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, uint32

from lightning_modules.entropy.compiled import INTS, SHORTS, WORDS, compiled

POLYNOMIAL = 0xEDB88320
BLOCK = 8
"""Numbers at once; more would not fit a processor's first cache."""

# Where each table of 256 entries begins. Of one byte that passes; of the four bytes of
# a CRC that passes a block; by place in the block of a signed byte, of a number's low
# byte and of its second.
BYTE, PAST = 0, 256
SIGNED = PAST + 4 * 256
LOW = SIGNED + BLOCK * 256
SECOND = LOW + BLOCK * 256


def _tables() -> npt.NDArray[np.uint32]:
    byte = np.arange(256, dtype=np.uint32)
    passed = byte.copy()
    for _ in range(8):
        passed = (passed >> 1) ^ np.where(passed & 1, np.uint32(POLYNOMIAL), 0)

    def past(crc: Any, count: int) -> Any:
        for _ in range(count):
            crc = passed[crc & 255] ^ (crc >> 8)
        return crc

    parts = [passed, *(past(byte << 8 * i, 4 * BLOCK) for i in range(4))]
    signed = byte.astype(np.int8).astype(np.int32).view(np.uint32)
    for numbers in (signed, byte, byte << 8):
        parts += [past(numbers, 4 * (BLOCK - place)) for place in range(BLOCK)]
    return np.concatenate(parts).astype(np.uint32)


TABLES = _tables()


@compiled(uint32(uint32, INTS, WORDS))
def crc_of_values(crc: Any, values: Any, tables: Any) -> Any:
    """Continue a CRC32 with int32 numbers, mostly from -128 to 127."""
    crc = ~crc
    count = len(values)
    i = 0
    while i < count:
        if i + BLOCK <= count:
            # Written out: a loop would become gathers, which are slower.
            a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
            e, f, g, h = values[i + 4], values[i + 5], values[i + 6], values[i + 7]
            wide = uint32(a + 128) | uint32(b + 128) | uint32(c + 128) | uint32(d + 128)
            wide |= uint32(e + 128) | uint32(f + 128) | uint32(g + 128)
            wide |= uint32(h + 128)
            if wide < uint32(256):
                mixed = tables[SIGNED + int64(a & 255)]
                mixed ^= tables[SIGNED + 256 + int64(b & 255)]
                mixed ^= tables[SIGNED + 512 + int64(c & 255)]
                mixed ^= tables[SIGNED + 768 + int64(d & 255)]
                mixed ^= tables[SIGNED + 1024 + int64(e & 255)]
                mixed ^= tables[SIGNED + 1280 + int64(f & 255)]
                mixed ^= tables[SIGNED + 1536 + int64(g & 255)]
                mixed ^= tables[SIGNED + 1792 + int64(h & 255)]
                mixed ^= tables[PAST + int64(crc & uint32(255))]
                mixed ^= tables[PAST + 256 + int64((crc >> uint32(8)) & uint32(255))]
                mixed ^= tables[PAST + 512 + int64((crc >> uint32(16)) & uint32(255))]
                crc = mixed ^ tables[PAST + 768 + int64(crc >> uint32(24))]
                i += BLOCK
                continue
        word = uint32(values[i])
        for _ in range(4):
            crc = tables[BYTE + int64((crc ^ word) & uint32(255))] ^ (crc >> uint32(8))
            word >>= uint32(8)
        i += 1
    return ~crc


@compiled(uint32(uint32, SHORTS, WORDS))
def crc_of_rows(crc: Any, rows: Any, tables: Any) -> Any:
    """Continue a CRC32 with uint16 numbers, as if they were int32."""
    crc = ~crc
    count = len(rows)
    whole = count - count % BLOCK
    for i in range(0, whole, BLOCK):
        a, b, c, d = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        e, f, g, h = rows[i + 4], rows[i + 5], rows[i + 6], rows[i + 7]
        mixed = tables[LOW + int64(a & 255)]
        mixed ^= tables[LOW + 256 + int64(b & 255)]
        mixed ^= tables[LOW + 512 + int64(c & 255)]
        mixed ^= tables[LOW + 768 + int64(d & 255)]
        mixed ^= tables[LOW + 1024 + int64(e & 255)]
        mixed ^= tables[LOW + 1280 + int64(f & 255)]
        mixed ^= tables[LOW + 1536 + int64(g & 255)]
        mixed ^= tables[LOW + 1792 + int64(h & 255)]
        if (a | b | c | d | e | f | g | h) > 255:
            mixed ^= tables[SECOND + int64(a >> 8)]
            mixed ^= tables[SECOND + 256 + int64(b >> 8)]
            mixed ^= tables[SECOND + 512 + int64(c >> 8)]
            mixed ^= tables[SECOND + 768 + int64(d >> 8)]
            mixed ^= tables[SECOND + 1024 + int64(e >> 8)]
            mixed ^= tables[SECOND + 1280 + int64(f >> 8)]
            mixed ^= tables[SECOND + 1536 + int64(g >> 8)]
            mixed ^= tables[SECOND + 1792 + int64(h >> 8)]
        mixed ^= tables[PAST + int64(crc & uint32(255))]
        mixed ^= tables[PAST + 256 + int64((crc >> uint32(8)) & uint32(255))]
        mixed ^= tables[PAST + 512 + int64((crc >> uint32(16)) & uint32(255))]
        crc = mixed ^ tables[PAST + 768 + int64(crc >> uint32(24))]
    for i in range(whole, count):
        word = uint32(rows[i])
        for _ in range(4):
            crc = tables[BYTE + int64((crc ^ word) & uint32(255))] ^ (crc >> uint32(8))
            word >>= uint32(8)
    return ~crc
