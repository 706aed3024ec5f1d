"""UI2C as a video codec: colour, padding, units, references and bytes.

Source: arXiv 2510.14431, sections 3.2 to 3.4.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import count, islice
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from datamodules.yuv import rgb_to_yuv, yuv_to_rgb
from lightning_modules.clock import uncounted
from lightning_modules.codec import CodecOutput, RateKnob, Schedule
from lightning_modules.entropy.device_ports import decode_port, encode_port
from lightning_modules.entropy.ports import DecodePort, EncodePort, EstimatePort, Port
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.entropy.transfers import upload
from lightning_modules.float32 import exact
from lightning_modules.frames import as_shown, pad_frames, pad_to_multiple, padded_size
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
from lightning_modules.ui2c.blocks import DepthConvBlock, ResDown, ResUp
from lightning_modules.ui2c.integers import Twin
from lightning_modules.ui2c.intra import IntraNetwork
from lightning_modules.ui2c.network import (
    LATENT_STRIDE,
    QP_BIAS,
    QP_COUNT,
    Y_LEVELS,
    UI2CNetwork,
    Unit,
    latent_size,
    widths_of,
)
from lightning_modules.ui2c.options import CodingOptions
from lightning_modules.ui2c.released import ReleasedCodec
from lightning_modules.ui2c.units import (
    BLANK,
    INTEGERS,
    REFRESHED,
    START,
    State,
    read_side,
    refuse_graphs,
    side_of,
    slot_qps,
    unit_qp,
)

STREAMS_PER_UNIT = 8
"""Noise streams kept for a unit: one for z and one per coding step."""


class UI2CCodec(ReleasedCodec):
    """Unified intra and inter coding of two frames at once.

    Args:
        size: Widths: ``paper`` (46.7 M parameters), ``small`` (trained in hours of a
            CPU), ``small_48`` (an earlier ``small``) or ``tiny`` (rehearsals).
        frames_per_unit: 2 (the paper) or 1 (DCVC-RT's P model).
        divided: Code the first frame with DCVC-RT's separate intra model (ablation,
            with ``frames_per_unit`` 1).
        input_offset: Subtracted from YUV in [0, 1]; 0.5 makes the blank reference,
            which is all zeros, a mid grey.
        skip_threshold: Residuals whose scale is not above it are not coded; 0 codes
            everything.

    Raises:
        ValueError: An argument is out of range, or two exclude each other.
    """

    rate_knob = RateKnob("qp", 0, QP_COUNT - 1, (0, 21, 42, 63))
    pad_multiple = LATENT_STRIDE
    coding_options = CodingOptions
    coding: CodingOptions
    can_graph = True
    former = MappingProxyType({"refresh": 0})
    compiled_blocks = (DepthConvBlock, ResDown, ResUp)
    qp_bias: Tensor

    def __init__(
        self,
        size: Literal["paper", "small", "small_48", "tiny"] = "paper",
        frames_per_unit: int = 2,
        divided: bool = False,
        input_offset: float = 0.5,
        skip_threshold: float = 0.0,
    ) -> None:
        super().__init__(
            size=size,
            frames_per_unit=frames_per_unit,
            divided=divided,
            input_offset=input_offset,
            skip_threshold=skip_threshold,
        )
        widths = widths_of(size, frames_per_unit)
        if divided and frames_per_unit != 1:
            raise ValueError(
                "divided models code one frame at a time: set "
                "frames_per_unit to 1, or divided to false"
            )
        self.frames_per_unit = self.start_multiple = frames_per_unit
        self.input_offset = input_offset
        # Not made where it is needed: a copy to the device waits for all of its work.
        self.register_buffer("qp_bias", torch.tensor(QP_BIAS), persistent=False)
        self._twin: Twin[UI2CCodec] = Twin()
        self.network: UI2CNetwork = UI2CNetwork(widths, frames_per_unit, skip_threshold)
        self.intra: IntraNetwork | None = (
            IntraNetwork(
                widths.trunk * 23 // 16,  # 368 at the paper's 256.
                widths.image_latent,
                widths.hyper,
                QP_COUNT,
                skip_threshold,
            )
            if divided
            else None
        )

    def check_coding(self, coding: CodingOptions) -> None:
        """Refuse refreshes within a unit, and a start that is the only one anyway."""
        coding.check(self.frames_per_unit, divided=self.intra is not None)
        if coding.start == "blank":
            self.refuse_inter()

    @property
    def exact(self) -> bool:
        """Whether decoders show the same frames whatever they run with."""
        return self.coding.arithmetic == "integer" or super().exact

    @property
    def in_integers(self) -> "UI2CCodec":
        """The same codec, with all that decoders run in integers."""
        twin = self._twin.of(self, network="recon_out", intra="recon")
        twin.coding = replace(self.coding, arithmetic="float")
        return twin

    def train(self, mode: bool = True) -> "UI2CCodec":
        """Switch mode; going back to training drops the copy of the weights."""
        if mode:
            self._twin = Twin()
        super().train(mode)
        return self

    @property
    def starts_with_intra(self) -> bool:
        """Whether the separate intra model codes what starts without a reference."""
        return self.intra is not None and self.coding.start != "blank"

    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably; see :meth:`VideoCodec.forward`.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1].
            rate: (B,), base qp 0..63.
            conditions: All optional. ``reference`` (B, n, 3, H, W): RGB frames that
                the first unit refers to. ``blank`` (B,) bool: samples that refer to
                nothing all the same. ``phase`` (B,) int64: position of the first
                frame in the group of 8. ``refresh_unit`` (B,) int64: unit whose
                reference is refreshed, -1 for none. ``first`` (B, 1, 3, H, W): of
                divided models, the frame before the clip, which the intra model codes
                without gradient and which is not in what is returned. ``seeds`` (B,)
                int64: per-sample noise of the rate estimate (training draws it where
                absent).

        Returns:
            ``x_hat`` is clamped to [0, 1] in eval mode only, so that training feels
            how far it overshoots.
        """
        integers = self.coding.arithmetic == "integer" and not self.training
        codec = self.in_integers if integers else self
        # Whole numbers of float32 are none in TF32.
        with exact(clip.device) if integers else nullcontext():
            units = list(codec._units(clip, rate, conditions))
        return CodecOutput(
            torch.cat([unit.x_hat for unit in units], dim=1),
            torch.cat([unit.bits for unit in units], dim=1),
        )

    def forward_units(
        self, clip: Tensor, rate: Tensor, **conditions: Tensor
    ) -> Iterator[CodecOutput]:
        """Code a clip and give unit after unit; see the base class."""
        return self._units(clip, rate, conditions, apart=True)

    def _units(
        self,
        clip: Tensor,
        rate: Tensor,
        conditions: dict[str, Tensor],
        apart: bool = False,
    ) -> Iterator[CodecOutput]:
        """Code unit after unit, ``apart``: without gradients from one to the other."""
        batch, count, _, height, width = clip.shape
        n = self.frames_per_unit
        base = rate.to(torch.int64)
        seeds = conditions.get("seeds")
        if seeds is None and self.training:
            seeds = torch.randint(0, 2**62, (batch,), device=clip.device)
        phase = conditions.get("phase", torch.zeros_like(base))
        frames = self._to_network(clip)
        state: State | None = None
        start = 0
        if count > 1:
            self.refuse_inter()
        if self.starts_with_intra:
            given = conditions.get("first")
            first = frames[:, :1] if given is None else self._to_network(given)
            port = EstimatePort(seeds)
            with torch.set_grad_enabled(torch.is_grad_enabled() and given is None):
                state = State(1, None, self._intra(first, base, port, first.shape[-2:]))
            if given is None:
                assert state.frames is not None
                x_hat = self._to_rgb(state.frames, height, width)
                yield CodecOutput(x_hat, torch.as_tensor(port.bits)[:, None])
                start = 1
        for unit, position in enumerate(range(start, count, n)):
            if apart and state is not None:
                state = state.detached()
            piece = pad_frames(frames[:, position : position + n], n)
            reference = self._reference(state, piece, conditions, unit)
            if apart:
                reference = reference + self.network.unused_adaptors()
            qps = self._qps(base, phase + position)
            coded, unit_bits = self._unit(piece, reference, qps, seeds, unit + 1)
            shown = min(n, count - position)
            assert coded.frames is not None
            x_hat = self._to_rgb(coded.frames[:, :shown], height, width)
            bits = (unit_bits / shown)[:, None].expand(-1, shown)
            state = State(position + n, coded.feature, coded.frames)
            yield CodecOutput(x_hat, bits)

    def _unit(
        self,
        frames: Tensor,
        reference: Tensor,
        qps: Tensor,
        seeds: Tensor | None,
        number: int,
    ) -> tuple[Unit, Tensor]:
        def run(frames: Tensor, reference: Tensor) -> tuple[Unit, Tensor]:
            port = EstimatePort(seeds, number * STREAMS_PER_UNIT)
            unit = self.network(frames, reference, qps, port)
            return unit, torch.as_tensor(port.bits)

        if not (self.checkpoint_activations and self.training):
            return run(frames, reference)
        out: tuple[Unit, Tensor] = checkpoint(
            run, frames, reference, use_reentrant=False
        )
        return out

    def _reference(
        self,
        state: State | None,
        frames: Tensor,
        conditions: dict[str, Tensor],
        unit: int,
    ) -> Tensor:
        if state is None:
            pixels = torch.zeros_like(frames)
            if "reference" in conditions:
                pixels = self._to_network(conditions["reference"])
                if "blank" in conditions:
                    pixels = pixels * ~conditions["blank"][:, None, None, None, None]
            return self.network.refer_to_pixels(pixels)
        if state.feature is None:
            return self._refreshed(state)
        following = self.network.refer_to_feature(state.feature)
        if "refresh_unit" in conditions:
            chosen = (conditions["refresh_unit"] == unit)[:, None, None, None]
            return torch.where(chosen, self._refreshed(state), following)
        if not self.training and self._refreshes(state):
            return self._refreshed(state)
        return following

    def _refreshes(self, state: State) -> bool:
        return self.coding.refreshes(state.position, self.frames_per_unit)

    def _refreshed(self, state: State) -> Tensor:
        assert state.frames is not None
        low = -self.input_offset
        return self.network.refer_to_pixels(state.frames.clamp(low, low + 1.0))

    def _intra(
        self, frames: Tensor | None, base: Tensor, port: Port, size: tuple[int, ...]
    ) -> Tensor:
        assert self.intra is not None
        frame = None if frames is None else frames[:, 0]
        decoded: Tensor = self.intra(frame, base, port, latent_size(size))
        return decoded[:, None]

    def _qps(self, base: Tensor, position: Tensor) -> Tensor:
        slots = torch.arange(self.frames_per_unit, device=base.device)
        return base[:, None] + self.qp_bias[(position[:, None] + slots) % len(QP_BIAS)]

    def _to_network(self, clip: Tensor) -> Tensor:
        yuv = rgb_to_yuv(clip) - self.input_offset
        padded = pad_to_multiple(yuv.flatten(0, 1), self.pad_multiple)
        return padded.unflatten(0, clip.shape[:2])

    def _to_rgb(self, frames: Tensor, height: int, width: int) -> Tensor:
        yuv = at_least_float32(frames[..., :height, :width]) + self.input_offset
        rgb = yuv_to_rgb(yuv)
        return rgb if self.training else as_shown(rgb)

    def _compress(
        self, frames: Iterator[Tensor], schedule: Schedule, reconstruct: bool
    ) -> Iterator[Pending]:
        """Code frames; see :meth:`VideoCodec.compress`.

        At a rate between two qps some units take the one and some the other; the mean
        of the first n is never further from the rate than 1 / (2 n).

        Raises:
            OverflowingError: The recurrence overflows.
        """
        state: State | None = None
        first = 0
        for unit in count():
            if schedule.starts(first):
                state = None
            intra = self.starts_with_intra and state is None
            group = list(islice(frames, 1 if intra else self.frames_per_unit))
            if not group:
                return
            clip = upload(torch.stack(group)[None], self.like)
            rate = schedule.rate_at(first)
            qp = unit_qp(rate, unit)
            head, port, x_hat, state = self._encode_unit(clip, qp, state, reconstruct)
            if state.feature is not None:
                refuse_overflow(port, state.feature, first, rate)
            first += len(group)
            yield pending(head, port, len(group), x_hat, covers_head=False)

    def _encode_unit(
        self, clip: Tensor, qp: int, state: State | None, reconstruct: bool
    ) -> tuple[bytes, EncodePort, Tensor | None, State]:
        """Take a unit's symbols; return its head, they, what is shown, and a state."""
        shown, height, width = clip.shape[1], *clip.shape[-2:]
        frames = self._to_network(clip)
        intra = self.starts_with_intra and state is None
        if not intra:
            frames = pad_frames(frames, self.frames_per_unit)
        refreshed = state is not None and (
            state.feature is None or self._refreshes(state)
        )
        position = state.position if state is not None else 0
        side = side_of(
            position,
            starts=state is None,
            refreshed=refreshed,
            blank=state is None and self.intra is not None and not intra,
            integers=self.coding.arithmetic == "integer",
        )
        port = encode_port(self.tables, reconstruct, self.like)
        size = frames.shape[-2:]
        state = self._code(frames, size, qp, side, state, port, reconstruct)
        x_hat = None
        if reconstruct:
            assert state.frames is not None
            x_hat = self._to_rgb(state.frames, height, width)[0, :shown]
        return bytes([qp, side]), port, x_hat, state

    def _code(
        self,
        frames: Tensor | None,
        size: tuple[int, ...],
        qp: int,
        side: int,
        state: State | None,
        port: Port,
        reconstruct: bool,
    ) -> State:
        """Code or decode one unit of padded frames; both sides run exactly this."""
        if side & INTEGERS:
            refuse_graphs(self.execution)
            own, side = self.in_integers, side & ~INTEGERS
            return own._code(frames, size, qp, side, state, port, reconstruct)
        if self._is_intra(side):
            base = upload(torch.tensor([qp]), self.qp_bias)
            return State(1, None, self._intra(frames, base, port, size))
        slots = torch.tensor([slot_qps(qp, side, self.frames_per_unit)])
        qps = upload(slots, self.qp_bias)
        position = 0 if state is None else state.position
        if isinstance(port, DecodePort):
            # By qps of the host: the device, still at the last unit, is not asked.
            port.read_ahead(self.network.hyper_latent(slots, *latent_size(size)))
        if state is None:
            blank = self.like.new_zeros(1, self.frames_per_unit, 3, *size)
            reference = self.network.refer_to_pixels(blank)
        elif side & REFRESHED:
            reference = self._refreshed(state)
        else:
            assert state.feature is not None
            reference = self.network.refer_to_feature(state.feature)
        refreshes = bool(self.coding.refresh)
        wanted = reconstruct or refreshes
        # Without refreshes an encoder needs its frames for a viewer alone.
        aside = wanted and frames is not None and not refreshes
        within = wanted and not aside
        unit: Unit = self.walk(self.network, frames, reference, qps, port, within)
        decoded = unit.frames
        if aside:
            with uncounted():
                decoded = self.network.generate(unit.feature, qps)
        return State(position + self.frames_per_unit, unit.feature, decoded)

    def _is_intra(self, side: int) -> bool:
        return self.intra is not None and side & (START | BLANK) == START

    def _receive(
        self, packets: Iterable[Packet | None], height: int, width: int, scales: int
    ) -> Iterator[Received]:
        """Decode packets; see :meth:`VideoCodec.receive`.

        A lost packet, and every one after it that refers to it, shows the last good
        frame again (mid grey before the first), until a unit starts without a
        reference.
        """
        state: State | None = None
        lost = False
        last = torch.full((), 0.5).expand(3, height, width)
        for packet in packets:
            if packet is None or (lost and not read_side(packet)[1] & START):
                lost = True
                shown = self.frames_per_unit if packet is None else packet.frames
                yield from (Received(last) for _ in range(shown))
                continue
            lost = False
            state, decoded = self._decode_unit(packet, state, height, width)
            last = decoded[-1]
            yield from map(Received, decoded)

    def _decode_unit(
        self, packet: Packet, state: State | None, height: int, width: int
    ) -> tuple[State, Tensor]:
        qp, side = read_side(packet)
        if side & START:
            state = None
        elif state is None:
            raise DesyncError("the first unit refers to frames that are not there")
        elif state.feature is None and not side & REFRESHED:
            raise DesyncError("a unit refers to a feature that an intra frame lacks")
        padded = padded_size(height, width, LATENT_STRIDE)
        with read_symbols(packet, 2, covers_head=False) as decoder:
            port = decode_port(decoder, self.tables, self.like)
            network = self.intra if self._is_intra(side) else self.network
            assert network is not None
            port.expect(network.symbols(*latent_size(padded)))
            state = self._code(None, padded, qp, side, state, port, True)
        assert state.frames is not None
        if not 1 <= packet.frames <= state.frames.shape[1]:
            raise DesyncError(f"a unit cannot complete {packet.frames} frames")
        rgb = self._to_rgb(state.frames, height, width)[0, : packet.frames]
        return state, rgb

    @property
    def cycle(self) -> int:
        """The group of 8, by the position in which units change their qp."""
        return len(QP_BIAS)

    @property
    def latents(self) -> Latents:
        """The y of a unit; see the base class."""
        return self.network.latents("" if self.intra is None else self.intra.note)

    def build_tables(self) -> dict[str, CdfTables]:
        """Return the Gaussian tables of y and the factorised ones of z."""
        tables = {"y": Y_LEVELS.tables(), "z": self.network.z_prior.tables()}
        if self.intra is not None:
            tables["z_intra"] = self.intra.z_prior.tables()
        return tables

    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return a steady-state unit's encode and decode; see the base class.

        Encoding ends with the feature that the next unit refers to, as in the
        paper's count; decoding leaves out encoder and hyper-encoder.
        """
        base = torch.zeros(1, dtype=torch.int64, device=self.like.device)
        return self.network.passes(
            padded_size(height, width, LATENT_STRIDE), self._qps(base, base)
        )
