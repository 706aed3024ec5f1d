"""The container of a coded video: the only place that knows a file's bytes.

Numbers are little-endian; a varint holds 7 bits per byte, low ones first, with the
top bit set on all bytes but the last. A file is

=====  ===========================================================================
bytes  header
=====  ===========================================================================
4      magic: ``LVC`` and 26
1      version, 2
1      n, number of header bytes between this one and the CRC
8      fingerprint of the codec: architecture, weights and tables
2 + 2  width and height of the frames, 1 to 16384 each, 2^27 pixels at most
4 + 4  frames per second: numerator and denominator, both > 0
8      rate, a double, in the codec's own unit
1      dtype of the networks, the position in ``DTYPES``; plus 128 if decoders show the
       same frames with any threads, kernels and device
1      colour, the position in ``COLOURS``
1 + a  codec: length and ASCII name
1 + b  device type of the networks: length and ASCII name
2      threads of the encoder, 1 to 1024
1      instruction set, the position in ``ISAS``; plus 128 if oneDNN was off
1      maker of the processor, the position in ``MAKERS``
1 + c  version of torch: length and ASCII text; a, b and c fill up n
4      CRC32 of all bytes above
=====  ===========================================================================

=====  ===========================================================================
bytes  each unit, in coding order
=====  ===========================================================================
1      ``U``, or ``P`` if it has a checksum of pixels
any    varint: length of the payload, at most 16 bytes per pixel and frame + 2^16
any    varint: frames that the unit completes, 0 to 4096; 0 where a frame is more units
4      checksum of the coded symbols, the decoder's to compare, XOR the CRC32 of the
       varint of frames, continued from the header's: a false size, say, is found too
2      of ``P`` only: checksum of the pixels of these frames as the decoder shows them
...    payload
4      CRC32 of the unit's bytes above, continued from that of the unit before, of the
       first unit from the header's: units cannot change places, nor come from
       another stream
=====  ===========================================================================

=====  ===========================================================================
bytes  end: nothing follows it
=====  ===========================================================================
1      ``E``
any    varint: frames of all units
4      CRC32 of the end's bytes above, continued from that of the last unit
=====  ===========================================================================

Version 1, which is read but not written, has no threads, instruction set, maker and
version of torch in its header, adds nothing to the dtype, and has no ``P``. The
checksum of symbols stands as it is, and a CRC32 is continued from the number of units
before.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

from lightning_modules.numerics import NumericConfiguration

MAGIC = b"LVC\x1a"
VERSION = 2
OLDEST_VERSION = 1
DTYPES = ("float32", "bfloat16", "float16", "float64")
COLOURS = ("bt709_full",)
MAX_SIDE = 16384
MAX_PIXELS = 1 << 27
MAX_FRAMES_PER_UNIT = 4096
EXACT = 128
UNIT = b"U"
UNIT_WITH_PIXELS = b"P"
END = b"E"

_FIXED = struct.Struct("<8sHHIIdBB")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_READ_STEP = 1 << 20
_MAX_VARINT = 9  # Bytes; 63 bits.


class BitstreamError(ValueError):
    """A file is not a whole, undamaged bitstream of this version."""


@dataclass(frozen=True)
class StreamHeader:
    """What a decoder must know before the first unit.

    Attributes:
        codec: Name of the codec, 1 to 64 ASCII characters.
        fingerprint: 8 bytes that name architecture, weights and tables.
        width: Of the frames, in pixels, before padding.
        height: Of the frames, in pixels, before padding.
        fps: Frames per second.
        rate: In the codec's own unit.
        dtype: What the encoder's networks ran in, one of ``DTYPES``.
        device: Type of device they ran on, for example ``cpu``.
        colour: What the RGB values mean in YUV, one of ``COLOURS``.
        numerics: What the encoder ran with; ``None`` in files of version 1, which do
            not say it and are not written any more.
        exact: Whether decoders show the same frames with anything else too; never said
            in files of version 1.
    """

    codec: str
    fingerprint: bytes
    width: int
    height: int
    fps: Fraction
    rate: float
    dtype: str = "float32"
    device: str = "cpu"
    colour: str = "bt709_full"
    numerics: NumericConfiguration | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be written or is absurd.

        Raises:
            BitstreamError: A value is not one that a stream can have.
        """
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE) or (
            self.width * self.height > MAX_PIXELS
        ):
            raise BitstreamError(
                f"frames of {self.width}x{self.height} are not possible: each side is "
                f"1 to {MAX_SIDE} pixels, and a frame has at most 2^27 pixels"
            )
        if not 0 < self.fps or max(self.fps.as_integer_ratio()) >= 1 << 32:
            raise BitstreamError(
                f"{self.fps} frames per second are not possible: the number must be "
                "positive, its numerator and denominator below 2^32"
            )
        if not math.isfinite(self.rate):
            raise BitstreamError(f"rate {self.rate} is not a finite number")
        if len(self.fingerprint) != 8:
            raise BitstreamError(
                f"a fingerprint has 8 bytes, this one has {len(self.fingerprint)}"
            )
        for name, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("colour", self.colour, COLOURS),
        ):
            if value not in allowed:
                raise BitstreamError(f"{name} {value!r} is not one of {allowed}")
        for name, value in (("codec", self.codec), ("device", self.device)):
            if not (value.isascii() and value.isprintable() and 1 <= len(value) <= 64):
                raise BitstreamError(
                    f"{name} {value!r} must have 1 to 64 printable ASCII characters"
                )

    def to_bytes(self) -> bytes:
        """Return the header as it stands at the start of a file."""
        body = _FIXED.pack(
            self.fingerprint,
            self.width,
            self.height,
            *self.fps.as_integer_ratio(),
            self.rate,
            DTYPES.index(self.dtype) | (EXACT if self.exact else 0),
            COLOURS.index(self.colour),
        )
        for text in (self.codec, self.device):
            body += bytes([len(text)]) + text.encode("ascii")
        if self.numerics is None:
            raise BitstreamError("a header must say what the encoder ran with")
        body += self.numerics.to_bytes()
        head = MAGIC + bytes([VERSION, len(body)]) + body
        return head + _U32.pack(zlib.crc32(head))

    @classmethod
    def _from_body(cls, body: bytes, version: int) -> "StreamHeader":
        """Parse what lies between length and CRC."""
        try:
            fingerprint, width, height, numerator, denominator, rate, dtype, colour = (
                _FIXED.unpack_from(body)
            )
            texts = []
            at = _FIXED.size
            for _ in range(2):
                end = at + 1 + body[at]
                texts.append(body[at + 1 : end].decode("ascii"))
                at = end
            numerics, exact = None, False
            if version > OLDEST_VERSION:
                numerics = NumericConfiguration.from_bytes(body[at:])
                dtype, exact = dtype & ~EXACT, bool(dtype & EXACT)
            elif at != len(body):
                raise ValueError("its names do not fill it")
            codec, device = texts
            return cls(
                codec,
                fingerprint,
                width,
                height,
                Fraction(numerator, denominator),
                rate,
                DTYPES[dtype],
                device,
                COLOURS[colour],
                numerics,
                exact,
            )
        except BitstreamError:
            raise
        except (ValueError, IndexError, ZeroDivisionError, struct.error) as error:
            raise BitstreamError(
                f"the header makes no sense ({error}): the file was not written by "
                "this program"
            ) from error

    def max_payload(self, frames: int) -> int:
        """Return the most bytes that a unit that completes ``frames`` may have."""
        return 16 * self.width * self.height * max(frames, 1) + (1 << 16)


@dataclass(frozen=True)
class Packet:
    """The smallest thing that can be lost alone: a unit, or one scale of it.

    Attributes:
        payload: Entropy-coded bytes, with the codec's own side information.
        frames: Number of frames that it completes: 0 where more packets of the same
            unit follow.
        checksum: CRC32 of the coded symbols; a decoder that arrives at another
            value has desynchronised.
        x_hat: The encoder's own reconstruction of the frames that it completes, a
            tensor (frames, 3, H, W), if asked for; never written to a file.
        estimated_bits: Entropy of the symbols under the model, if asked for.
        histograms: How often each whole number was coded, by part of the latent, as
            ``{part: {value: count}}``, if the estimate was asked for.
        pixels: In a file, a 16-bit checksum of the frames that it completes, as the
            encoder expects them to be shown; ``None`` if the file does not say.
    """

    payload: bytes
    frames: int
    checksum: int
    x_hat: Any = field(default=None, compare=False)
    estimated_bits: float | None = field(default=None, compare=False)
    histograms: Mapping[str, Mapping[int, int]] = field(
        default_factory=dict, compare=False
    )
    pixels: int | None = None


def varint(number: int) -> bytes:
    """Return a number >= 0 in 7-bit groups, low ones first."""
    groups = bytearray()
    while number >= 128:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


class BitstreamWriter:
    """Writes a bitstream front to back; needs no seeking and keeps no unit.

    Attributes:
        nbytes: Bytes written so far.
        frames: Frames written so far.
        units: Units written so far.
    """

    def __init__(self, file: BinaryIO, header: StreamHeader) -> None:
        """Write the header to a file that is open for writing bytes."""
        self.nbytes = 0
        self.frames = 0
        self.units = 0
        self._file = file
        self._header = header
        self._closed = False
        head = header.to_bytes()
        (self._header_crc,) = _U32.unpack(head[-4:])
        self._crc = self._header_crc
        self._append(head)

    def write(self, unit: Packet) -> None:
        """Append a unit.

        Raises:
            BitstreamError: It is not one that a reader would accept.
        """
        if not 0 <= unit.frames <= MAX_FRAMES_PER_UNIT:
            raise BitstreamError(
                f"unit {self.units} has {unit.frames} frames, possible are 0 to "
                f"{MAX_FRAMES_PER_UNIT}"
            )
        limit = self._header.max_payload(unit.frames)
        if len(unit.payload) > limit:
            raise BitstreamError(
                f"unit {self.units} has {len(unit.payload)} bytes, more than the "
                f"{limit} that {unit.frames} frames may have: is the codec trained?"
            )
        if not 0 <= unit.checksum < 1 << 32:
            raise BitstreamError(
                f"unit {self.units} has checksum {unit.checksum}, it must fit 32 bits"
            )
        frames = varint(unit.frames)
        head = UNIT if unit.pixels is None else UNIT_WITH_PIXELS
        head += varint(len(unit.payload)) + frames
        head += _U32.pack(unit.checksum ^ zlib.crc32(frames, self._header_crc))
        if unit.pixels is not None:
            head += _U16.pack(unit.pixels)
        self._crc = zlib.crc32(unit.payload, zlib.crc32(head, self._crc))
        self._append(head)
        self._append(unit.payload)
        self._append(_U32.pack(self._crc))
        self.units += 1
        self.frames += unit.frames

    def close(self) -> None:
        """Write the end, without which a file counts as cut; the file stays open."""
        end = END + varint(self.frames)
        self._append(end + _U32.pack(zlib.crc32(end, self._crc)))
        self._closed = True

    def _append(self, data: bytes) -> None:
        assert not self._closed, "nothing follows the end of a bitstream"
        self._file.write(data)
        self.nbytes += len(data)


class BitstreamReader:
    """Reads a bitstream front to back, once, one unit in memory at a time.

    Iteration yields each unit after a check of its bytes, and raises
    :class:`BitstreamError` at the first that is missing or damaged, so that
    whoever wants the part before has it by then.

    Attributes:
        header: What the file says about itself.
        complete: Whether the end has been reached and everything was right.
        frames: Frames of the units read so far.
        units: Units read so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header from a file that is open for reading bytes.

        Raises:
            BitstreamError: It is none of this version, cut, damaged or absurd.
        """
        self.complete = False
        self.frames = 0
        self.units = 0
        self._file = file
        self._position = 0
        magic = self._read_up_to(len(MAGIC))
        if magic != MAGIC:
            raise BitstreamError(
                f"this is not a bitstream of a learned codec: it starts with "
                f"{magic!r} and not with {MAGIC!r}"
            )
        version, length = self._read(2, "the header")
        if not OLDEST_VERSION <= version <= VERSION:
            raise BitstreamError(
                f"the bitstream has version {version}, this program reads versions "
                f"{OLDEST_VERSION} to {VERSION}: use the program that wrote it"
            )
        body = self._read(length, "the header")
        (crc,) = _U32.unpack(self._read(4, "the header"))
        if crc != zlib.crc32(MAGIC + bytes([version, length]) + body):
            raise BitstreamError(
                "the header is damaged (its CRC32 does not match): get the file again"
            )
        self.header = StreamHeader._from_body(body, version)
        self._chained = version > OLDEST_VERSION
        self._header_crc = self._crc = crc if self._chained else 0

    def __iter__(self) -> Iterator[Packet]:
        """Yield the units.

        Raises:
            BitstreamError: The file is cut or damaged, or something follows its end.
        """
        while True:
            what = f"unit {self.units}"
            start = self._position
            kind = self._read(1, what)
            if kind == END:
                break
            if kind != UNIT and not (kind == UNIT_WITH_PIXELS and self._chained):
                raise self._damaged(what, start, f"it begins with {kind!r}")
            yield self._read_unit(kind, what, start)
        total, raw = self._read_varint("the end")
        (crc,) = _U32.unpack(self._read(4, "the end"))
        if crc != zlib.crc32(END + raw, self._crc):
            raise self._damaged("the end", start, "its CRC32 does not match")
        if total != self.frames:
            raise self._damaged(
                "the end", start, f"it counts {total} frames, not {self.frames}"
            )
        if self._read_up_to(1):
            raise BitstreamError(
                f"bytes follow the end of the bitstream, from {self._position - 1} on: "
                f"cut the file there, or decode its {self.frames} frames with --partial"
            )
        self.complete = True

    def _read_unit(self, kind: bytes, what: str, start: int) -> Packet:
        length, raw_length = self._read_varint(what)
        frames, raw_frames = self._read_varint(what)
        raw_checksum = self._read(_U32.size, what)
        raw_pixels = self._read(_U16.size, what) if kind == UNIT_WITH_PIXELS else b""
        if frames > MAX_FRAMES_PER_UNIT:
            raise self._damaged(what, start, f"it claims {frames} frames")
        if length > self.header.max_payload(frames):
            raise self._damaged(
                what, start, f"it claims {length} bytes for {frames} frames"
            )
        payload = self._read(length, what)
        (crc,) = _U32.unpack(self._read(4, what))
        head = kind + raw_length + raw_frames + raw_checksum + raw_pixels
        if crc != zlib.crc32(payload, zlib.crc32(head, self._crc)):
            raise self._damaged(what, start, "its CRC32 does not match")
        self.units += 1
        self.frames += frames
        (checksum,) = _U32.unpack(raw_checksum)
        if self._chained:
            checksum ^= zlib.crc32(raw_frames, self._header_crc)
        self._crc = crc if self._chained else self.units
        pixels = _U16.unpack(raw_pixels)[0] if raw_pixels else None
        return Packet(payload, frames, checksum, pixels=pixels)

    def _damaged(self, what: str, start: int, why: str) -> BitstreamError:
        return BitstreamError(
            f"{what} at byte {start} is damaged ({why}): {self._advice()}"
        )

    def _advice(self) -> str:
        if not self.frames:
            return "get the file again"
        return (
            f"get the file again, or decode the {self.frames} frames before it with "
            "--partial"
        )

    def _read_varint(self, what: str) -> tuple[int, bytes]:
        """Return a number and the bytes that it was read from."""
        start = self._position
        raw = b""
        while not raw or raw[-1] & 128:
            if len(raw) == _MAX_VARINT:
                raise self._damaged(what, start, "a number in it does not end")
            raw += self._read(1, what)
        number = sum((byte & 127) << 7 * i for i, byte in enumerate(raw))
        return number, raw

    def _read(self, length: int, what: str) -> bytes:
        data = self._read_up_to(length)
        if len(data) < length:
            raise BitstreamError(
                f"the file ends at byte {self._position}, within or before {what}: it "
                f"was cut, or never finished; {self._advice()}"
            )
        return data

    def _read_up_to(self, length: int) -> bytes:
        """Read in steps: what is there takes memory, not what a number promises."""
        data = bytearray()
        while len(data) < length:
            step = self._file.read(min(length - len(data), _READ_STEP))
            if not step:
                break
            data += step
        self._position += len(data)
        return bytes(data)
