"""The bytes of one frame.

A packet begins with ::

    byte 0      bits 0-1 how the frame was coded: 0 intra, 1 inter, 2 inter without
                motion; bits 2-3 references; bit 4: doubts follow; bit 5: computed in
                float32
    bytes 1-2   quality in 1/65535, little-endian
    any         if doubts follow: their number, then for each the distance from the
                last one's place, its mean (zigzag) and its level, as varints

followed by one range-coded stream: the motion's z and symbols, the frame's z and
symbols. The checksum covers everything. Doubts are elements whose table another machine
may choose differently, because a float64 lies within 10^-9 of the edge between two.
"""

import struct
from dataclasses import dataclass, field

from lightning_modules.bitstream import varint
from lightning_modules.dual_domain.design import MAX_REFERENCES
from lightning_modules.dual_domain.network import Mode
from lightning_modules.dual_domain.options import Numeric
from lightning_modules.dual_domain.ports import Doubt
from lightning_modules.packets import DesyncError, Packet

QUALITY_STEPS = 65535
DOUBTS, FLOAT32 = 16, 32
FIXED = struct.Struct("<BH")
MAX_VARINT = 5


def round_quality(quality: float) -> float:
    """Return a quality as packets hold it."""
    return round(quality * QUALITY_STEPS) / QUALITY_STEPS


@dataclass(frozen=True)
class Head:
    """How a packet begins.

    Attributes:
        mode: How the frame is coded.
        references: Frames that it refers to, 0 to 3.
        quality: As packets hold it.
        numeric: What everything that chooses tables was computed in.
        doubts: Tables that the decoder must be told.
    """

    mode: Mode
    references: int
    quality: float
    numeric: Numeric
    doubts: list[Doubt] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """Return the head as it stands in the payload."""
        first = self.mode | self.references << 2
        first |= DOUBTS * bool(self.doubts) | FLOAT32 * (self.numeric == "float32")
        head = FIXED.pack(first, round(self.quality * QUALITY_STEPS))
        if self.doubts:
            head += varint(len(self.doubts))
            last = 0
            for doubt in self.doubts:
                zigzag = doubt.mean << 1 if doubt.mean >= 0 else (-doubt.mean << 1) - 1
                head += varint(doubt.place - last) + varint(zigzag)
                head += varint(doubt.level)
                last = doubt.place
        return head


def read_head(packet: Packet) -> tuple[Head, int]:
    """Return a packet's head and its number of bytes.

    Raises:
        DesyncError: It does not begin as one.
    """
    payload = packet.payload
    try:
        first, quality = FIXED.unpack_from(payload)
        at = FIXED.size
        numbers: list[int] = []
        if first & DOUBTS:
            count, at = _read_varint(payload, at)
            for _ in range(3 * count):
                number, at = _read_varint(payload, at)
                numbers.append(number)
        mode, references = Mode(first & 3), first >> 2 & 3
    except (struct.error, IndexError, ValueError) as error:
        raise DesyncError(
            "a packet does not begin as one of this codec: packets are out of order, "
            "or damaged"
        ) from error
    if bool(references) != bool(mode) or references > MAX_REFERENCES:
        raise DesyncError(f"a packet of mode {mode.name} names {references} references")
    doubts = []
    place = 0
    for distance, zigzag, level in zip(*(numbers[i::3] for i in range(3)), strict=True):
        place += distance
        mean = -(zigzag + 1 >> 1) if zigzag & 1 else zigzag >> 1
        doubts.append(Doubt(place, mean, level))
    numeric: Numeric = "float32" if first & FLOAT32 else "float64"
    head = Head(mode, references, quality / QUALITY_STEPS, numeric, doubts)
    return head, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place in range(MAX_VARINT):
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise ValueError("a number does not end")
