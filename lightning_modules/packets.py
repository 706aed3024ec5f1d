"""What encoders send and receivers show, and how a mismatch of the two is noticed."""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from lightning_modules.bitstream import Packet as Packet
from lightning_modules.entropy.device_ports import DeviceEncodePort
from lightning_modules.entropy.ports import EncodePort
from lightning_modules.entropy.symbols import OverflowingError, SymbolDecoder
from lightning_modules.overlap import Pending as Pending

OTHER_PROBABILITIES = (
    "this machine computes other probabilities than the encoder's did; decode with the "
    "same height and width, device, dtype, threads and version of torch, or encode in "
    "float64"
)

OTHER_FILE = "no encoder wrote these bytes for frames of this size; get the file again"


@dataclass(frozen=True)
class Received:
    """A frame as a receiver shows it.

    Attributes:
        frame: (3, H, W), RGB in [0, 1].
        scales: How many scales were decoded from bits, coarsest first, the others are
            predictions; ``None`` if the codec does not say.
    """

    frame: Tensor
    scales: int | None = None


class DesyncError(ValueError):
    """The decoder's symbols are not the encoder's: frames would be noise."""


def check_packets(packets: Iterable[Packet | None]) -> Iterator[Packet | None]:
    """Give packets, and raise ``ValueError`` for what is none."""
    for number, packet in enumerate(packets):
        if packet is not None and not isinstance(packet, Packet):
            raise ValueError(
                f"packet {number} is of type {type(packet).__name__}: decompress takes "
                "the packets that compress gave, or None for a lost one"
            )
        yield packet


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
        raise overflow_of(frame, rate)


def overflow_of(frame: int, rate: float) -> OverflowingError:
    """Return the error of a frame, by its number, that is no picture at a rate."""
    return OverflowingError(
        f"frame {frame} holds NaN or infinity after coding at rate {rate:g}: the "
        "networks overflow; encode at another rate, with a shorter --intra_period "
        "or in another --dtype, or train on longer clips"
    )


def pending(
    head: bytes,
    port: EncodePort,
    frames: int,
    x_hat: Tensor | None = None,
    *,
    covers_head: bool = True,
) -> Pending:
    """Return a unit of one packet, whose symbols leave the device now.

    The arguments are those of :func:`pack`, which makes its bytes.
    """
    if isinstance(port, DeviceEncodePort):
        port.depart()

    def make() -> list[Packet]:
        return [pack(head, port, frames, x_hat, covers_head=covers_head)]

    return Pending(make)


def refuse_overflow(port: EncodePort, x: Tensor, frame: int, rate: float) -> None:
    """Refuse a unit of which later ones see what is not finite.

    At once, or with its bytes where the device would have to be waited for.

    Args:
        port: What took the unit's symbols; none of it has departed.
        x: What later units see.
        frame: Number of the unit's first frame.
        rate: That it was coded at.

    Raises:
        OverflowingError: It holds NaN or infinity.
    """
    if isinstance(port, DeviceEncodePort):
        port.check(x, overflow_of(frame, rate))
    else:
        check_finite(x, frame, rate)


def pack(
    head: bytes,
    port: EncodePort,
    frames: int,
    x_hat: Tensor | None = None,
    *,
    covers_head: bool = True,
) -> Packet:
    """Return a packet of what a port took.

    Args:
        head: Its payload before the symbols.
        port: What took the symbols.
        frames: As in :class:`Packet`.
        x_hat: As there.
        covers_head: Whether its checksum covers the head too.
    """
    if isinstance(port, DeviceEncodePort):
        port.arrive()
    checksum = port.encoder.checksum
    return Packet(
        head + port.encoder.finish(),
        frames,
        zlib.crc32(head, checksum) if covers_head else checksum,
        x_hat,
        port.bits if port.estimate else None,
        port.histograms,
    )


@contextmanager
def read_symbols(
    packet: Packet, head: int, *, covers_head: bool = True
) -> Iterator[SymbolDecoder]:
    """Give what reads a packet's symbols; compare checksums when it is done.

    Args:
        packet: What was received.
        head: Bytes of its payload before the symbols.
        covers_head: As :func:`pack` took it.

    Raises:
        DesyncError: The symbols are not those that were coded.
    """
    decoder = None
    try:
        decoder = SymbolDecoder(packet.payload[head:])
        yield decoder
        decoder.finish()
    except ValueError as error:
        asked = decoder is not None and decoder.asked
        raise DesyncError(
            f"the symbols cannot be read ({error}): "
            f"{OTHER_PROBABILITIES if asked else OTHER_FILE}"
        ) from error
    covered = packet.payload[:head] if covers_head else b""
    found = zlib.crc32(covered, decoder.checksum)
    if found != packet.checksum:
        raise DesyncError(
            f"symbol checksum {found:08x} instead of {packet.checksum:08x}: "
            f"{OTHER_PROBABILITIES}"
        )
