"""VideoVAE as a video codec: padding, groups of pictures, packets, what loss does.

A group of pictures is one packet and refers to no other. Two things hold it together
with its neighbours: a shared frame, if groups overlap, and nothing else.

Every network runs on one group at a time, whatever ``gop_batch`` is: convolutions and
products choose their order of additions by the batch too, so a batch of four would not
give the bits of four batches of one, and one flipped probability would turn the rest of
a stream to noise. Groups run side by side instead, where a device can do that.

Source: the paper's sections on the framework, the latent codec and overlapping groups.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor

from lightning_modules.clock import uncounted
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
    SilentPort,
)
from lightning_modules.entropy.priors import HYPER_STRIDE
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.entropy.z_prior import PriorForm
from lightning_modules.frames import (
    as_shown,
    pad_frames,
    pad_to_multiple,
    padded_size,
)
from lightning_modules.latents import Latents
from lightning_modules.layers import at_least_float32
from lightning_modules.packets import Packet, Pending, Received, pending, read_symbols
from lightning_modules.video_vae.backbone import SPACE_STRIDE, TIME_STRIDE
from lightning_modules.video_vae.backbones import build_backbone
from lightning_modules.video_vae.context import Y_LEVELS, channel_groups
from lightning_modules.video_vae.cv_vae_blocks import Attention, ResidualBlock
from lightning_modules.video_vae.gops import Gop, cut, join, padded_length
from lightning_modules.video_vae.latent_codec import Bottleneck, LatentCodec
from lightning_modules.video_vae.lean_vae import TokenLayer
from lightning_modules.video_vae.options import CodingOptions
from lightning_modules.video_vae.packets import MAX_FRAMES, MAX_TILE, Head
from lightning_modules.video_vae.released import refuse_alone, released_weights
from lightning_modules.video_vae.side_by_side import side_by_side
from lightning_modules.video_vae.tiling import Tiling, decode_in_tiles, encode_in_tiles

Item = TypeVar("Item")

NARROWER = {"paper": 1, "small": 2, "mini": 4, "tiny": 4}
"""Divisor of the latent's channels and of the latent codec's widths."""

STREAMS_PER_GOP = 64
"""Noise streams kept for a group: one for z, two for each group of channels."""


class VideoVAECodec(VideoCodec):
    """A video VAE with a latent codec on its latent, for perceptual quality.

    Args:
        size: Widths: ``paper``, ``small``, ``mini`` or ``tiny`` (CPU rehearsals).
        backbone: The video VAE: ``cv_vae`` (the paper's) or ``lean_vae`` (51 times
            fewer operations).
        channels: Of the latent, 64, 128 or 192 in the paper; ``small`` has a
            half of them, ``mini`` and ``tiny`` have a quarter.
        half_3d: CV-VAE only: whether the second convolution of a block sees one frame
            only, as in the released weights.
        norm: CV-VAE only: what a group normalisation takes its statistics from, the
            whole ``clip`` (released weights) or each ``frame``.
        halvings: How often y's sides are half of the VAE's latent's: 0, 1 or 2.
        frames_per_unit: Frames of a group of pictures, 4 n + 1.
        overlap: Whether groups share their outer frames, unless :meth:`configure` says
            otherwise. It changes no weight.
        z_prior: Form of the hyper-latent's distribution: CompressAI's ``bottleneck``
            (new models', by their configuration), or ``scalar``, with one unit between
            its layers (of all models that do not name one).
        lmbda: The one lambda of the model, which is what its rate is called. The paper
            trains one model each for 0.05, 0.1 and 0.2, from few bits to many.

    Raises:
        ValueError: An argument is out of range, or two exclude each other.
    """

    coding_options = CodingOptions
    coding: CodingOptions
    can_graph = True
    # There the gradients of 3-D kernels are wrong in bfloat16, even NaN (oneDNN of
    # torch 2.15).
    autocasts_on_cpu = False
    compiled_blocks = (Attention, Bottleneck, ResidualBlock, TokenLayer)

    def __init__(
        self,
        size: Literal["paper", "small", "mini", "tiny"] = "paper",
        backbone: Literal["cv_vae", "lean_vae"] = "cv_vae",
        channels: int = 128,
        half_3d: bool = True,
        norm: Literal["clip", "frame"] = "clip",
        halvings: int = 1,
        frames_per_unit: int = 9,
        overlap: bool = True,
        z_prior: PriorForm = "scalar",
        lmbda: float = 0.2,
    ) -> None:
        super().__init__(
            size=size,
            backbone=backbone,
            channels=channels,
            half_3d=half_3d,
            norm=norm,
            halvings=halvings,
            frames_per_unit=frames_per_unit,
            overlap=overlap,
            z_prior=z_prior,
            lmbda=lmbda,
        )
        if size not in NARROWER:
            raise ValueError(f"size {size!r} is unknown: choose from {list(NARROWER)}")
        if channels < 16 or channels % 16:
            raise ValueError(
                f"channels is {channels}: it must be a multiple of 16, as 64, 128, 192"
            )
        if halvings not in (0, 1, 2):
            raise ValueError(f"halvings is {halvings}: choose 0, 1 or 2")
        if not 5 <= frames_per_unit <= MAX_FRAMES or frames_per_unit % TIME_STRIDE != 1:
            raise ValueError(
                f"frames_per_unit is {frames_per_unit}: it must be 4 n + 1, as 9, from "
                f"5 to {MAX_FRAMES}"
            )
        if not lmbda > 0:
            raise ValueError(f"lmbda is {lmbda}: it must be above 0")
        self.rate_knob = RateKnob("lmbda", lmbda, lmbda, (lmbda,))
        self.frames_per_unit = frames_per_unit
        self.latent_stride = SPACE_STRIDE << halvings
        self.pad_multiple = self.latent_stride * HYPER_STRIDE
        self.configure(gop_overlap=overlap)
        narrower = NARROWER[size]
        self.backbone = build_backbone(
            backbone, size, channels // narrower, half_3d=half_3d, norm=norm
        )
        groups = tuple(each // narrower for each in channel_groups(channels))
        self.latent_codec = LatentCodec(
            channels // narrower, halvings, groups, z_prior, narrower
        )

    def check_coding(self, coding: CodingOptions) -> None:
        """Refuse tiles of a side that cannot be."""
        _tiling(coding.tile)

    def find_released(self, weights: Mapping[str, Tensor]) -> Released | None:
        """Return the published weights of CV-VAE or LeanVAE as the backbone's."""
        return released_weights(weights, self.state_dict())

    @classmethod
    def from_released(cls, weights: Mapping[str, Tensor], path: Path) -> None:
        """Refuse the published weights of CV-VAE or LeanVAE, which are a backbone's."""
        refuse_alone(weights, path)

    # Training and estimates.

    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably; see :meth:`VideoCodec.forward`.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1].
            rate: (B,), the model's lambda.
            conditions: All optional. ``seeds`` (B,) int64: per-sample noise of the
                rate estimate (training draws it where absent). ``uncoded`` bool:
                whether the clip passes through the video VAE alone, for no bits.

        Returns:
            ``x_hat`` is clamped to [0, 1] in eval mode only, so that training feels
            how far it overshoots. ``parts`` has the bits of ``y`` and ``z``.
        """
        on = self.autocasts_on_cpu and torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            return self._forward(clip, conditions)

    def _forward(self, clip: Tensor, conditions: dict[str, Tensor]) -> CodecOutput:
        batch, count, _, height, width = clip.shape
        seeds = conditions.get("seeds")
        if seeds is None and self.training:
            seeds = torch.randint(0, 2**62, (batch,), device=clip.device)
        uncoded = "uncoded" in conditions and bool(conditions["uncoded"])
        self.backbone.checkpoint_activations = (
            self.checkpoint_activations and self.training
        )
        no_bits = torch.zeros(batch, device=clip.device)
        pixels: list[Tensor] = []
        bits: list[Tensor] = []
        held: Tensor | None = None
        for number, gop in enumerate(self._cut(range(count))):
            first = gop.frames[0]
            latent = self._latent(clip[:, first : gop.frames[-1] + 1])
            port = EstimatePort(seeds, number * STREAMS_PER_GOP, samples=batch)
            if not uncoded:
                latent = self.latent_codec(latent, port)
            decoded = self.backbone.decode(latent)[..., :height, :width]
            complete, held = join(
                at_least_float32(decoded),
                gop.shown,
                gop.blends,
                held,
                self.coding.gop_theta,
            )
            pixels.append(complete)
            by_part = [port.parts.get(part, no_bits) for part in ("y", "z")]
            spent = torch.stack(by_part) / gop.shown
            bits.append(spent[..., None].expand(-1, -1, gop.shown))
        x_hat = torch.cat(pixels, dim=1)
        y_bits, z_bits = torch.cat(bits, dim=-1)
        return CodecOutput(
            x_hat if self.training else as_shown(x_hat),
            y_bits + z_bits,
            parts={} if uncoded else {"y": y_bits, "z": z_bits},
        )

    def _cut(self, frames: Iterable[Item]) -> Iterator[Gop[Item]]:
        return cut(frames, self.frames_per_unit, self.coding.gop_overlap)

    def _latent(self, frames: Tensor, tile: int = 0) -> Tensor:
        """Pad a group (B, T, 3, H, W) and return the video VAE's latent of it."""
        frames = pad_frames(frames.to(self.like), padded_length(frames.shape[1]))
        padded = pad_to_multiple(frames.flatten(0, 1), self.pad_multiple)
        padded = padded.unflatten(0, frames.shape[:2])
        return encode_in_tiles(self.backbone, padded, _tiling(tile))

    # Packets.

    def _compress(
        self, frames: Iterator[Tensor], schedule: Schedule, reconstruct: bool
    ) -> Iterator[Pending]:
        """Code frames; see :meth:`VideoCodec.compress`.

        The intra period changes nothing: every group of pictures is a start without a
        reference already.
        """
        tile, theta = self.coding.tile, self.coding.gop_theta
        held: Tensor | None = None
        first = 0
        for batch in _batches(self._cut(frames), self.coding.gop_batch):
            for gop in batch:
                # For the check alone: there is one lambda.
                schedule.rate_at(first)
                first += gop.shown
            clips = [torch.stack(gop.frames) for gop in batch]
            analyses = [partial(self._analyse, clip) for clip in clips]
            ys = side_by_side(analyses, self.like.device)
            ports = [encode_port(self.tables, reconstruct, self.like) for _ in batch]
            y_hats = [
                self.walk(self.latent_codec.code, y, tuple(y.shape), port)
                for y, port in zip(ys, ports, strict=True)
            ]
            shown: list[Tensor | None] = [None] * len(batch)
            if reconstruct:
                size = clips[0].shape[-2:]
                syntheses = [partial(self._synthesise, y, tile, *size) for y in y_hats]
                with uncounted():
                    decoded = side_by_side(syntheses, self.like.device)
                for number, gop in enumerate(batch):
                    complete, held = join(
                        decoded[number], gop.shown, gop.blends, held, theta
                    )
                    shown[number] = as_shown(complete)
            for gop, port, x_hat in zip(batch, ports, shown, strict=True):
                length = padded_length(len(gop.frames))
                head = Head(length, gop.blends, tile, round(100 * theta))
                yield pending(head.to_bytes(), port, gop.shown, x_hat)

    def _analyse(self, frames: Tensor) -> Tensor:
        """Return y (1, C, t, h, w) of a group (T, 3, H, W)."""
        y: Tensor = self.latent_codec.encoder(
            self._latent(frames[None], self.coding.tile)
        )
        return y

    def _synthesise(self, y_hat: Tensor, tile: int, height: int, width: int) -> Tensor:
        """Return a group (T, 3, H, W), not clamped, of y_hat (1, C, t, h, w)."""
        latent = self.latent_codec.decoder(y_hat)
        frames = decode_in_tiles(self.backbone, latent, _tiling(tile))
        return at_least_float32(frames[0, ..., :height, :width])

    def _receive(
        self, packets: Iterable[Packet | None], height: int, width: int, scales: int
    ) -> Iterator[Received]:
        """Decode packets; see :meth:`VideoCodec.receive`.

        A lost packet shows the frame before its group again (the one that they share,
        where groups overlap; mid grey before the first), for as many frames as the
        last packet completed. The group after it shows its own copy of a shared frame.
        A last group may be one frame longer: if it is lost, one more frame is shown.
        """
        usual = self.frames_per_unit - self.coding.gop_overlap
        last = torch.full((), 0.5).expand(3, height, width)
        held: Tensor | None = None
        lost = False
        decodable = self._decodable(packets, height, width)
        for batch in _batches(decodable, self.coding.gop_batch):
            jobs: list[Callable[[], Tensor]] = [
                partial(self._synthesise, each[1], each[0].tile, height, width)
                for each in batch
                if each is not None
            ]
            groups = iter(side_by_side(jobs, self.like.device))
            for each in batch:
                lost = each is None
                if each is None:
                    if held is not None and len(held):
                        last = as_shown(held[0])
                    held = None
                    yield from (Received(last) for _ in range(usual))
                    continue
                head, _, usual = each
                theta = head.percent / 100
                complete, held = join(next(groups), usual, head.blends, held, theta)
                frames = as_shown(complete)
                last = frames[-1]
                yield from map(Received, frames)
        if lost:
            missing = range(usual, self.frames_per_unit)
            yield from (Received(last) for _ in missing)

    def _decodable(
        self, packets: Iterable[Packet | None], height: int, width: int
    ) -> Iterator[tuple[Head, Tensor, int] | None]:
        """Give each packet's head, its y_hat (1, C, t, h, w) and what it completes."""
        for packet in packets:
            if packet is None:
                yield None
                continue
            head = Head.read(packet)
            shape = self._y_shape(head.frames, height, width)
            with read_symbols(packet, len(head.to_bytes())) as decoder:
                port = decode_port(decoder, self.tables, self.like)
                port.expect(self.latent_codec.symbols(shape))
                y_hat = self.walk(self.latent_codec.code, None, shape, port)
            yield head, y_hat, packet.frames

    def _y_shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        padded = padded_size(height, width, self.pad_multiple)
        rows, columns = (side // self.latent_stride for side in padded)
        steps = frames // TIME_STRIDE + 1
        return 1, self.latent_codec.channels, steps, rows, columns

    # The rest of the contract.

    @property
    def cycle(self) -> int:
        """The frames from one group of pictures to the next."""
        return self.frames_per_unit - self.coding.gop_overlap

    def boundaries(self, frames: int) -> list[int]:
        """Return where groups of pictures meet; see :meth:`VideoCodec.boundaries`.

        A shared frame is neither all of one group nor of the other: with overlap both
        it and the one after it are listed.
        """
        found: list[int] = []
        for gop in self._cut(range(frames)):
            if gop.frames[0]:
                found += gop.frames[: 1 + gop.blends]
        return found

    @property
    def latents(self) -> Latents:
        """The y of a group, shared frames in it; see the base class."""
        block = self.frames_per_unit, self.latent_stride, self.latent_stride
        steps = self.frames_per_unit // TIME_STRIDE + 1
        return Latents(block, {"y": steps * self.latent_codec.channels})

    def build_tables(self) -> dict[str, CdfTables]:
        """Return the Gaussian tables of y and the factorised ones of z."""
        return {"y": Y_LEVELS.tables(), "z": self.latent_codec.prior.tables()}

    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return a whole group's work; see the base class.

        ``encode`` leaves out the decoders of VAE and latent, ``decode`` the encoders.
        ``latent_codec`` is all of the latent codec, once: its share of both.
        """
        shape = self._y_shape(self.frames_per_unit, height, width)
        rows, columns = (side * self.latent_stride for side in shape[-2:])
        frames = self.like.new_zeros(self.frames_per_unit, 3, rows, columns)
        sides = (side * self.latent_stride // SPACE_STRIDE for side in shape[-2:])
        latent = self.like.new_zeros(*shape[:3], *sides)
        codec, port = self.latent_codec, SilentPort()

        def decode() -> Tensor:
            y_hat = codec.code(None, shape, port)
            return self._synthesise(y_hat, 0, height, width)

        return {
            "encode": lambda: codec.code(self._analyse(frames), shape, port),
            "decode": decode,
            "latent_codec": partial(codec, latent, port),
        }

    def networks_of_groups(
        self, clips: Tensor
    ) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
        """Return the networks on several groups; see the base class.

        ``encode`` is the encoders of VAE and latent, ``decode`` their decoders. Coding
        never takes the batch.
        """

        def analyse(clips: Tensor) -> Tensor:
            y: Tensor = self.latent_codec.encoder(self._latent(clips))
            return y

        def synthesise(y_hats: Tensor) -> Tensor:
            return self.backbone.decode(self.latent_codec.decoder(y_hats))

        with torch.inference_mode():
            y_hats = analyse(clips).round()
        works = {"encode": (analyse, clips), "decode": (synthesise, y_hats)}
        return {
            name: (partial(_one_by_one, network, given), partial(network, given))
            for name, (network, given) in works.items()
        }


def _one_by_one(network: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    return torch.cat([network(each) for each in batch.split(1)])


def _tiling(side: int) -> Tiling | None:
    """Return tiles that overlap by the 22 % of arXiv 2405.20279's code; none for 0."""
    if side == 0:
        return None
    if not 0 < side <= MAX_TILE or side % SPACE_STRIDE:
        raise ValueError(
            f"a tile of {side} pixels: give a multiple of {SPACE_STRIDE} up to "
            f"{MAX_TILE}, as 576, or 0 for whole frames"
        )
    return Tiling(side, side * 2 // (9 * SPACE_STRIDE) * SPACE_STRIDE)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Give items in lists; if one cannot be had, those before it come first."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
