"""The contract of every codec: tensors in, estimated bits or real packets out.

A codec is a plain ``nn.Module``. Training calls :meth:`VideoCodec.forward`;
``encode`` and ``decode`` call :meth:`VideoCodec.compress` and
:meth:`VideoCodec.decompress`, which exchange :class:`Packet` values and hold one
unit at a time, so a sequence of any length needs the memory of one unit. Both check
what they are asked for, once for all codecs, and ask the codec's own methods.
"""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from lightning_modules.entropy.by_tables import CodesByTables
from lightning_modules.execution import EXECUTION, Execution
from lightning_modules.float32 import exactly
from lightning_modules.frames import check_frames
from lightning_modules.graphs import Graphs
from lightning_modules.latents import Latents
from lightning_modules.overlap import Pending, in_turn, overlapped
from lightning_modules.packets import Packet, Received, check_packets
from lightning_modules.rate_knob import RateKnob as RateKnob
from lightning_modules.released import Released
from lightning_modules.schedule import Schedule as Schedule

T = TypeVar("T")


@dataclass
class CodecOutput:
    """What a differentiable pass over a clip gives.

    Attributes:
        x_hat: Reconstruction, (B, T, 3, H, W), RGB in [0, 1].
        bits: Estimated bits, (B, T); a unit's bits are spread evenly over its frames.
        terms: Those of the codec's ``loss_terms`` that were computed, each a scalar.
        parts: What ``bits`` consist of, by name, each (B, T): logged beside them.
    """

    x_hat: Tensor
    bits: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class NoCodingOptions:
    """Of a codec that can be told nothing about how it codes."""


class VideoCodec(CodesByTables):
    """Base of every codec network.

    Subclasses are built from keyword arguments that :attr:`architecture` repeats,
    so that a checkpoint and a fingerprint can name the network exactly.

    Attributes:
        rate_knob: The codec's rate control.
        frames_per_unit: Frames coded together.
        scales: Packets of a unit, coarsest first, of which the first ones can be
            decoded without the others; 1 where a unit is one packet.
        can_resync: Whether ``compress`` takes ``resync``.
        autocasts_on_cpu: Whether training heeds autocast on a CPU, too.
        can_graph: Whether its walks run as graphs if it is told so, see :meth:`walk`.
        start_multiple: Frames between starts without a reference divide by this.
        pad_multiple: Frames are padded right and bottom to a multiple of this.
        loss_terms: Names of the scalar losses of its own that ``forward`` can give.
        weighed_terms: Those of them that training weighs; others need not be computed.
        published: The paper's figures for this very architecture, if it is one of
            the paper's: ``parameters``, and kMACs per pixel by the name of a pass.
        coding_options: Frozen dataclass of what :meth:`configure` sets. It lies in
            the folder's ``options.py`` as ``CodingOptions``, which imports no torch,
            so that commands can list it.
        coding: How the codec codes, one of those.
        execution: How it arranges that work, which :meth:`configure` sets too.
        former: Arguments that an earlier version had and :meth:`configure` sets now,
            each with the value at which that version trained as this one does.
        checkpoint_activations: Recompute each unit in the backward pass.
        compiled_blocks: Kinds of sub-modules that training may run compiled: functions
            of tensors, without draws, rounding or side effects.
        architecture: The constructor's arguments; of a network from a checkpoint, as
            that names them, see :meth:`name_as`.
        trained_with: What a checkpoint says of the training, see
            :meth:`CodecModule.training_settings`; empty where it says nothing.
    """

    rate_knob: RateKnob
    frames_per_unit: int
    pad_multiple: int
    scales: int = 1
    can_resync: bool = False
    autocasts_on_cpu: bool = True
    can_graph: bool = False
    start_multiple: int = 1
    coding_options: type[Any] = NoCodingOptions
    coding: Any
    former: Mapping[str, Any] = MappingProxyType({})
    loss_terms: tuple[str, ...] = ()
    compiled_blocks: tuple[type[nn.Module], ...] = ()
    published: Mapping[str, float] = MappingProxyType({})

    def __init__(self, **architecture: Any) -> None:
        super().__init__()
        self.architecture = architecture
        self.trained_with: dict[str, Any] = {}
        self.coding = self.coding_options()
        self.execution = Execution()
        self._graphs = Graphs()
        self.checkpoint_activations = False
        self.weighed_terms = frozenset(self.loss_terms)

    @abstractmethod
    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably and estimate its bits.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1], any H, W >= 1 and T >= 1.
            rate: (B,), in the unit of :attr:`rate_knob`.
            conditions: What only this codec's training draws, each optional.
        """

    def forward_units(
        self, clip: Tensor, rate: Tensor, **conditions: Tensor
    ) -> Iterator[CodecOutput]:
        """Code a clip as :meth:`forward` does, and give unit after unit.

        A unit refers to the ones before it as to constants, so weights may change in
        between. Each has a gradient in every unit, of 0 where it is not used there:
        data-parallel training waits for all of them.
        """
        raise NotImplementedError(f"{type(self).__name__} codes clips as a whole")

    @property
    def can_unroll(self) -> bool:
        """Whether there is :meth:`forward_units`."""
        return type(self).forward_units is not VideoCodec.forward_units

    @exactly
    @torch.inference_mode()
    def compress(
        self,
        frames: Iterable[Tensor],
        rate: float,
        *,
        intra_period: int = -1,
        reconstruct: bool = False,
        rate_at: Callable[[int], float] | None = None,
        resync: Callable[[int], int] | None = None,
    ) -> Iterator[Packet]:
        """Code frames into real bytes, one packet per unit or per scale of it.

        Networks run with the threads and kernels that this process has. A decoder needs
        the same unless the codec is :attr:`exact`, and here nobody sees to that:
        ``encode`` writes them into the file, and ``decode`` takes them from there.

        Args:
            frames: Each (3, H, W), RGB in [0, 1], all of one size: a clip (T, 3, H, W),
                or anything that gives one after the other.
            rate: In the unit of :attr:`rate_knob`.
            intra_period: Frames between starts without a reference; -1 for one
                start only.
            reconstruct: Whether packets carry ``x_hat`` and ``estimated_bits``.
            rate_at: The rate of each unit by the number of its first frame, from 0,
                instead of ``rate``.
            resync: Asked before each unit that does not start anyway, by the number of
                its first frame: the first scale that it codes without earlier frames,
                with all finer ones, or 0 for none.

        Raises:
            ValueError: A rate, the intra period or a scale to begin anew is not
                possible, something is no frame or has another size than the first, or
                there is no frame. Nothing is checked before packets are taken.
        """
        self.rate_knob.check(rate)
        self.check_intra_period(intra_period)
        if resync and not self.can_resync:
            raise ValueError(f"{self.shown_name} cannot code scales anew")

        def own_rate(frame: int) -> float:
            return self.rate_knob.check(rate_at(frame)) if rate_at else rate

        schedule = Schedule(own_rate, intra_period, resync)
        units = self._compress(check_frames(frames), schedule, reconstruct)
        # What answers may depend on the packets so far is not asked before its time.
        asks = rate_at is not None or resync is not None
        yield from (in_turn if asks or not self.overlaps else overlapped)(units)

    @property
    def overlaps(self) -> bool:
        """Whether bytes are made while networks work on the next units.

        On a CPU only if asked for: there both would share its cores.
        """
        auto = self.devices[0].type != "cpu"
        return {"auto": auto, "on": True, "off": False}[self.execution.overlap]

    @abstractmethod
    def _compress(
        self, frames: Iterator[Tensor], schedule: Schedule, reconstruct: bool
    ) -> Iterator[Packet | Pending]:
        """Code frames as :meth:`compress` says, which has checked what it was given.

        Units, whose bytes others may make later, or packets that are made already. What
        only ``reconstruct`` asks for is no time of the encoder: ``uncounted``.
        """

    def decompress(
        self,
        packets: Iterable[Packet | None],
        height: int,
        width: int,
        *,
        scales: int | None = None,
    ) -> Iterator[Tensor]:
        """Decode packets into frames (3, H, W), RGB in [0, 1].

        The arguments, and what is raised, are those of :meth:`receive`.
        """
        for received in self.receive(packets, height, width, scales=scales):
            yield received.frame

    @exactly
    @torch.inference_mode()
    def receive(
        self,
        packets: Iterable[Packet | None],
        height: int,
        width: int,
        *,
        scales: int | None = None,
    ) -> Iterator[Received]:
        """Decode packets and say how much of each frame could be decoded.

        Args:
            packets: In coding order, none left out; ``None`` stands for a lost one.
            height: Height of the frames in pixels.
            width: Width of the frames in pixels.
            scales: Decode only so many scales, coarsest first (progressive decoding);
                all by default.

        Raises:
            ValueError: So many scales cannot be decoded alone, a side is no number of
                pixels, or something is no packet.
            DesyncError: The decoded symbols are not those that were coded.
        """
        if scales is not None:
            self.check_scales(scales)
        for name, side in (("height", height), ("width", width)):
            if not isinstance(side, Integral) or side < 1:
                raise ValueError(
                    f"{name} is {side!r}, it must be that of the frames that were "
                    "coded, in pixels: packets do not say it"
                )
        packets = check_packets(packets)
        yield from self._receive(packets, height, width, scales or self.scales)

    @abstractmethod
    def _receive(
        self, packets: Iterable[Packet | None], height: int, width: int, scales: int
    ) -> Iterator[Received]:
        """Decode packets as :meth:`receive` says, which has checked the scales."""

    def check_intra_period(self, intra_period: int) -> None:
        """Raise ``ValueError`` if units cannot start at every so many frames."""
        each = self.start_multiple
        if intra_period != -1 and (intra_period < 1 or intra_period % each):
            what = f"a multiple of the {each} frames of a unit" if each > 1 else ">= 1"
            raise ValueError(
                f"intra_period is {intra_period}: it must be -1 (start once) or {what}"
            )

    def check_scales(self, scales: int) -> None:
        """Raise ``ValueError`` if so many scales cannot be decoded without the rest."""
        if self.scales == 1:
            raise ValueError(
                f"{self.shown_name} has no scales that could be decoded alone: its "
                "units are decoded whole"
            )
        if not 1 <= scales <= self.scales:
            raise ValueError(f"{scales} scales: there are 1 to {self.scales}")

    def check_losses(self) -> None:
        """Raise ``ValueError`` if one lost packet spoils all that comes after it."""

    @abstractmethod
    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return one steady-state unit's network work, as ``encode`` and ``decode``.

        Each runs on the codec's own device (``meta`` to count), without entropy
        coding, for frames padded from ``height`` x ``width``.
        """

    def networks_of_groups(
        self, clips: Tensor
    ) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
        """Return networks on several units, one by one and as one batch; here none.

        Of a codec whose units refer to no other, by the names of :meth:`passes`.
        ``profile`` measures both, and how far apart their values are.

        Args:
            clips: A unit each, (N, T, 3, H, W), RGB in [0, 1].
        """
        return {}

    def maps(self, frame: Tensor, rate: float) -> dict[str, Tensor]:
        """Return what is worth a picture of how a frame is coded; here nothing.

        Args:
            frame: (3, H, W), RGB in [0, 1].
            rate: In the unit of :attr:`rate_knob`.

        Returns:
            By name, each (h, w), all of one shape.
        """
        return {}

    def configure(self, **options: Any) -> None:
        """Set how the codec codes from now on; what it is does not change.

        Args:
            options: Fields of :attr:`coding_options`, and of
                :class:`~lightning_modules.execution.Execution`, which every codec has;
                those left out stay as they are.

        Raises:
            ValueError: The codec has no such option, or not with such a value.
        """
        arranged = {n: options.pop(n) for n in sorted(EXECUTION & options.keys())}
        execution = replace(self.execution, **arranged)
        known = {each.name for each in fields(self.coding_options)}
        if unknown := sorted(options.keys() - known):
            raise ValueError(
                f"{self.shown_name} cannot set {', '.join(unknown)}: leave it out, "
                "other codecs have it"
            )
        coding = replace(self.coding, **options)
        self.check_coding(coding)
        if execution.graphs and not self.can_graph:
            raise ValueError(f"{self.shown_name} has no graphs: leave out graphs")
        self.coding, self.execution = coding, execution

    def walk(self, network: Callable[..., T], *arguments: Any) -> T:
        """Return what a network gives for arguments, of which one is a port.

        As graphs, if the codec is told so; see :meth:`Graphs.run` for what they ask
        of the network. Weights that change in place are seen by them.
        """
        if self.execution.graphs and not self.training:
            return self._graphs.run(self.devices[0], network, *arguments)
        return network(*arguments)

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        # Weights go to other places, and graphs hold the old ones.
        self._graphs = Graphs()
        return super()._apply(*arguments, **options)

    def name_as(self, architecture: Mapping[str, Any]) -> None:
        """Take the name that a checkpoint has for this network, and do as it says.

        Versions differ in the arguments that there are. Another name would be another
        fingerprint, and bitstreams of the checkpoint's would not decode any more.

        Args:
            architecture: Arguments, of this version or an earlier one.
        """
        former = {n: v for n, v in architecture.items() if n in self.former}
        self.configure(**former)
        self.architecture = dict(architecture)

    @classmethod
    def architecture_of(
        cls, named: Mapping[str, Any], weights: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Return the arguments that build the network of a checkpoint's weights.

        Args:
            named: As the checkpoint names it, see :meth:`name_as`. Presets may have
                changed since, under the same name.
            weights: Its state dict.
        """
        return {name: own for name, own in named.items() if name not in cls.former}

    def check_coding(self, coding: Any) -> None:
        """Raise ``ValueError`` if this very network cannot code so.

        Args:
            coding: One of :attr:`coding_options`.
        """

    def find_released(self, weights: Mapping[str, Tensor]) -> Released | None:
        """Return published weights under this network's names; here there are none.

        Args:
            weights: A state dict, as it was published.

        Returns:
            ``None`` if they are none that were published for such a network.

        Raises:
            ValueError: They are, but do not fit this one.
        """
        return None

    @classmethod
    def from_released(cls, weights: Mapping[str, Tensor], path: Path) -> Self | None:
        """Build the codec that published weights are all of; here there is none.

        Args:
            weights: A state dict, as it was published.
            path: Its file: some models are published as several, side by side.

        Returns:
            ``None`` if they are none that were published for such a codec.

        Raises:
            ValueError: They are of a part of it alone, or do not fit it.
        """
        return None

    def released_beside(self, weights: Mapping[str, Tensor], path: Path) -> Path | None:
        """Return the file with the rest of what :meth:`find_released` found; here none.

        Args:
            weights: A state dict, as it was published.
            path: Its file.
        """
        return None

    @property
    def latents(self) -> Latents | None:
        """How many numbers pixels are made of; ``None`` if it does not count them."""
        return None

    @property
    def like(self) -> Tensor:
        """A parameter: says device and dtype."""
        return next(self.parameters())

    @property
    def devices(self) -> list[torch.device]:
        """Where it computes, one entry for each of its workers."""
        parameter = next(self.parameters(), None)
        return [torch.device("cpu") if parameter is None else parameter.device]

    @property
    def exact(self) -> bool:
        """Whether decoders show the same frames with any threads, kernels and device.

        In float64 they all but surely do: they differ in digits that nothing shows.
        """
        return all(each.dtype == torch.float64 for each in self.parameters())

    @property
    def cycle(self) -> int:
        """Frames after which units, and the qualities that they aim at, repeat."""
        return self.frames_per_unit

    def boundaries(self, frames: int) -> list[int]:
        """Return where units of frames that are coded apart from each other meet.

        Args:
            frames: Length of the video.

        Returns:
            The number of each frame that belongs to another unit than the one before
            it, from 1 to ``frames - 1``; none where units refer to those before them.
        """
        return []

    @property
    def shown_name(self) -> str:
        """What tables and messages call the codec: its name in ``CODECS``."""
        return type(self).__name__.removesuffix("Codec")

    def fingerprint(self) -> bytes:
        """Return 8 bytes that name architecture, weights and tables."""
        digest = hashlib.blake2b(digest_size=8)
        name = {"codec": type(self).__name__, **self.architecture}
        digest.update(json.dumps(name, sort_keys=True, default=str).encode())
        for key, value in sorted(self.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        for key, tables in sorted(self.tables.items()):
            digest.update(key.encode())
            digest.update(tables.to_bytes())
        return digest.digest()
