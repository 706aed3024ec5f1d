"""Between frames and bitstream files: what ``encode``, ``decode`` and others share.

Everything runs under :func:`.coding_mode.coding_mode`, which callers enter.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

import lightning_modules
from datamodules.paths import printable
from datamodules.pipes import is_pipe, open_piped_input
from datamodules.sequences.files import VideoSequence
from datamodules.video_reader import VideoReader
from experiments.bitstreams.coding_mode import frame_bytes
from experiments.bitstreams.pixels import PixelChecks, checksum_of
from lightning_modules.bitstream import (
    BitstreamError,
    BitstreamReader,
    BitstreamWriter,
    Packet,
    StreamHeader,
)
from lightning_modules.clock import CodingClock
from lightning_modules.codec import VideoCodec
from lightning_modules.entropy import (  # Compiled before they are timed.
    elements,  # noqa: F401
    rans,  # noqa: F401
)
from lightning_modules.entropy.symbols import OverflowingError
from lightning_modules.numerics import current, recreated
from lightning_modules.packets import DesyncError, check_finite
from lightning_modules.shipped import model_of, shipped_models


class StreamEncoder:
    """One pass over frames into a bitstream file, which counts, times and hashes it.

    Iterating codes the frames at the header's rate and gives those of the
    reconstruction, if there is one; the file is complete behind the last.

    Args:
        codec: On the header's device and in its dtype.
        header: Of the file.
        frames: Each (3, H, W), RGB in [0, 1]; taken as the codec needs them.
        path: File to write; it is left unfinished if anything raises.
        intra_period: Frames between starts without a reference; -1 for one only.
        reconstruct: Whether to estimate bits, and to give and hash what a decoder will.
        checked: Whether units carry checksums of their pixels, for which the encoder
            needs its reconstruction.
        trial: Whether nobody will decode the file: checksums of pixels are 0, and cost
            bytes alone.

    Attributes:
        nbytes: The whole file.
    """

    def __init__(
        self,
        codec: VideoCodec,
        header: StreamHeader,
        frames: Iterable[Tensor],
        path: Path,
        *,
        intra_period: int = -1,
        reconstruct: bool = False,
        checked: bool = True,
        trial: bool = False,
    ) -> None:
        self.header = header
        self.nbytes = 0
        self._codec = codec
        self._frames = frames
        self._path = path
        self._intra_period = intra_period
        self._reconstruct = reconstruct
        self._checked = checked
        self._trial = trial
        self._shares: list[list[float]] = []
        self._estimates: list[float | None] = []
        self._histograms: dict[str, Counter[int]] = {}
        self._digest = hashlib.sha256()
        self._clock = CodingClock(codec.devices[0])

    def run(self) -> Self:
        """Code all frames and return itself."""
        for _ in self:
            pass
        return self

    def __iter__(self) -> Iterator[Tensor]:
        """Code; give frames (3, H, W), RGB in [0, 1], if it reconstructs.

        With the threads and kernels that the header says, whatever the process has.

        Raises:
            ValueError: The codec cannot code at this rate, intra period or frame size,
                its reconstruction is not finite, or another thread codes with other
                kernels.
        """
        with recreated(self.header.numerics):
            yield from self._code()

    def _code(self) -> Iterator[Tensor]:
        rate = self.header.rate
        packets = self._codec.compress(
            self._clock.pause(self._frames),
            rate,
            intra_period=self._intra_period,
            reconstruct=self._reconstruct or (self._checked and not self._trial),
        )
        unit_bits: list[int] = []
        with self._path.open("wb") as file:
            writer = BitstreamWriter(file, self.header)
            for packet in self._clock.watch(packets):
                before = writer.nbytes
                if self._checked and packet.frames:
                    pixels = 0 if self._trial else checksum_of(packet.x_hat)
                    packet = replace(packet, pixels=pixels)
                writer.write(packet)
                unit_bits.append(8 * (writer.nbytes - before))
                self._count_latents(packet, scale=len(unit_bits))
                if packet.frames:
                    shares = [bits / packet.frames for bits in unit_bits]
                    self._shares += [shares] * packet.frames
                    unit_bits = []
                if self._reconstruct:
                    self._estimates.append(packet.estimated_bits)
                if packet.x_hat is None:
                    continue
                first = len(self._shares) - packet.frames
                for number, frame in enumerate(packet.x_hat, first):
                    check_finite(frame, number, rate)
                    if self._reconstruct:
                        self._digest.update(frame_bytes(frame))
                        yield frame
            writer.close()
        self.nbytes = writer.nbytes

    @property
    def frame_bits(self) -> list[float]:
        """For each frame its share of its unit, payload and framing.

        The file's header and end are in :attr:`nbytes` only.
        """
        return [sum(parts) for parts in self._shares]

    @property
    def scale_bits(self) -> list[list[float]]:
        """Parts of :attr:`frame_bits` by packet of a unit, the coarsest scale first."""
        return [list(parts) for parts in zip(*self._shares, strict=True)]

    def _count_latents(self, packet: Packet, scale: int) -> None:
        for part, counts in packet.histograms.items():
            name = f"scale{scale}" if self._codec.scales > 1 else part
            self._histograms.setdefault(name, Counter()).update(counts)

    @property
    def latents(self) -> dict[str, dict[int, int]]:
        """How often each whole number was coded, if it reconstructed.

        By scale, the coarsest first as ``scale1``; of a codec without scales by the
        parts of its latent.
        """
        return {
            name: dict(sorted(counts.items()))
            for name, counts in self._histograms.items()
        }

    @property
    def estimated_bits(self) -> float | None:
        """Entropy of all symbols under the model, if it reconstructed."""
        known = [bits for bits in self._estimates if bits is not None]
        return sum(known) if known and len(known) == len(self._estimates) else None

    @property
    def digest(self) -> str | None:
        """SHA-256 of the reconstruction (float32 RGB), if there was one.

        :attr:`StreamDecoder.digest` must be the same.
        """
        return self._digest.hexdigest() if self._reconstruct else None

    @property
    def seconds(self) -> dict[str, float]:
        """``encode``, and its parts ``encode_network`` and ``encode_entropy``.

        Without reading frames, writing bytes, hashing, and whatever is done with the
        reconstruction, and without that itself where only a viewer needs it. Where
        bytes are made beside the networks, the parts add up to more than the whole.
        """
        return _parts("encode", self._clock)


def header_of(
    codec: VideoCodec, video: VideoReader | VideoSequence, rate: float, dtype: str
) -> StreamHeader:
    """Return the header of a video's bitstream, coded by this process as it is now.

    Args:
        codec: Where it runs.
        video: For the size of its frames, and their rate.
        rate: In the unit of the codec's knob.
        dtype: What its networks compute in.
    """
    return StreamHeader(
        codec=type(codec).__name__,
        fingerprint=codec.fingerprint(),
        width=video.width,
        height=video.height,
        fps=video.fps,
        rate=rate,
        dtype=dtype,
        device=codec.devices[0].type,
        numerics=current(),
        exact=codec.exact,
    )


@contextmanager
def open_stream(path: Path) -> Iterator[BitstreamReader]:
    """Open a bitstream file for one pass; see :class:`StreamDecoder`.

    Raises:
        ValueError: It is damaged, or cannot be decoded; also out of the block, always
            with the file's name.
    """
    with open_piped_input(path) if is_pipe(path) else path.open("rb") as file:
        header: StreamHeader | None = None
        try:
            reader = BitstreamReader(file)
            header = reader.header
            yield reader
        except DesyncError as error:
            said = header and header.numerics
            ran = f" (the encoder ran with {said})" if said else ""
            raise ValueError(f"{printable(path)}: {error}{ran}") from error
        except (BitstreamError, OverflowingError) as error:
            raise ValueError(f"{printable(path)}: {error}") from error


def load_decoder(
    header: StreamHeader, checkpoint: Path, device: torch.device
) -> VideoCodec:
    """Load the codec as the encoder ran it.

    Raises:
        ValueError: It is not the one that the stream was encoded with.
    """
    codec = lightning_modules.load_codec(
        checkpoint, device=device, dtype=getattr(torch, header.dtype)
    )
    check_decoder(header, codec, checkpoint)
    return codec


def check_decoder(header: StreamHeader, codec: VideoCodec, checkpoint: Path) -> None:
    """Check that a stream was encoded with a codec.

    Raises:
        ValueError: It was another one; the message names the checkpoint of this one.
    """
    name, fingerprint = type(codec).__name__, codec.fingerprint()
    if (name, fingerprint) == (header.codec, header.fingerprint):
        return
    model = model_of(header.codec, header.fingerprint, header.dtype)
    remedy = "use the checkpoint that it was encoded with"
    if model:
        remedy = f"it was the shipped model {model}: give --checkpoint {model}"
    if name != header.codec:
        raise ValueError(
            f"the stream was encoded with {header.codec.removesuffix('Codec')}, but "
            f"{checkpoint} is of {codec.shown_name}: {remedy}"
        )
    raise ValueError(
        f"the stream was encoded with the weights {header.fingerprint.hex()}, but "
        f"{checkpoint} has {fingerprint.hex()}: {remedy}"
    )


def shipped_decoder(header: StreamHeader, path: Path) -> Path:
    """Return the file of the shipped model that a stream was encoded with.

    Args:
        header: Of the stream.
        path: Its name.

    Raises:
        ValueError: It was none that ships.
    """
    name = model_of(header.codec, header.fingerprint, header.dtype)
    if name is None:
        raise ValueError(
            f"{printable(path)} was encoded with {header.codec.removesuffix('Codec')} "
            f"of the weights {header.fingerprint.hex()}, which are no shipped model's: "
            "give --checkpoint"
        )
    return shipped_models()[name]


class StreamDecoder:
    """One pass over the frames of a bitstream, which counts, times and hashes them.

    Args:
        codec: What :func:`load_decoder` gave for the stream.
        reader: From :func:`open_stream`.
        partial: Whether damage ends the frames instead of raising.
        hashing: Whether to make :attr:`digest`.
        scales: Decode only so many scales, coarsest first; None for all that there is.
        pixels: Compares frames with the encoder's, where all scales are decoded; not at
            all by default.

    Attributes:
        frames: Number of frames so far.
        stopped: Why the frames ended before the stream's end, if they did.

    Raises:
        ValueError: So many scales cannot be decoded alone; see ``codec.check_scales``.
    """

    def __init__(
        self,
        codec: VideoCodec,
        reader: BitstreamReader,
        *,
        partial: bool = False,
        hashing: bool = True,
        scales: int | None = None,
        pixels: PixelChecks | None = None,
    ) -> None:
        if scales is not None:
            codec.check_scales(scales)
        self.frames = 0
        self.stopped: str | None = None
        self._codec = codec
        self._reader = reader
        self._partial = partial
        self._hashing = hashing
        self._scales = scales
        whole = scales in (None, codec.scales)
        self._pixels = (pixels if whole else None) or PixelChecks(None)
        self._digest = hashlib.sha256()
        self._clock = CodingClock(codec.devices[0])

    def __iter__(self) -> Iterator[Tensor]:
        """Give frames (3, H, W), RGB in [0, 1].

        Raises:
            BitstreamError: The stream is damaged.
            DesyncError: The decoded symbols are not those that were coded.
            OverflowingError: A frame is not finite.
            OtherPixelsError: It is not the encoder's, and has to be.
        """
        header = self._reader.header
        packets = self._clock.pause(self._pixels.note(self._reader))
        size = (header.height, header.width)
        decoded = self._codec.decompress(packets, *size, scales=self._scales)
        try:
            for frame in self._clock.watch(decoded):
                check_finite(frame, self.frames, header.rate)
                self.frames += 1
                self._pixels.take(frame)
                if self._hashing:
                    self._digest.update(frame_bytes(frame))
                yield frame
            if self.frames != self._reader.frames:
                raise BitstreamError(
                    f"{self.frames} frames were decoded, but its units claim "
                    f"{self._reader.frames}: get the file again"
                )
        except (BitstreamError, DesyncError, OverflowingError) as error:
            if not self._partial:
                raise
            self.stopped = str(error)

    @property
    def digest(self) -> str:
        """SHA-256 of the frames so far (float32 RGB)."""
        return self._digest.hexdigest()

    @property
    def seconds(self) -> dict[str, float]:
        """``decode`` so far, and its parts ``decode_network`` and ``decode_entropy``.

        Without reading bytes, hashing, and whatever is done with the frames.
        """
        return _parts("decode", self._clock)


def _parts(name: str, clock: CodingClock) -> dict[str, float]:
    return {
        name: clock.seconds,
        f"{name}_network": clock.network_seconds,
        f"{name}_entropy": clock.entropy_seconds,
    }
