"""One frame into a packet and back.

Two networks of the same weights take part. What decides on tables runs in ``exact``, in
both encoder and decoder, and so do the pixels that later frames refer to. What only the
encoder computes, its symbols, runs in ``network``, the weights' own type.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lightning_modules.dual_domain.attempts import Attempt, attempts
from lightning_modules.dual_domain.design import LATENT_STRIDE
from lightning_modules.dual_domain.network import (
    DualDomainNetwork,
    Mode,
    Reference,
    State,
)
from lightning_modules.dual_domain.options import Numeric
from lightning_modules.dual_domain.packets import Head, read_head, round_quality
from lightning_modules.dual_domain.ports import DecodePort, EncodePort
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.frames import as_shown, pad_to_multiple, padded_size
from lightning_modules.packets import (
    DesyncError,
    Packet,
    Pending,
    pending,
    read_symbols,
)


@dataclass(eq=False)
class FrameCoder:
    """Codes and decodes frames; what passes between them is a value of the caller's.

    Attributes:
        network: For what the encoder alone computes.
        exact: The same in the type that chooses tables; says which in each packet.
        tables: Of the codec.
        modes: The ways to code a frame after a state that are tried.
        estimated: Compare them by their estimated bits, and not by real ones.
    """

    network: DualDomainNetwork
    exact: DualDomainNetwork
    tables: dict[str, CdfTables]
    modes: Callable[[State], list[Mode]]
    estimated: bool

    def encode(
        self,
        frame: Tensor,
        rate: float,
        state: State,
        *,
        reconstruct: bool = False,
    ) -> tuple[Pending, State]:
        """Code one frame, the way that takes the fewest bits.

        Args:
            frame: (3, H, W), RGB in [0, 1].
            rate: Quality, in [0, 1].
            state: What it may refer to; () for an intra frame.
            reconstruct: Whether the packet carries ``x_hat`` and ``estimated_bits``.
        """
        height, width = frame.shape[-2:]
        here = frame[None].to(self.network.like.device)
        padded = pad_to_multiple(here, LATENT_STRIDE)
        value = round_quality(rate)
        quality = self._quality(value)
        estimate = reconstruct or self.estimated
        tried = attempts(
            self.network,
            self.exact,
            padded,
            quality,
            state,
            self.modes(state),
            partial(EncodePort, self.tables, estimate, self.estimated),
        )
        if self.estimated:
            tried = [min(tried, key=lambda attempt: attempt.port.bits)]
        units = [self._pending(attempt, value) for attempt in tried]
        best, unit = tried[0], units[0]
        if len(tried) > 1:
            packets = [packet for each in units for packet in each.make()]
            sizes = [len(packet.payload) for packet in packets]
            fewest = sizes.index(min(sizes))
            best, unit = tried[fewest], Pending(lambda: [packets[fewest]])
        pixels, left = self.exact.finish(best.coded, best.seen, best.flow, quality)
        x_hat = as_shown(pixels[..., :height, :width]) if reconstruct else None

        def make() -> list[Packet]:
            (packet,) = unit.make()
            bits = best.port.bits if reconstruct else None
            return [replace(packet, x_hat=x_hat, estimated_bits=bits)]

        return Pending(make), self._after(left, best.seen)

    def _pending(self, attempt: Attempt[EncodePort], value: float) -> Pending:
        references, doubts = len(attempt.seen), attempt.port.doubts
        head = Head(attempt.mode, references, value, self._numeric, doubts)
        return pending(head.to_bytes(), attempt.port, 1)

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
            port.expect(self.exact.symbols(head.mode, shape))
            flow = self.exact.code_motion(head.mode, None, quality, shape, port)
            coded = self.exact.code(None, seen, flow, quality, shape, port)
        pixels, left = self.exact.finish(coded, seen, flow, quality)
        return as_shown(pixels[0, :, :height, :width]), self._after(left, seen)

    def _after(self, left: Reference, seen: State) -> State:
        return (left, *seen)[: self.network.options.references]

    def _quality(self, value: float) -> Tensor:
        return self.exact.like.new_tensor([value])

    @property
    def _numeric(self) -> Numeric:
        return "float64" if self.exact.like.dtype == torch.float64 else "float32"
