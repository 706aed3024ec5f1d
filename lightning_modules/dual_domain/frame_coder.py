"""One frame into a packet and back.

Two networks of the same weights take part. What decides on tables runs in ``exact``, in
both encoder and decoder, and so do the pixels that later frames refer to. What only the
encoder computes, its symbols, runs in ``network``, the weights' own type.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.codec import as_shown, pad_to_multiple, padded_size
from lightning_modules.dual_domain.design import LATENT_STRIDE
from lightning_modules.dual_domain.motion import MotionTarget
from lightning_modules.dual_domain.network import (
    Coded,
    DualDomainNetwork,
    Mode,
    Reference,
    State,
    Target,
    latent_shape,
)
from lightning_modules.dual_domain.options import Numeric
from lightning_modules.dual_domain.packets import (
    Head,
    read_head,
    round_quality,
)
from lightning_modules.dual_domain.ports import DecodePort, EncodePort
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.packets import DesyncError, Packet, read_symbols


@dataclass(frozen=True)
class Attempt:
    """A frame, coded one way.

    Attributes:
        head: How its packet begins.
        stream: The rest of it.
        port: What took its symbols.
        coded: They.
        flow: Decoded, to the newest reference.
    """

    head: Head
    stream: bytes
    port: EncodePort
    coded: Coded
    flow: Tensor | None

    def nbytes(self) -> int:
        """Return the size of its packet."""
        return len(self.head.to_bytes()) + len(self.stream)


class FrameCoder:
    """Codes and decodes frames; what passes between them is a value of the caller's.

    Args:
        network: For what the encoder alone computes.
        exact: The same in the type that chooses tables; says which in each packet.
        tables: Of the codec.
        modes: The ways to code a frame after a state that are tried.
        estimated: Compare them by their estimated bits, and not by real ones.
    """

    def __init__(
        self,
        network: DualDomainNetwork,
        exact: DualDomainNetwork,
        tables: dict[str, CdfTables],
        modes: Callable[[State], list[Mode]],
        estimated: bool,
    ) -> None:
        self.network = network
        self.exact = exact
        self.tables = tables
        self.modes = modes
        self.estimated = estimated
        self.options = network.options

    def encode(
        self,
        frame: Tensor,
        rate: float,
        state: State,
        *,
        reconstruct: bool = False,
    ) -> tuple[Packet, State]:
        """Code one frame, the way that takes the fewest bits.

        Args:
            frame: (3, H, W), RGB in [0, 1].
            rate: Quality, in [0, 1].
            state: What it may refer to; () for an intra frame.
            reconstruct: Whether the packet carries ``x_hat`` and ``estimated_bits``.
        """
        height, width = frame.shape[-2:]
        padded = pad_to_multiple(frame[None].to(self._device), LATENT_STRIDE)
        value = round_quality(rate)
        attempts = self.attempts(padded, value, state, reconstruct or self.estimated)
        if self.estimated:
            best = min(attempts, key=lambda attempt: attempt.port.bits)
        else:
            best = min(attempts, key=Attempt.nbytes)
        seen = state[: best.head.references]
        quality = self._quality(value)
        pixels, left = self.exact.finish(best.coded, seen, best.flow, quality)
        head = best.head.to_bytes()
        packet = Packet(
            head + best.stream,
            1,
            zlib.crc32(head, best.port.encoder.checksum),
            as_shown(pixels[..., :height, :width]) if reconstruct else None,
            best.port.bits if reconstruct else None,
        )
        return packet, self._after(left, seen)

    def attempts(
        self, frame: Tensor, value: float, state: State, estimate: bool
    ) -> list[Attempt]:
        """Return a padded frame (1, 3, H, W), coded each way that is tried.

        Args:
            frame: RGB in [0, 1].
            value: Quality, as packets hold it.
            state: What the frame may refer to.
            estimate: Whether to add up estimated bits.
        """
        quality = self._quality(value).float()
        modes = self.modes(state)
        motion = target = None
        if Mode.INTER in modes and self.options.pixel_alignment:
            motion = self.network.analyse_flow(frame, state[0].x_hat, quality)
        if not state or self.options.transform == "unified":
            target = self.network.analyse(frame, quality)
        return [
            self._attempt(mode, frame, target, motion, value, state, estimate)
            for mode in modes
        ]

    def _attempt(
        self,
        mode: Mode,
        frame: Tensor,
        target: Target | None,
        motion: MotionTarget | None,
        value: float,
        state: State,
        estimate: bool,
    ) -> Attempt:
        port = EncodePort(self.tables, estimate)
        quality, shape = self._quality(value), latent_shape(frame)
        seen = state if mode else ()
        flow = self.exact.code_motion(mode, motion, quality, shape, port)
        if target is None:
            assert flow is not None
            target = self.network.analyse_inter(
                frame, seen[0].x_hat, flow, quality.float()
            )
        coded = self.exact.code(target, seen, flow, quality, shape, port)
        head = Head(mode, len(seen), value, self._numeric, port.doubts)
        return Attempt(head, port.encoder.finish(), port, coded, flow)

    def decode(
        self, packet: Packet, state: State, height: int, width: int
    ) -> tuple[Tensor, State]:
        """Decode one frame (3, H, W).

        Args:
            packet: Of the frame.
            state: What the frames before it left.
            height: In pixels.
            width: In pixels.

        Raises:
            DesyncError: The decoded symbols are not those that were coded.
        """
        head, size = read_head(packet)
        if head.references and head.references != len(state):
            raise DesyncError(
                f"a frame refers to {head.references} frames, and there are "
                f"{len(state)}: packets are out of order, or a loss is not marked"
            )
        rows, columns = padded_size(height, width, LATENT_STRIDE)
        shape = 1, rows // LATENT_STRIDE, columns // LATENT_STRIDE
        quality = self._quality(head.quality)
        seen = state if head.mode else ()
        with read_symbols(packet, size) as decoder:
            port = DecodePort(decoder, self.tables, head.doubts)
            flow = self.exact.code_motion(head.mode, None, quality, shape, port)
            coded = self.exact.code(None, seen, flow, quality, shape, port)
        pixels, left = self.exact.finish(coded, seen, flow, quality)
        return as_shown(pixels[0, :, :height, :width]), self._after(left, seen)

    def _after(self, left: Reference, seen: State) -> State:
        return (left, *seen)[: self.options.references]

    def _quality(self, value: float) -> Tensor:
        return torch.tensor([value], dtype=self.exact.like.dtype, device=self._device)

    @property
    def _numeric(self) -> Numeric:
        return "float64" if self.exact.like.dtype == torch.float64 else "float32"

    @property
    def _device(self) -> torch.device:
        return self.network.like.device
