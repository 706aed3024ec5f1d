"""ScaleSpaceFlow as a video codec: one walk through CompressAI's network.

The walk serves encoder, decoder and training: each latent goes to a port, and only the
decoder has no latents of its own. The library walks three times for that, and writes
each latent as a string of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.codec import (
    CodecOutput,
    RateKnob,
    Released,
    Schedule,
    VideoCodec,
)
from lightning_modules.entropy.device_ports import decode_port, encode_port
from lightning_modules.entropy.ports import (
    EstimatePort,
    Port,
    SilentPort,
)
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.entropy.transfers import upload
from lightning_modules.frames import as_shown, pad_to_multiple, padded_size
from lightning_modules.latents import Latents
from lightning_modules.layers import at_least_float32
from lightning_modules.packets import (
    DesyncError,
    Packet,
    Pending,
    Received,
    pending,
    read_symbols,
    refuse_overflow,
)
from lightning_modules.scale_space_flow.entropy_model import (
    LEVELS,
    Bottleneck,
    code_latent,
    hyper_shape,
)
from lightning_modules.scale_space_flow.network import (
    NARROWER,
    PARTS,
    build_network,
    predict,
)
from lightning_modules.scale_space_flow.released import (
    SIZE,
    is_released,
    quality_of,
    released_weights,
)

LATENT_STRIDE = 16
STREAMS_PER_FRAME = 4
"""Noise streams kept for a frame: two for each of at most two latents."""
QUANTILES_WEIGHT = 1e-4
"""On the loss of the bottlenecks' quantiles, of which Adam takes the direction alone:
so little that it hardly counts where gradients are clipped by their norm."""


class ScaleSpaceFlowCodec(VideoCodec):
    """A first frame alone, then motion and residual of one frame after the other.

    Args:
        size: Widths: ``paper`` (CompressAI's), ``small`` or ``tiny`` (CPU rehearsals).
        lmbda: The one lambda of the model, which is what its rate is called.

    Raises:
        ValueError: An argument is out of range.
    """

    frames_per_unit = 1
    pad_multiple = LATENT_STRIDE
    can_graph = True
    loss_terms = ("quantiles",)

    def __init__(
        self, size: Literal["paper", "small", "tiny"] = "paper", lmbda: float = 0.01
    ) -> None:
        super().__init__(size=size, lmbda=lmbda)
        if size not in NARROWER:
            raise ValueError(f"size {size!r} is unknown: choose from {list(NARROWER)}")
        if not lmbda > 0:
            raise ValueError(f"lmbda is {lmbda}: it must be above 0")
        self.rate_knob = RateKnob("lmbda", lmbda, lmbda, (lmbda,))
        self.network: Any = build_network(size)

    def find_released(self, weights: Mapping[str, Tensor]) -> Released | None:
        """Return the weights of CompressAI's zoo, ``ssf2020``."""
        return released_weights(weights, dict(self.named_parameters()), "network.")

    @classmethod
    def from_released(cls, weights: Mapping[str, Tensor], path: Path) -> Self | None:
        """Build the codec of a file of CompressAI's zoo, ``ssf2020-mse-4-577c1eda``.

        Its rate is called ``quality``, and is that of the file's name: the lambdas of
        these models are not published.
        """
        if not is_released(weights):
            return None
        quality = quality_of(path)
        codec = cls(SIZE)
        released = codec.find_released(weights)
        assert released is not None, "they are"
        own = codec.state_dict()
        codec.load_state_dict({k: released.weights.get(k, v) for k, v in own.items()})
        codec.rate_knob = RateKnob("quality", quality, quality, (quality,))
        codec.name_as({"size": SIZE})
        codec.trained_with = {"released": released.kind}
        return codec

    # The walk.

    def _frame(
        self,
        frame: Tensor | None,
        reference: Tensor | None,
        size: tuple[int, int],
        port: Port,
    ) -> Tensor:
        """Code a frame and return it as the next one refers to it, not clamped.

        Args:
            frame: (N, 3, height, width), padded; ``None`` to decode.
            reference: The frame before it; ``None`` if it refers to none.
            size: Its height and width.
            port: Takes or gives the symbols.
        """
        network = self.network
        if reference is None:
            latent = self._code("img", frame, size, port)
            return at_least_float32(network.img_decoder(latent))
        both = None if frame is None else torch.cat([frame, reference.to(frame)], dim=1)
        motion = self._code("motion", both, size, port)
        predicted = predict(network, reference, network.motion_decoder(motion))
        missing = None if frame is None else (frame - predicted).to(frame)
        residual = self._code("res", missing, size, port)
        pixels = network.res_decoder(torch.cat([residual, motion], dim=1))
        return predicted + at_least_float32(pixels)

    def _code(
        self, part: str, pictures: Tensor | None, size: tuple[int, int], port: Port
    ) -> Tensor:
        """Code the latent (N, C, h, w) of one part of a frame and return it."""
        encoder = getattr(self.network, f"{part}_encoder")
        hyperprior = getattr(self.network, f"{part}_hyperprior")
        y = None if pictures is None else encoder(pictures)
        shape = self._latent_shape(part, 1 if y is None else len(y), size)
        return code_latent(hyperprior, part, y, shape, port)

    def _latent_shape(
        self, part: str, samples: int, size: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        encoder = getattr(self.network, f"{part}_encoder")
        rows, columns = (side // LATENT_STRIDE for side in size)
        return samples, encoder[-1].out_channels, rows, columns

    # Training and estimates.

    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably; see :meth:`VideoCodec.forward`.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1].
            rate: (B,), the model's lambda.
            conditions: ``seeds`` (B,) int64, optional: per-sample noise of the rate
                estimate (training draws it where absent).

        Returns:
            ``x_hat`` is clamped to [0, 1] in eval mode only, so that training feels
            how far it overshoots. ``parts`` has the bits of each of ``PARTS``.
        """
        batch, _, _, height, width = clip.shape
        seeds = conditions.get("seeds")
        if seeds is None and self.training:
            seeds = torch.randint(0, 2**62, (batch,), device=clip.device)

        def run(frame: Tensor, reference: Tensor | None, number: int) -> Any:
            port = EstimatePort(seeds, number * STREAMS_PER_FRAME, samples=batch)
            pixels = self._frame(frame, reference, _sides(frame), port)
            none = pixels.new_zeros(batch)
            return pixels, torch.stack([port.parts.get(part, none) for part in PARTS])

        pixels: list[Tensor] = []
        bits: list[Tensor] = []
        reference: Tensor | None = None
        for number, frame in enumerate(clip.unbind(1)):
            padded = pad_to_multiple(frame.to(self.like), self.pad_multiple)
            if self.checkpoint_activations and self.training:
                x_hat, spent = checkpoint(
                    run, padded, reference, number, use_reentrant=False
                )
            else:
                x_hat, spent = run(padded, reference, number)
            # The first frame learns nothing from those that refer to it.
            reference = x_hat if number else x_hat.detach()
            pixels.append(x_hat[..., :height, :width])
            bits.append(spent)
        shown = torch.stack(pixels, dim=1)
        parts = dict(zip(PARTS, torch.stack(bits, dim=-1), strict=True))
        terms = {}
        if self.training and "quantiles" in self.weighed_terms:
            with torch.autocast(clip.device.type, enabled=False):
                losses = torch.stack(self.network.aux_loss())
            terms["quantiles"] = QUANTILES_WEIGHT * losses.sum()
        return CodecOutput(
            shown if self.training else as_shown(shown),
            torch.stack([*parts.values()]).sum(0),
            terms,
            parts,
        )

    # Packets.

    def _compress(
        self, frames: Iterator[Tensor], schedule: Schedule, reconstruct: bool
    ) -> Iterator[Pending]:
        """Code frames; see :meth:`VideoCodec.compress`.

        Raises:
            OverflowingError: The recurrence overflows.
        """
        reference: Tensor | None = None
        for number, frame in enumerate(frames):
            rate = schedule.rate_at(number)
            if schedule.starts(number):
                reference = None
            head = bytes([reference is None])
            port = encode_port(self.tables, reconstruct, self.like)
            here = upload(frame[None], self.like)
            padded = pad_to_multiple(here, self.pad_multiple)
            reference = self.walk(self._frame, padded, reference, _sides(padded), port)
            refuse_overflow(port, reference, number, rate)
            height, width = _sides(frame)
            shown = as_shown(reference[..., :height, :width]) if reconstruct else None
            yield pending(head, port, 1, shown)

    def _receive(
        self, packets: Iterable[Packet | None], height: int, width: int, scales: int
    ) -> Iterator[Received]:
        """Decode packets; see :meth:`VideoCodec.receive`.

        Where one is lost, the frame before it is shown again (mid grey before the
        first). The next one moves that frame and adds to it; what symbols cost does not
        depend on it.
        """
        size = padded_size(height, width, self.pad_multiple)
        reference = self.like.new_full((), 0.5).expand(1, 3, *size)
        for packet in packets:
            if packet is not None:
                before = None if _starts(packet) else reference
                with read_symbols(packet, 1) as decoder:
                    port = decode_port(decoder, self.tables, self.like)
                    port.expect(self._symbols(size, alone=before is None))
                    reference = self.walk(self._frame, None, before, size, port)
            yield Received(as_shown(reference[0, :, :height, :width]))

    def _symbols(self, size: tuple[int, int], *, alone: bool) -> Counter[str]:
        """Return how many symbols a frame takes, by the names of tables."""
        found: Counter[str] = Counter()
        for part in ("img",) if alone else ("motion", "res"):
            shape = self._latent_shape(part, 1, size)
            found.update({part: prod(hyper_shape(shape)), "y": prod(shape)})
        return found

    # The rest of the contract.

    @property
    def latents(self) -> Latents:
        """A residual's y, which has as many numbers as a first frame's.

        Motion is not counted, though the decoder of residuals sees it too.
        """
        block = 1, LATENT_STRIDE, LATENT_STRIDE
        y = prod(self._latent_shape("res", 1, block[1:]))
        return Latents(block, {"y": y}, "motion is not counted")

    def build_tables(self) -> dict[str, CdfTables]:
        """Return the Gaussian tables of latents and each bottleneck's."""
        bottlenecks = {
            part: getattr(self.network, f"{part}_hyperprior").entropy_bottleneck
            for part in PARTS
        }
        tables = {part: Bottleneck(each).tables() for part, each in bottlenecks.items()}
        return {"y": LEVELS.tables(), **tables}

    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return a frame that refers to another; ``encode`` decodes too."""
        size = padded_size(height, width, self.pad_multiple)
        frame = self.like.new_zeros(1, 3, *size)
        port = SilentPort()
        return {
            "encode": lambda: self._frame(frame, frame, size, port),
            "decode": lambda: self._frame(None, frame, size, port),
        }


def _starts(packet: Packet) -> bool:
    if not packet.payload:
        raise DesyncError("a packet without bytes does not say what it refers to")
    return bool(packet.payload[0])


def _sides(frame: Tensor) -> tuple[int, int]:
    """Return the height and width of (..., H, W)."""
    height, width = frame.shape[-2:]
    return height, width
