"""The bytes of one group of pictures.

A packet begins with one byte::

    bits 0-5  latent steps t less 1: the group was coded as 4 t + 1 frames
    bit 6     tiled: two bytes follow, the side of a tile in pixels, little-endian
    bit 7     blends: the first frame is shared with the group before

followed by one range-coded stream with z, then y group by group and colour by colour.
It is one, because a stream costs up to 50 bits beyond its symbols, and all of a small
group of pictures a few thousand. The checksum covers the head too.
"""

from dataclasses import dataclass

from lightning_modules.packets import DesyncError, Packet
from lightning_modules.video_vae.backbone import TIME_STRIDE

STEPS, TILED, BLENDS = 63, 64, 128
MAX_FRAMES = TIME_STRIDE * STEPS + 1
"""Of a group of pictures."""
MAX_TILE = (1 << 16) - 1


@dataclass(frozen=True)
class Head:
    """How a packet begins.

    Attributes:
        frames: That were coded together, 4 n + 1.
        blends: Whether the first is shared with the group before.
        tile: Side in pixels of the tiles that the video VAE works in; 0 for none.
    """

    frames: int
    blends: bool
    tile: int

    def to_bytes(self) -> bytes:
        """Return the head as it stands in the payload."""
        first = self.frames // TIME_STRIDE | BLENDS * self.blends
        if not self.tile:
            return bytes([first])
        return bytes([first | TILED]) + self.tile.to_bytes(2, "little")

    @classmethod
    def read(cls, packet: Packet) -> "Head":
        """Return the head of a packet.

        Raises:
            DesyncError: No group of pictures begins like this.
        """
        payload = packet.payload
        tiled = bool(payload) and payload[0] & TILED
        if len(payload) < (3 if tiled else 1):
            raise DesyncError(f"a packet of {len(payload)} bytes has no whole head")
        frames = TIME_STRIDE * (payload[0] & STEPS) + 1
        tile = int.from_bytes(payload[1:3], "little") if tiled else 0
        if not 1 <= packet.frames <= frames:
            raise DesyncError(
                f"a packet of {frames} coded frames cannot complete {packet.frames}"
            )
        return cls(frames, bool(payload[0] & BLENDS), tile)
