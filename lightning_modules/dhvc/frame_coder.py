"""One frame of DHVC: an estimate, or packets and back, scale by scale.

What passes from frame to frame is a value of the caller's, so that one caller may take
frames in turn and another several at once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lightning_modules.clock import uncounted
from lightning_modules.codec import RateKnob, Schedule
from lightning_modules.dhvc.network import DHVCNetwork
from lightning_modules.dhvc.packets import Head, round_lmbda
from lightning_modules.dhvc.walk import FrameWalk, State, Steps
from lightning_modules.entropy.device_ports import decode_port, encode_port
from lightning_modules.entropy.ports import (
    EncodePort,
    EstimatePort,
    SilentPort,
)
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.frames import as_shown, pad_to_multiple, padded_size
from lightning_modules.layers import at_least_float32
from lightning_modules.packets import (
    DesyncError,
    Packet,
    Pending,
    Received,
    pending,
    read_symbols,
)

R = TypeVar("R")

STREAMS_PER_SCALE = 2
"""Noise streams kept for a scale: one for each of its latents."""


@dataclass(frozen=True)
class Work(Generic[R]):
    """What is to do for a frame.

    Attributes:
        first: Its first scale that refers to no earlier frame, or 0.
        steps: Codes or decodes it, given what does so and a state that holds nothing
            of the scales from ``first`` on.
    """

    first: int
    steps: Callable[["FrameCoder", State], Steps[tuple[R, State]]]


class FrameCoder:
    """Codes and decodes frames with a network, on the network's device.

    Args:
        network: Its transforms.
        rate_knob: Which lambdas are possible.
        tables: The codec's.
        home: Where pictures go; they stay where the network is by default.
    """

    def __init__(
        self,
        network: DHVCNetwork,
        rate_knob: RateKnob,
        tables: dict[str, CdfTables],
        home: torch.device | None = None,
    ) -> None:
        self.network = network
        self.home = home or network.like.device
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

    def encoding(
        self,
        frames: Iterable[Tensor],
        schedule: Schedule,
        reconstruct: bool,
        at_once: bool,
    ) -> Iterator[Work[Pending]]:
        """Give the work for each frame.

        Args:
            frames: Each (3, H, W), RGB in [0, 1].
            schedule: As in :meth:`DHVCCodec.compress`.
            reconstruct: As there.
            at_once: Whether the work includes the bytes.

        Raises:
            ValueError: A scale is not one that can begin anew.
        """
        for number, frame in enumerate(frames):
            first = 0
            if schedule.starts(number):
                first = 1
            elif schedule.resync is not None:
                first = self._check_resync(schedule.resync(number))
            lmbda = round_lmbda(schedule.rate_at(number))
            yield Work(
                first,
                partial(
                    FrameCoder.encode_steps,
                    frame=frame,
                    lmbda=lmbda,
                    first=first,
                    reconstruct=reconstruct,
                    at_once=at_once,
                ),
            )

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
        self,
        state: State,
        frame: Tensor,
        lmbda: float,
        first: int,
        reconstruct: bool,
        at_once: bool,
    ) -> Steps[tuple[Pending, State]]:
        """Code one frame.

        Args:
            state: What it refers to.
            frame: (3, H, W), RGB in [0, 1].
            lmbda: As packets hold it.
            first: Its first scale with spatial references only, or 0.
            reconstruct: As in :meth:`DHVCCodec.compress`.
            at_once: As in :meth:`encoding`.
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
            ports.append(encode_port(self.tables, reconstruct, padded))
            yield walk
            walk.step(observed, ports[-1])
        yield walk
        with uncounted(unless=self.options.auxiliary):
            pixels, state = walk.finish(shown)
        x_hat = None
        if reconstruct:
            assert pixels is not None
            x_hat = self._to_rgb(pixels, height, width)
        units = []
        for number, port in enumerate(ports, start=1):
            spatial = 0 < first <= number
            head = Head(number, spatial, lmbda if number == 1 else None)
            completes = int(number == self.scales)
            complete = None if x_hat is None else x_hat[:completes]
            units.append(pending(head.to_bytes(), port, completes, complete))
        unit = Pending(lambda: [packet for each in units for packet in each.make()])
        return Pending(partial(list, unit.make())) if at_once else unit, state

    # Decoding.

    def decoding(
        self, packets: Iterable[Packet | None], scales: int, height: int, width: int
    ) -> Iterator[Work[Received]]:
        """Give the work for each frame, told from its packets' heads alone.

        So a decoder may have begun the next frame before it has finished this one.

        Args:
            packets: One for each scale of each frame, in coding order; ``None`` stands
                for a lost one.
            scales: How many of a frame's packets to decode, coarsest first.
            height: In pixels.
            width: In pixels.

        Raises:
            DesyncError: Packets are out of order.
        """
        source = iter(packets)
        # Scales, coarsest first, whose references are the encoder's.
        in_step = 0
        lmbda: float | None = None
        for packet in source:
            group = list(islice(chain([packet], source), self.scales))
            heads = [
                Head.read(packet, number) if packet else None
                for number, packet in enumerate(group, start=1)
            ]
            # The first frame of all has none to refer to, even if its packet was lost.
            first = int(lmbda is None or (heads[0] is not None and heads[0].spatial))
            lmbda = self._check_lmbda(heads[0], lmbda)
            if len(group) < self.scales:
                raise DesyncError(
                    f"the last frame ends after {len(group)} of {self.scales} packets"
                )
            readable: list[tuple[Packet, Head]] = []
            for packet, head in zip(group[:scales], heads, strict=False):
                if not (packet and head and (head.spatial or len(readable) < in_step)):
                    break
                readable.append((packet, head))
            yield Work(
                first,
                partial(
                    FrameCoder.decode_steps,
                    packets=readable,
                    lmbda=lmbda,
                    size=(height, width),
                ),
            )
            # What one scale lacks the auxiliary path takes to all of the next frame.
            whole = len(readable) == self.scales or not self.options.auxiliary
            in_step = len(readable) * whole

    def _check_lmbda(self, head: Head | None, last: float | None) -> float:
        """Return the frame's lambda; if its first packet was lost, the last one's."""
        knob = self.rate_knob
        if head is None:
            # Before the first packet any will do.
            return last or knob.points[0]
        if not head.spatial and last is None:
            raise DesyncError("the first frame refers to frames that are not there")
        low, high = round_lmbda(knob.low), round_lmbda(knob.high)
        if head.lmbda is None or not low <= head.lmbda <= high:
            raise DesyncError(
                f"the frame's lambda is {head.lmbda}, possible are {low:g} to {high:g}"
            )
        return head.lmbda

    def decode_steps(
        self,
        state: State,
        packets: list[tuple[Packet, Head]],
        lmbda: float,
        size: tuple[int, int],
    ) -> Steps[tuple[Received, State]]:
        """Decode one frame.

        Args:
            state: What it refers to.
            packets: Those to decode with their heads, coarsest first; the scales after
                them take the mean of their prior.
            lmbda: The frame's; if its first packet was lost, that of the last frame.
            size: Height and width in pixels.
        """
        shape = self.padded(*size)
        walk = FrameWalk(self.network, state, self.embed(lmbda), shape)
        for packet, head in packets:
            yield walk
            try:
                with read_symbols(packet, len(head.to_bytes())) as decoder:
                    port = decode_port(decoder, self.tables, self.network.like)
                    port.expect(self.network.symbols(head.scale, shape))
                    walk.step(None, port, fresh=head.spatial)
            except DesyncError as error:
                raise DesyncError(f"scale {head.scale}: {error}") from error
        for _ in range(len(packets), self.scales):
            yield walk
            walk.step(None, SilentPort())
        yield walk
        pixels, state = walk.finish()
        assert pixels is not None
        return Received(self._to_rgb(pixels, *size)[0], len(packets)), state

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
        """Pad (B, 3, H, W) and map RGB in [0, 1] to the network's range."""
        padded = pad_to_multiple(frame.to(self.network.like), self.pad_multiple)
        black = self.options.layout.black
        pixels = (1.0 - black) * padded + black
        return pixels.contiguous(memory_format=torch.channels_last)

    def _to_rgb(self, pixels: Tensor, height: int, width: int) -> Tensor:
        black = self.options.layout.black
        shown = at_least_float32(pixels[..., :height, :width])
        rgb = (shown - black) / (1.0 - black)
        return rgb if self.network.training else as_shown(rgb).to(self.home)


def _shape(frame: Tensor) -> tuple[int, int, int]:
    return frame.shape[0], frame.shape[2], frame.shape[3]
