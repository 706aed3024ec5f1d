"""The bytes of one scale of one frame.

A packet begins with ::

    byte 0      bits 0-2 scale less 1; bit 3: refers to no earlier frame at this scale
    bytes 1-4   scale 1 only: lambda, float32, little-endian

followed by one range-coded stream with the scale's latents. Its checksum covers the
head too.
"""

import struct
from dataclasses import dataclass

from lightning_modules.packets import DesyncError, Packet

SPATIAL = 8
LMBDA = struct.Struct("<f")


def round_lmbda(lmbda: float) -> float:
    """Return lambda as packets hold it."""
    (rounded,) = LMBDA.unpack(LMBDA.pack(lmbda))
    return float(rounded)


@dataclass(frozen=True)
class Head:
    """How a packet begins.

    Attributes:
        scale: From 1, the coarsest.
        spatial: Whether the scale refers to no earlier frame.
        lmbda: The frame's lambda, in packets of scale 1.
    """

    scale: int
    spatial: bool
    lmbda: float | None = None

    def to_bytes(self) -> bytes:
        """Return the head as it stands in the payload."""
        first = bytes([self.scale - 1 | SPATIAL * self.spatial])
        return first if self.lmbda is None else first + LMBDA.pack(self.lmbda)

    @classmethod
    def read(cls, packet: Packet, scale: int) -> "Head":
        """Return the head of a packet that should be one of ``scale``.

        Raises:
            DesyncError: It is not.
        """
        payload = packet.payload
        size = 1 + (LMBDA.size if scale == 1 else 0)
        if len(payload) < size or payload[0] & ~SPATIAL != scale - 1:
            raise DesyncError(
                f"a packet does not begin as one of scale {scale}: packets are out of "
                "order, or one that was lost is not marked"
            )
        lmbda = LMBDA.unpack_from(payload, 1)[0] if scale == 1 else None
        return cls(scale, bool(payload[0] & SPATIAL), lmbda)
