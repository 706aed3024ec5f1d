"""One sequence, and a codec that codes parts of it to bytes and decodes them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from datamodules.sequences.files import VideoSequence, read_codes
from datamodules.yuv import dequantise, planes_to_rgb
from experiments.cli.activity import TEST, activity
from lightning_modules.codec import RateKnob, VideoCodec
from lightning_modules.packets import Packet
from lightning_modules.psnr import psnr_8_bit


class LeftOut(ValueError):
    """A test cannot be done; it says why."""


@dataclass(frozen=True)
class Grid:
    """Which places in a clip are alike, so that they can be compared.

    Frames of one unit differ by design, and so may units at different places in a
    codec's cycle of qualities. So all tests look at whole units, and the position test
    only at those as far into a cycle as the first unit after the start.

    Attributes:
        unit: Frames that units complete.
        cycle: See ``VideoCodec.cycle``.
    """

    unit: int
    cycle: int

    @classmethod
    def of(cls, codec: VideoCodec) -> "Grid":
        """Return a codec's; units that overlap complete a cycle each."""
        return cls(min(codec.frames_per_unit, codec.cycle), codec.cycle)

    def position(self, wanted: int) -> int:
        """Return the first position from ``wanted`` on that the test can look at.

        A position is the number of frames between the start of a clip and a unit.
        """
        cycles = -(-max(0, wanted - self.unit) // self.cycle)
        return self.unit + cycles * self.cycle


@dataclass(frozen=True)
class Trace:
    """What coding consecutive frames gave.

    Attributes:
        bits: Of each frame, payloads only; a unit's are spread evenly.
        psnr: Of each decoded frame, RGB, rounded to 8 bits, in dB.
    """

    bits: list[float]
    psnr: list[float]


class Bench:
    """Codes a sequence in many ways, each of them once.

    Everything is decoded from the packets, unit by unit, while they are made.

    Args:
        codec: In eval mode. Callers enter ``coding_mode``.
        sequence: What is coded.
        frames: How many of its frames, from the first on.
    """

    def __init__(self, codec: VideoCodec, sequence: VideoSequence, frames: int) -> None:
        self.codec = codec
        self.sequence = sequence
        self.frames = frames
        self.grid = Grid.of(codec)
        self.pixels = sequence.width * sequence.height
        self._traces: dict[tuple[object, ...], Trace] = {}

    def trace(
        self,
        rate: float,
        *,
        first: int = 0,
        end: int | None = None,
        intra_period: int = -1,
        rate_at: Callable[[int], float] | None = None,
    ) -> Trace:
        """Code and decode frames.

        Args:
            rate: In the unit of the codec's knob.
            first: Number of the frame that the clip starts with.
            end: Of the frame after its last one; all that there are by default.
            intra_period: Frames between starts without a reference; -1 for one only.
            rate_at: Gives each unit a rate of its own; see ``VideoCodec.compress``.
        """
        end = end or self.frames
        key = rate, first, end, intra_period, rate_at
        if key in self._traces:
            return self._traces[key]
        frame_bits: list[float] = []

        def packets() -> Iterator[Packet]:
            spent = 0
            for packet in self.codec.compress(
                activity().count(self._read(first, end), TEST),
                rate,
                intra_period=intra_period,
                rate_at=rate_at,
            ):
                spent += 8 * len(packet.payload)
                if packet.frames:
                    frame_bits.extend([spent / packet.frames] * packet.frames)
                    spent = 0
                yield packet

        size = self.sequence.height, self.sequence.width
        decoded = self.codec.decompress(packets(), *size)
        qualities = [
            psnr_8_bit(frame, source)
            for frame, source in zip(decoded, self._read(first, end), strict=True)
        ]
        self._traces[key] = Trace(frame_bits, qualities)
        return self._traces[key]

    def all_intra(self, rate: float) -> Trace:
        """Code and decode all frames, every unit without a reference."""
        return self.trace(rate, intra_period=self.codec.frames_per_unit)

    def bits(self, rate: float) -> int:
        """Return what all frames cost at a rate; nothing is decoded."""
        frames = activity().count(self._read(0, self.frames), TEST)
        packets = self.codec.compress(frames, rate)
        return sum(8 * len(packet.payload) for packet in packets)

    def bpp(self, bits: float) -> float:
        """Return bits of all frames as bits per pixel."""
        return bits / (self.pixels * self.frames)

    def _read(self, first: int, end: int) -> Iterator[Tensor]:
        for codes in islice(read_codes(self.sequence, "rgb", end), first, None):
            yield planes_to_rgb(dequantise(codes), "rgb")


def check_range(
    knob: RateKnob, low: float | None = None, rate: float | None = None
) -> None:
    """Leave a test out that needs another rate than the usual one.

    Args:
        knob: The codec's.
        low: The other one, if it is known.
        rate: The usual one, above it.

    Raises:
        LeftOut: There is no other, or it is not below the usual one.
    """
    if not knob.low < knob.high:
        raise LeftOut(f"the codec has one rate only, {knob.name} {knob.low:g}")
    if low is not None and rate is not None and not low < rate:
        raise LeftOut(
            f"the low rate, {knob.name} {low:g}, is not below it (--low_rate)"
        )


def less(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return numbers less others."""
    return [x - y for x, y in zip(a, b, strict=True)]


def rises(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Return by how many percent numbers exceed others."""
    return [100 * (x / y - 1) for x, y in zip(a, b, strict=True)]
