"""The bytes of one group of pictures.

A packet begins with one byte::

    bits 0-5  latent steps t less 1: the group was coded as 4 t + 1 frames
    bit 6     more: two bytes follow, little-endian, the side of a tile in pixels (a
              multiple of 8, 0 for none), whose bit 0 says that one more byte follows
    bit 7     blends: the first frame is shared with the group before

That third byte is the earlier copy's share of the shared frame in hundredths, where it
is not half. The head is followed by one range-coded stream with z, then y group by
group and colour by colour. It is one, because a stream costs up to 50 bits beyond its
symbols, and all of a small group of pictures a few thousand. The checksum covers the
head too.
"""

from dataclasses import dataclass

from lightning_modules.packets import DesyncError, Packet
from lightning_modules.video_vae.backbone import SPACE_STRIDE, TIME_STRIDE

STEPS, MORE, BLENDS = 63, 64, 128
WEIGHED = 1
"""Beside the side of a tile, where it is free."""
HALF = 50
"""The usual share of the earlier copy, in hundredths."""
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
        percent: Share of the earlier group's copy in a shared frame, 0 to 100.
    """

    frames: int
    blends: bool
    tile: int
    percent: int = HALF

    def to_bytes(self) -> bytes:
        """Return the head as it stands in the payload."""
        first = self.frames // TIME_STRIDE | BLENDS * self.blends
        weighed = self.blends and self.percent != HALF
        if not self.tile and not weighed:
            return bytes([first])
        side = (self.tile | WEIGHED * weighed).to_bytes(2, "little")
        share = bytes([self.percent] if weighed else [])
        return bytes([first | MORE]) + side + share

    @classmethod
    def read(cls, packet: Packet) -> "Head":
        """Return the head of a packet.

        Raises:
            DesyncError: No group of pictures begins like this.
        """
        payload = packet.payload
        more = bool(payload) and payload[0] & MORE
        weighed = len(payload) > 1 and more and payload[1] & WEIGHED
        if len(payload) < (4 if weighed else 3 if more else 1):
            raise DesyncError(f"a packet of {len(payload)} bytes has no whole head")
        frames = TIME_STRIDE * (payload[0] & STEPS) + 1
        tile = int.from_bytes(payload[1:3], "little") & ~WEIGHED if more else 0
        if tile % SPACE_STRIDE:
            raise DesyncError(
                f"a tile of {tile} pixels: it is a multiple of {SPACE_STRIDE}"
            )
        percent = payload[3] if weighed else HALF
        if percent > 100:
            raise DesyncError(f"a shared frame cannot be {percent} % of a copy")
        if not 1 <= packet.frames <= frames:
            raise DesyncError(
                f"a packet of {frames} coded frames cannot complete {packet.frames}"
            )
        return cls(frames, bool(payload[0] & BLENDS), tile, percent)
