"""From frames to packets, through a channel that loses some, to frames again.

Everything is pulled by whoever takes the frames: no more than one unit is held, and an
encoder is asked for a frame only when the one before has gone through the channel.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from callbacks.metrics.quality import psnr_yuv
from experiments.bitstreams.coding_mode import frame_bytes
from experiments.stream.channel import Arrival, Echoes, Log, Losses, Parity, SentUnit
from experiments.stream.runs import FrameResult
from lightning_modules.bitstream import Packet
from lightning_modules.codec import VideoCodec
from lightning_modules.psnr import psnr


@dataclass(frozen=True)
class Shown:
    """A frame as a receiver shows it.

    Attributes:
        codes: (3, H, W), 8-bit RGB.
        digest: Of the frame before rounding.
        scales: Scales that were decoded; ``None`` if the codec does not say.
    """

    codes: Tensor
    digest: str
    scales: int | None


def send_units(
    codec: VideoCodec,
    frames: Iterable[Tensor],
    rate: float,
    intra_period: int,
    echoes: Echoes,
) -> Iterator[SentUnit]:
    """Code frames, and code scales anew as the echoes say if the codec can.

    Args:
        codec: Any.
        frames: Each (3, H, W), RGB in [0, 1].
        rate: In the codec's own unit.
        intra_period: Frames between starts without a reference; -1 for one only.
        echoes: Heard of before the unit that they concern is asked for.
    """
    resync: int | None = None

    def ask(number: int) -> int:
        nonlocal resync
        resync = echoes.first_scale(number + 1)
        return resync

    first = 1
    packets: list[Packet] = []
    digests: list[str] = []
    for packet in codec.compress(
        frames,
        rate,
        intra_period=intra_period,
        reconstruct=True,
        resync=ask if codec.can_resync else None,
    ):
        assert packet.x_hat is not None, "reconstruct=True gives x_hat"
        digests += [digest(frame) for frame in packet.x_hat]
        packets.append(replace(packet, x_hat=None))
        if not packet.frames:
            continue
        # Of frames that begin anew anyway it does not ask.
        intra = resync is None if codec.can_resync else None
        echoes.note(first, 1 if intra else resync or 0)
        count = packet.frames
        yield SentUnit(first, count, tuple(packets), resync or 0, intra, tuple(digests))
        first += count
        resync, packets, digests = None, [], []


def deliver(
    units: Iterable[SentUnit], losses: Losses, echoes: Echoes, log: Log
) -> Iterator[Arrival]:
    """Lose packets of units, and echo that to their encoder.

    Args:
        units: What is sent.
        losses: Which packets get lost.
        echoes: Those that the encoder of the units listens to.
        log: Takes each unit with the scales that were lost, before it arrives.
    """
    for unit in units:
        sizes = [len(packet.payload) for packet in unit.packets]
        lost = losses.of_unit(unit.first, unit.frames, sizes)
        if lost:
            echoes.add(unit.first, min(lost))
        log.append((unit, lost))
        yield Arrival(
            unit.frames,
            tuple(
                None if scale in lost else packet
                for scale, packet in enumerate(unit.packets, start=1)
            ),
        )


def show(
    codec: VideoCodec,
    arrivals: Iterable[Arrival],
    size: tuple[int, int],
    scales: int | None = None,
) -> Iterator[Shown]:
    """Decode what arrives, and conceal what does not as the codec does.

    Args:
        codec: Any.
        arrivals: In order, none left out.
        size: (height, width) of the frames, in pixels.
        scales: Decode only so many scales (scalable codecs).

    Raises:
        ValueError: The codec shows fewer frames than were coded.
        DesyncError: A packet that should be decodable is not.
    """
    missing = 0

    def packets() -> Iterator[Packet | None]:
        nonlocal missing
        for arrival in arrivals:
            if missing:
                raise ValueError(
                    f"{type(codec).__name__} asked for the next packet when it had "
                    f"{missing} frames of the last one still to show"
                )
            missing = arrival.frames
            yield from arrival.packets

    for received in codec.receive(packets(), *size, scales=scales):
        # For a lost unit codecs show as many frames as most units have; this one, the
        # first or the last, may have had fewer.
        if missing:
            missing -= 1
            frame = received.frame
            yield Shown(to_codes(frame), digest(frame), received.scales)


def assess(
    source: Iterable[Tensor],
    shown: Iterable[Shown],
    log: Log,
    parity: Parity,
    scales: int | None = None,
) -> Iterator[FrameResult]:
    """Compare frames with their source and with the encoder's own.

    Args:
        source: Each (3, H, W), RGB in [0, 1].
        shown: As many.
        log: Their units and what was lost of them, each there when its first frame is
            shown.
        parity: Which scales it protects, and what that costs.
        scales: How many were to be decoded, whose bits count; all by default.

    Raises:
        ValueError: A frame of which nothing lacks is not the encoder's own.
    """
    left = 0
    for number, (frame, picture) in enumerate(zip(source, shown, strict=True), 1):
        begins = not left
        if begins:
            unit, lost = log.popleft()
            left = unit.frames
        exact = picture.digest == unit.digests[unit.frames - left]
        left -= 1
        decoded = int(exact) if picture.scales is None else picture.scales
        if decoded == len(unit.packets) and not exact:
            raise ValueError(
                f"frame {number} was decoded from all its bits, but is not the one "
                "that the encoder reconstructed: the codec has a fault"
            )
        x_hat, x = picture.codes.float() / 255, to_codes(frame).float() / 255
        wanted = unit.packets[:scales]
        sizes = [len(packet.payload) for packet in wanted]
        by_scale = [8 * size / unit.frames for size in sizes]
        parity_bits = 8 * parity.nbytes(sizes) / unit.frames
        yield FrameResult(
            frame=number,
            bits=sum(by_scale) + parity_bits,
            bits_per_scale=by_scale,
            parity_bits=parity_bits,
            lost=sorted(lost) if begins else [],
            resync=unit.resync,
            intra=unit.intra,
            scales=decoded,
            exact=exact,
            digest=picture.digest,
            psnr_rgb=float(psnr(x_hat, x)),
            psnr_yuv=float(psnr_yuv(x_hat, x)),
        )


def to_codes(frame: Tensor) -> Tensor:
    """Round a frame (3, H, W) in [0, 1] to 8 bits, laid out row by row.

    In which order a codec leaves its channels would show in the last digits of a PSNR.
    """
    codes = frame.float().cpu().clamp(0, 1).mul(255).round()
    return codes.to(torch.uint8).contiguous()


def digest(frame: Tensor) -> str:
    """Return the SHA-256 of a frame's float32 values."""
    return hashlib.sha256(frame_bytes(frame)).hexdigest()
