"""Toy as a video codec: patches of each frame, rounded in a basis that is learned."""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.codec import (
    CodecOutput,
    RateKnob,
    Schedule,
    VideoCodec,
)
from lightning_modules.entropy.distributions import Factorised
from lightning_modules.entropy.ports import (
    DecodePort,
    EncodePort,
    EstimatePort,
    Port,
    SilentPort,
)
from lightning_modules.entropy.priors import FactorisedPrior
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.frames import as_shown, pad_to_multiple
from lightning_modules.packets import Packet, Received, pack, read_symbols
from lightning_modules.toy.options import CodingOptions


class ToyCodec(VideoCodec):
    """Each frame alone, as rounded coordinates of its patches.

    Args:
        patch: Side of a patch in pixels. It has as many coordinates as samples.
    """

    rate_knob = RateKnob("fineness", 0, 63, (0, 21, 42, 63))
    frames_per_unit = 1
    loss_terms = ("skewness",)
    coding_options = CodingOptions

    def __init__(self, patch: int = 4) -> None:
        super().__init__(patch=patch)
        self.pad_multiple = patch
        channels = 3 * patch**2
        basis = nn.init.orthogonal_(torch.empty(channels, channels))
        self.basis = nn.Parameter(basis.view(channels, 3, patch, patch))
        self.prior = FactorisedPrior(1, channels)

    def _code(
        self, frames: Tensor | None, rate: Tensor, port: Port, height: int, width: int
    ) -> Tensor:
        """Walk through the network: encoder, decoder and training do it alike.

        Args:
            frames: (N, 3, height, width); ``None`` to decode.
            rate: (N,).
            port: Takes or gives the symbols.
            height: Of the frames.
            width: Of the frames.
        """
        patch = self.pad_multiple
        fineness = torch.exp2(rate / 16).to(self.basis)[:, None, None, None]
        y = None
        if frames is not None:
            padded = pad_to_multiple(frames.to(self.basis), patch)
            y = F.conv2d(padded, self.basis, stride=patch) * fineness
            if not self.training:
                y = y * (y.abs() > self.coding.dead_zone)
        shape = (len(rate), len(self.basis), -(-height // patch), -(-width // patch))
        y_hat = port.code(y, Factorised(self.prior, shape, "y")) / fineness
        pixels = F.conv_transpose2d(y_hat, self.basis, stride=patch)
        shown = pixels[..., :height, :width]
        return shown if self.training else as_shown(shown)

    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably; see :meth:`VideoCodec.forward`."""
        batch, count, _, height, width = clip.shape
        port = EstimatePort(conditions.get("seeds"), samples=batch * count)
        rates = rate.repeat_interleave(count)
        x_hat = self._code(clip.flatten(0, 1), rates, port, height, width)
        bits = torch.as_tensor(port.bits).view(batch, count)
        terms = {}
        if "skewness" in self.weighed_terms:
            flat = self.basis.flatten(1)
            terms["skewness"] = (flat @ flat.T - flat.new_ones(len(flat)).diag()).norm()
        return CodecOutput(x_hat.view(clip.shape), bits, terms)

    def _compress(
        self, frames: Iterator[Tensor], schedule: Schedule, reconstruct: bool
    ) -> Iterator[Packet]:
        for number, frame in enumerate(frames):
            level = round(schedule.rate_at(number))
            port = EncodePort(self.tables, estimate=reconstruct)
            x_hat = self._code(frame[None], self._rate(level), port, *frame.shape[1:])
            yield pack(bytes([level]), port, 1, x_hat if reconstruct else None)

    def _receive(
        self, packets: Iterable[Packet | None], height: int, width: int, scales: int
    ) -> Iterator[Received]:
        frame = torch.full((3, height, width), 0.5)
        for packet in packets:
            # Where one is lost, the frame before it is shown again.
            if packet is not None:
                with read_symbols(packet, 1) as decoder:
                    port = DecodePort(decoder, self.tables)
                    rate = self._rate(packet.payload[0])
                    (frame,) = self._code(None, rate, port, height, width)
            yield Received(frame)

    def _rate(self, level: int) -> Tensor:
        return self.basis.new_tensor([level])

    def build_tables(self) -> dict[str, CdfTables]:
        """Return the tables of the coordinates."""
        return {"y": self.prior.tables()}

    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return a frame's encode, which decodes too, and decode."""
        frame = self.basis.new_zeros(1, 3, height, width)
        common = (self.basis.new_zeros(1), SilentPort(), height, width)
        return {
            "encode": lambda: self._code(frame, *common),
            "decode": lambda: self._code(None, *common),
        }
