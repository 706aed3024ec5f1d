"""What sender, relay and receiver write into datagrams.

All numbers are little-endian; what a kind has no use for is 0.

=====  ===========================================================================
bytes  header of each datagram
=====  ===========================================================================
4      ``LVS`` and 1, the version
4      session: the same in all datagrams of one stream
1      kind, see :class:`Kind`
4      number of the unit, from 0; of ``FINISH`` how many there were
4 + 2  number of the unit's first frame, from 1, and how many frames it is
1      scale, from 1
2 + 2  number of the fragment of its packet, from 0, and how many there are
2      frames that the packet completes
4      checksum of the packet's symbols
=====  ===========================================================================
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from enum import IntEnum

from lightning_modules.bitstream import Packet

MAGIC = b"LVS\x01"
HEADER = struct.Struct("<4sIBIIHBHHHI")

LARGEST = 65507
"""Bytes that a datagram over IPv4 can hold."""


class Kind(IntEnum):
    """What a datagram says."""

    DATA = 0
    """A fragment of a packet."""
    END = 1
    """The unit's packets have all been sent before this."""
    REPORT = 2
    """Back to the sender: the unit is complete but for the scales that are named."""
    FINISH = 3
    """There are no more units."""
    STOP = 4
    """To the relay: its work is done."""


@dataclass(frozen=True)
class Datagram:
    """One datagram; see the table above.

    Attributes:
        data: What follows the header: the fragment's bytes, or in a report one byte for
            each scale that was lost.
    """

    kind: Kind
    unit: int = 0
    first: int = 0
    frames: int = 0
    scale: int = 0
    fragment: int = 0
    fragments: int = 0
    completes: int = 0
    checksum: int = 0
    data: bytes = b""

    def to_bytes(self, session: int) -> bytes:
        """Return it as it is sent."""
        kind, *numbers, data = astuple(self)
        return HEADER.pack(MAGIC, session, kind, *numbers) + data

    @classmethod
    def from_bytes(cls, raw: bytes, session: int) -> "Datagram | None":
        """Return what was sent, or ``None`` if it does not belong to the session."""
        if len(raw) < HEADER.size:
            return None
        magic, its_session, kind, *fields = HEADER.unpack_from(raw)
        if (magic, its_session) != (MAGIC, session) or kind not in list(Kind):
            return None
        values = [*fields, raw[HEADER.size :]]
        return cls(Kind(kind), *values)


def cut(
    number: int, first: int, frames: int, packets: Sequence[Packet], limit: int
) -> Iterator[Datagram]:
    """Cut the packets of a unit into fragments, all but the last as large as can be.

    Args:
        number: Of the unit.
        first: Its first frame.
        frames: How many it is.
        packets: One for each scale.
        limit: Bytes of a datagram with its header.

    Raises:
        ValueError: A packet is too large for so small datagrams.
    """
    room = limit - HEADER.size
    for scale, packet in enumerate(packets, start=1):
        count = max(1, -(-len(packet.payload) // room))
        if count > 0xFFFF:
            raise ValueError(
                f"a packet of {len(packet.payload)} bytes needs {count} datagrams of "
                f"{limit} bytes, more than 65535: let them be larger (--datagram)"
            )
        for fragment in range(count):
            piece = packet.payload[fragment * room : (fragment + 1) * room]
            place = number, first, frames, scale, fragment, count
            yield Datagram(Kind.DATA, *place, packet.frames, packet.checksum, piece)


@dataclass
class Assembler:
    """Puts packets together again, in whatever order their fragments come.

    Attributes:
        scales: Packets of a unit.
        late: Fragments that came when their unit had been closed.
    """

    scales: int
    late: int = 0
    _next: int = 0
    _fragments: dict[int, dict[tuple[int, int], Datagram]] = field(default_factory=dict)

    def add(self, datagram: Datagram) -> None:
        """Take a fragment, for the first time or again."""
        if datagram.unit < self._next:
            self.late += 1
            return
        held = self._fragments.setdefault(datagram.unit, {})
        held[datagram.scale, datagram.fragment] = datagram

    def close(self) -> tuple[Packet | None, ...]:
        """Return the next unit's packets, ``None`` for each that lacks a fragment."""
        held = self._fragments.pop(self._next, {})
        self._next += 1
        return tuple(
            _join([part for (of, _), part in sorted(held.items()) if of == scale])
            for scale in range(1, self.scales + 1)
        )


def _join(parts: list[Datagram]) -> Packet | None:
    """Join the fragments of one packet, in their order."""
    if not parts or len(parts) < parts[0].fragments:
        return None
    payload = b"".join(part.data for part in parts)
    return Packet(payload, parts[0].completes, parts[0].checksum)
