"""Toy as a video codec: every sample in few levels, compressed by zlib."""

import zlib

import torch
from lightning_modules.toy.options import CodingOptions
from torch import nn

from lightning_modules.codec import CodecOutput, RateKnob, VideoCodec
from lightning_modules.packets import DesyncError, Packet, Received


class ToyCodec(VideoCodec):
    """Frames in few levels.

    Args:
        shift: Added to every sample at first.
    """

    rate_knob = RateKnob("levels", 2, 64, (4, 8, 16, 32))
    frames_per_unit = 1
    pad_multiple = 1
    loss_terms = ("drift",)
    coding_options = CodingOptions

    def __init__(self, shift: float = 0.01) -> None:
        super().__init__(shift=shift)
        self.shift = nn.Parameter(torch.tensor(shift))
        self.cost = nn.Parameter(torch.tensor(1.0))

    def forward(self, clip, rate, **conditions):
        top = rate[:, None, None, None, None] - 1
        shifted = clip + self.shift
        x_hat = shifted + ((shifted * top).round() / top - shifted).detach()
        pixels = clip.shape[-2] * clip.shape[-1]
        bits = (self.cost * rate.log2() * pixels)[:, None].expand(clip.shape[:2])
        drift = {"drift": self.shift.square()} if self.weighed_terms else {}
        return CodecOutput(x_hat if self.training else x_hat.clamp(0, 1), bits, drift)

    def _compress(self, frames, schedule, reconstruct):
        for number, frame in enumerate(frames):
            top = int(schedule.rate_at(number)) - 1
            codes = ((frame + self.shift) * top).round().clamp(0, top).byte()
            raw = codes.cpu().numpy().tobytes()
            payload = bytes([top]) + zlib.compress(raw, self.coding.effort)
            yield Packet(
                payload,
                frames=1,
                checksum=zlib.crc32(raw),
                x_hat=(codes / top)[None] if reconstruct else None,
                estimated_bits=8.0 * len(payload),
            )

    def _receive(self, packets, height, width, scales):
        last = torch.full((3, height, width), 0.5)
        for packet in packets:
            if packet is not None:
                raw = zlib.decompress(packet.payload[1:])
                if zlib.crc32(raw) != packet.checksum:
                    raise DesyncError("other symbols than were coded")
                codes = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
                last = codes.reshape(3, height, width) / packet.payload[0]
            yield Received(last)

    def build_tables(self):
        return {}

    def passes(self, height, width):
        return {"encode": lambda: self.shift + 1, "decode": lambda: self.shift - 1}
