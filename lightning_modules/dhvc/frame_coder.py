"""One frame of DHVC: an estimate, or packets and back, scale by scale.

What passes from frame to frame is a value of the caller's, so that one caller may take
frames in turn and another several at once.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lightning_modules.clock import uncounted
from lightning_modules.codec import (
    RateKnob,
    Schedule,
    as_shown,
    pad_to_multiple,
    padded_size,
)
from lightning_modules.dhvc.network import DHVCNetwork
from lightning_modules.dhvc.packets import Head, round_lmbda, unpack
from lightning_modules.dhvc.reception import Decodable, decodable_frames
from lightning_modules.dhvc.walk import FrameWalk, State, Steps
from lightning_modules.entropy.ports import EncodePort, EstimatePort, SilentPort
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.layers import at_least_float32
from lightning_modules.packets import Packet, Received, pack

STREAMS_PER_SCALE = 2
"""Noise streams kept for a scale: one for each of its latents."""


class FrameCoder:
    """Codes and decodes frames with a network, on the network's device.

    Args:
        network: Its transforms.
        rate_knob: Which lambdas are possible.
        tables: The codec's.
    """

    def __init__(
        self,
        network: DHVCNetwork,
        rate_knob: RateKnob,
        tables: dict[str, CdfTables],
    ) -> None:
        self.network = network
        self.rate_knob = rate_knob
        self.tables = tables
        self.options = network.options
        self.scales = network.count
        self.pad_multiple = network.options.strides[0]

    @property
    def start(self) -> State:
        """The state before the first frame."""
        return State(((),) * self.scales)

    def estimate(
        self,
        frame: Tensor,
        state: State,
        embedding: Tensor | None,
        seeds: Tensor | None,
        number: int,
    ) -> tuple[Tensor, Tensor, State]:
        """Code a frame differentiably; return RGB, bits (B, scales) and state.

        Args:
            frame: (B, 3, H, W), RGB in [0, 1].
            state: What it refers to.
            embedding: (B, E), of lambda.
            seeds: (B,), of the rate's noise; ``None`` rounds instead.
            number: Of the frame, so that no two share noise.
        """
        padded = self._to_network(frame)
        walk = FrameWalk(self.network, state, embedding, _shape(padded))
        bits = []
        for scale, observed in enumerate(self.network.encoder(padded, embedding)):
            first = (number * self.scales + scale) * STREAMS_PER_SCALE
            port = EstimatePort(seeds, first - 1)
            walk.step(observed, port)
            bits.append(torch.as_tensor(port.bits))
        pixels, state = walk.finish()
        assert pixels is not None
        shown = self._to_rgb(pixels, *frame.shape[-2:])
        return shown, torch.stack(bits, dim=1), state

    # Encoding.

    def plan(
        self, frames: Iterable[Tensor], schedule: Schedule
    ) -> Iterator[tuple[Tensor, float, int]]:
        """Give each frame, its lambda, and its first scale that begins anew, or 0.

        Raises:
            ValueError: A scale is not one that can begin anew.
        """
        for number, frame in enumerate(frames):
            first = 0
            if schedule.starts(number):
                first = 1
            elif schedule.resync is not None:
                first = self._check_resync(schedule.resync(number))
            yield frame, round_lmbda(schedule.rate_at(number)), first

    def _check_resync(self, first: int) -> int:
        allowed = (0, 1) if self.options.auxiliary else range(self.scales + 1)
        if first not in allowed:
            why = (
                "the auxiliary path carries what was lost into every scale"
                if self.options.auxiliary
                else f"there are {self.scales}"
            )
            raise ValueError(
                f"scale {first} cannot begin anew, possible are {list(allowed)}: {why}"
            )
        return first

    def encode_steps(
        self, frame: Tensor, lmbda: float, state: State, first: int, reconstruct: bool
    ) -> Steps[tuple[list[Packet], State]]:
        """Code one frame.

        Args:
            frame: (3, H, W), RGB in [0, 1].
            lmbda: As packets hold it.
            state: What it refers to.
            first: Its first scale with spatial references only, or 0.
            reconstruct: As in :meth:`DHVCCodec.compress`.
        """
        height, width = frame.shape[-2:]
        padded = self._to_network(frame[None])
        embedding = self.embed(lmbda)
        shown = reconstruct or self.options.auxiliary
        walk = FrameWalk(
            self.network,
            state,
            embedding,
            _shape(padded),
            decode=shown or self.options.reference == "decoded",
        )
        ports: list[EncodePort] = []
        for observed in self.network.encoder(padded, embedding):
            ports.append(EncodePort(self.tables, reconstruct))
            yield walk
            walk.step(observed, ports[-1])
        yield walk
        with uncounted(unless=self.options.auxiliary):
            pixels, state = walk.finish(shown)
        x_hat = None
        if reconstruct:
            assert pixels is not None
            x_hat = self._to_rgb(pixels, height, width)
        packets = []
        for number, port in enumerate(ports, start=1):
            spatial = 0 < first <= number
            head = Head(number, spatial, lmbda if number == 1 else None)
            completes = int(number == self.scales)
            complete = None if x_hat is None else x_hat[:completes]
            packets.append(pack(head.to_bytes(), port, completes, complete))
        return packets, state

    # Decoding.

    def decodable(
        self, packets: Iterable[Packet | None], scales: int
    ) -> Iterator[Decodable]:
        """Say of each frame what can be decoded; see :func:`decodable_frames`."""
        yield from decodable_frames(
            packets, self.scales, scales, self.rate_knob, self.options.auxiliary
        )

    def decode_steps(
        self, frame: Decodable, state: State, height: int, width: int
    ) -> Steps[tuple[Received, State]]:
        """Decode one frame.

        Args:
            frame: What can be decoded of it.
            state: What it refers to.
            height: In pixels.
            width: In pixels.
        """
        if frame.intra:
            state = state.without(1)
        shape = self.padded(height, width)
        walk = FrameWalk(self.network, state, self.embed(frame.lmbda), shape)
        for packet, head in frame.packets:
            yield walk
            with unpack(packet, head, self.tables) as port:
                walk.step(None, port, fresh=head.spatial)
        for _ in range(len(frame.packets), self.scales):
            yield walk
            walk.step(None, SilentPort())
        yield walk
        pixels, state = walk.finish()
        assert pixels is not None
        shown = self._to_rgb(pixels, height, width)[0]
        return Received(shown, len(frame.packets)), state

    # Padding, colour and lambda.

    def padded(self, height: int, width: int) -> tuple[int, int, int]:
        """Return batch, height and width of one padded frame."""
        return 1, *padded_size(height, width, self.pad_multiple)

    def embed(self, lmbda: float) -> Tensor | None:
        """Return the embedding (1, E) of one lambda."""
        return self.network.embed(
            torch.tensor([lmbda], device=self.network.like.device)
        )

    def _to_network(self, frame: Tensor) -> Tensor:
        """Pad (B, 3, H, W) and map RGB in [0, 1] to [-1, 1]."""
        padded = pad_to_multiple(frame.to(self.network.like), self.pad_multiple)
        return (2.0 * padded - 1.0).contiguous(memory_format=torch.channels_last)

    def _to_rgb(self, pixels: Tensor, height: int, width: int) -> Tensor:
        rgb = (at_least_float32(pixels[..., :height, :width]) + 1.0) / 2.0
        return rgb if self.network.training else as_shown(rgb)


def _shape(frame: Tensor) -> tuple[int, int, int]:
    return frame.shape[0], frame.shape[2], frame.shape[3]
