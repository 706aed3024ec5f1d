"""The contract of every codec: tensors in, estimated bits or real packets out.

A codec is a plain ``nn.Module``. Training calls :meth:`VideoCodec.forward`;
``encode`` and ``decode`` call :meth:`VideoCodec.compress` and
:meth:`VideoCodec.decompress`, which exchange :class:`Packet` values and hold one
unit at a time, so a sequence of any length needs the memory of one unit.
"""

import hashlib
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.entropy.symbols import OverflowingError, SymbolDecoder
from lightning_modules.entropy.tables import CdfTables

OTHER_PROBABILITIES = (
    "this machine computes other probabilities than the encoder's did; decode with the "
    "same device, dtype and threads, or encode in float64"
)
SHOWN_STEPS = 2**17
"""Levels of a sample that float64 networks show, far finer than 8 bits."""


@dataclass(frozen=True)
class RateKnob:
    """A codec's own rate control: its unit, its range, the points it is tested at.

    Attributes:
        name: The word for it in commands and log keys, for example ``"qp"``.
        low: Smallest value (fewest bits).
        high: Largest value (most bits).
        points: The values the paper reports, from few bits to many.
    """

    name: str
    low: float
    high: float
    points: tuple[float, ...]

    def check(self, value: float) -> float:
        """Return ``value`` if the codec can code at it.

        Raises:
            ValueError: It is out of range.
        """
        if not self.low <= value <= self.high:
            raise ValueError(
                f"rate {value} is not possible: {self.name} is a number from "
                f"{self.low:g} (fewest bits) to {self.high:g} (most bits)"
            )
        return value


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
class Packet:
    """The smallest thing that can be lost alone: a unit, or one scale of it.

    Attributes:
        payload: Entropy-coded bytes, with the codec's own side information.
        frames: Number of frames that it completes: 0 where more packets of the same
            unit follow.
        checksum: CRC32 of the coded symbols; a decoder that arrives at another
            value has desynchronised.
        x_hat: The encoder's own reconstruction of the frames that it completes,
            (frames, 3, H, W), if asked for; never written to a file.
        estimated_bits: Entropy of the symbols under the model, if asked for.
    """

    payload: bytes
    frames: int
    checksum: int
    x_hat: Tensor | None = field(default=None, compare=False)
    estimated_bits: float | None = field(default=None, compare=False)


class DesyncError(ValueError):
    """The decoder's symbols are not the encoder's: frames would be noise."""


def check_finite(reconstruction: Tensor, frame: int, rate: float) -> None:
    """Refuse what was made of a frame if it is no picture.

    Args:
        reconstruction: The frame, or what later frames see of it.
        frame: Its number, from 0.
        rate: That it was coded at.

    Raises:
        OverflowingError: It holds NaN or infinity.
    """
    if not bool(reconstruction.isfinite().all()):
        raise OverflowingError(
            f"frame {frame} holds NaN or infinity after coding at rate {rate:g}: the "
            "networks overflow; encode at another rate, with a shorter --intra_period "
            "or in another --dtype, or train on longer clips"
        )


@contextmanager
def read_symbols(
    packet: Packet, skip: int, covered: bytes = b""
) -> Iterator[SymbolDecoder]:
    """Give what reads a packet's symbols; compare checksums when it is done.

    Args:
        packet: What was received.
        skip: Bytes of its payload before the symbols.
        covered: What its checksum covers besides the symbols.

    Raises:
        DesyncError: The symbols are not those that were coded.
    """
    try:
        decoder = SymbolDecoder(packet.payload[skip:])
        yield decoder
        decoder.finish()
    except ValueError as error:
        raise DesyncError(
            f"the symbols cannot be read ({error}): {OTHER_PROBABILITIES}"
        ) from error
    found = zlib.crc32(covered, decoder.checksum)
    if found != packet.checksum:
        raise DesyncError(
            f"symbol checksum {found:08x} instead of {packet.checksum:08x}: "
            f"{OTHER_PROBABILITIES}"
        )


class VideoCodec(nn.Module, ABC):
    """Base of every codec network.

    Subclasses are built from keyword arguments that :attr:`architecture` repeats,
    so that a checkpoint and a fingerprint can name the network exactly.

    Attributes:
        rate_knob: The codec's rate control.
        frames_per_unit: Frames coded together.
        pad_multiple: Frames are padded right and bottom to a multiple of this.
        loss_terms: Names of the scalar losses of its own that ``forward`` can give.
        weighed_terms: Those of them that training weighs; others need not be computed.
        published: The paper's figures for this very architecture, if it is one of
            the paper's: ``parameters``, and kMACs per pixel by the name of a pass.
        checkpoint_activations: Recompute each unit in the backward pass.
        architecture: The constructor's arguments.
    """

    rate_knob: RateKnob
    frames_per_unit: int
    pad_multiple: int
    loss_terms: tuple[str, ...] = ()
    published: Mapping[str, float] = MappingProxyType({})

    def __init__(self, **architecture: Any) -> None:
        super().__init__()
        self.architecture = architecture
        self.checkpoint_activations = False
        self.weighed_terms = frozenset(self.loss_terms)
        self._tables: dict[str, CdfTables] | None = None

    @abstractmethod
    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably and estimate its bits.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1], any H, W >= 1 and T >= 1.
            rate: (B,), in the unit of :attr:`rate_knob`.
            conditions: What only this codec's training draws, each optional.
        """

    @abstractmethod
    def compress(
        self,
        frames: Iterable[Tensor],
        rate: float,
        *,
        intra_period: int = -1,
        reconstruct: bool = False,
        rate_at: Callable[[int], float] | None = None,
    ) -> Iterator[Packet]:
        """Code frames into real bytes, one packet per unit or per scale of it.

        Args:
            frames: Each (3, H, W), RGB in [0, 1], all of one size.
            rate: In the unit of :attr:`rate_knob`.
            intra_period: Frames between starts without a reference; -1 for one
                start only.
            reconstruct: Whether packets carry ``x_hat`` and ``estimated_bits``.
            rate_at: The rate of each unit by the number of its first frame, from 0,
                instead of ``rate``.
        """

    @abstractmethod
    def decompress(
        self, packets: Iterable[Packet | None], height: int, width: int
    ) -> Iterator[Tensor]:
        """Decode packets into frames (3, H, W), RGB in [0, 1].

        Args:
            packets: In coding order, none left out; ``None`` stands for a lost one.
            height: Height of the frames in pixels.
            width: Width of the frames in pixels.

        Raises:
            DesyncError: The decoded symbols are not those that were coded.
        """

    @abstractmethod
    def build_tables(self) -> dict[str, CdfTables]:
        """Turn the entropy model's current weights into integer tables, by name."""

    @abstractmethod
    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return one steady-state unit's network work, as ``encode`` and ``decode``.

        Each runs on the codec's own device (``meta`` to count), without entropy
        coding, for frames padded from ``height`` x ``width``.
        """

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
            options: By name, each codec's own; this one has none.

        Raises:
            ValueError: The codec has no such option.
        """
        if options:
            raise ValueError(
                f"{type(self).__name__} cannot set {', '.join(sorted(options))}: leave "
                "it out, other codecs have it"
            )

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
    def tables(self) -> dict[str, CdfTables]:
        """The integer tables that real bits are coded with; built once, then kept.

        They are no buffers: averaging weights must not touch them, and their sizes
        change. A checkpoint stores them beside the weights, because another machine
        may round the floats they come from differently.
        """
        if self._tables is None:
            self._tables = self.build_tables()
        return self._tables

    @tables.setter
    def tables(self, tables: dict[str, CdfTables] | None) -> None:
        self._tables = tables

    def train(self, mode: bool = True) -> "VideoCodec":
        """Switch mode; going back to training drops tables that will be stale."""
        if mode:
            self._tables = None
        return super().train(mode)

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


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the right and bottom edge until both sides divide by ``multiple``.

    Args:
        x: (B, C, H, W).
        multiple: At least 1.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom == right == 0:
        return x
    return F.pad(x, (0, right, 0, bottom), mode="replicate")


def pad_frames(frames: Tensor, length: int) -> Tensor:
    """Repeat the last frame of (B, T, ...) until there are ``length`` of them."""
    missing = length - frames.shape[1]
    if missing <= 0:
        return frames
    tail = frames[:, -1:].expand(-1, missing, *frames.shape[2:])
    return torch.cat([frames, tail], dim=1)


def check_size(frame: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the (height, width) of a frame (..., H, W).

    Args:
        frame: The next one.
        size: Of the frames before it; ``None`` before the first.

    Raises:
        ValueError: The frame has another size than those before it.
    """
    found = (frame.shape[-2], frame.shape[-1])
    if size is not None and found != size:
        raise ValueError(
            f"a frame has {found[1]}x{found[0]} pixels, the ones before it had "
            f"{size[1]}x{size[0]}: all frames of a video must have one size"
        )
    return found


def as_shown(pixels: Tensor) -> Tensor:
    """Return decoded pixels as callers get them: float32, clamped to [0, 1].

    Those of float64 become whole multiples of 1 / ``SHOWN_STEPS``: results that differ
    in the last digits, as those of two machines do, give the same frame.
    """
    pixels = pixels.clamp(0.0, 1.0)
    if pixels.dtype == torch.float64:
        pixels = (pixels * SHOWN_STEPS).round() / SHOWN_STEPS
    return pixels.float()
