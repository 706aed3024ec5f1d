"""Frames that PyAV decodes by number, and what a video's packets say of them."""

from bisect import bisect_left
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from datamodules.pyav import av
from datamodules.sources.source import Blocks, ClipError, Frames
from datamodules.video_reader import VideoError
from datamodules.video_stream import open_stream, turn_upright

Decoding: TypeAlias = Generator[tuple[int, Frames], None, int]
"""Frames as :data:`Blocks`; it returns how many it gave."""


class PyAvReader:
    """A reader that opens its file anew for every clip.

    Args:
        path: The video.
        exact: Decode from the first frame on, instead of from the nearest keyframe.
        frames: How many it has; where its packets say another number, it is decoded
            from the first frame on.

    Raises:
        ClipError: FFmpeg cannot open it, or it holds no frames.
    """

    def __init__(
        self, path: Path, exact: bool = False, frames: int | None = None
    ) -> None:
        self._path = path
        self._keyframes: dict[int, int] = {}
        if exact:
            return
        stamps, keyframes, _ = read_packets(path)
        if frames in (None, len(stamps)):
            self._keyframes = {key: bisect_left(stamps, key) for key in keyframes}

    def blocks(self, numbers: Sequence[int]) -> Blocks:
        """Give frames by number, one at a time (see :meth:`DecordReader.blocks`)."""
        before = [key for key, at in self._keyframes.items() if 0 < at <= numbers[0]]
        seek_to = max(before) if before else None
        try:
            given = yield from self._decode(numbers, seek_to)
            if given < len(numbers) and seek_to is not None:
                # The container called a frame a keyframe that is none.
                given = yield from self._decode(numbers, None)
        except (av.FFmpegError, OSError) as error:
            raise ClipError(f"FFmpeg: {first_line(error)}") from error
        except VideoError as error:
            raise ClipError(str(error)) from error
        if given < len(numbers):
            raise ClipError(
                f"FFmpeg decoded {given} of {len(numbers)} frames "
                f"up to number {numbers[-1]}"
            )

    def _decode(self, numbers: Sequence[int], seek_to: int | None) -> Decoding:
        """Give those frames that can be decoded; return how many."""
        wanted, given = set(numbers), 0
        with open_stream(self._path) as (container, stream):
            stream.codec_context.thread_count = 1
            number: int | None = 0
            if seek_to is not None:
                container.seek(seek_to, stream=stream)
                number = None
            for packet in container.demux(stream):
                if number is None:
                    # The demuxer may land on an earlier keyframe than asked for.
                    number = self._keyframes.get(packet_stamp(packet, -1))
                    if number is None:
                        return (yield from self._decode(numbers, None))
                for frame in packet.decode():
                    if number in wanted:
                        pixels = frame.to_ndarray(format="rgb24")
                        yield given, turn_upright(frame, pixels)[None]
                        given += 1
                    number += 1
                if number > numbers[-1]:
                    break
        return given


def packet_stamp(packet: Any, otherwise: int) -> int:
    """Return when a packet's picture is shown, in the stream's time base."""
    for stamp in (packet.pts, packet.dts):
        if stamp is not None:
            return int(stamp)
    return otherwise


class Packets(NamedTuple):
    """What the packets of a video say.

    Attributes:
        stamps: Sorted times at which pictures are shown, each once, in the stream's
            time base.
        keyframes: Those of them that decoding can start at.
        tell_frames: Whether each time is that of one picture. Not where packets share
            one (hidden frames of VP8 and VP9, or more frames a second than the time
            base has ticks), and not where some come before anything to decode them
            from.
    """

    stamps: list[int]
    keyframes: list[int]
    tell_frames: bool


def read_packets(path: Path) -> Packets:
    """Find when each picture of a video is shown, without decoding it.

    Packets that are damaged or that an edit list discards show no picture.

    Raises:
        ClipError: FFmpeg cannot open it, or it holds no video that can be decoded.
    """
    stamps: set[int] = set()
    keyframes: set[int] = set()
    count, begins, leading = 0, True, False
    try:
        with open_stream(path) as (container, stream):
            for packet in container.demux(stream):
                if not packet.size or packet.is_corrupt or packet.is_discard:
                    continue
                stamp = packet_stamp(packet, count)
                if not count:
                    begins, first = packet.is_keyframe, stamp
                leading |= stamp < first
                count += 1
                stamps.add(stamp)
                if packet.is_keyframe:
                    keyframes.add(stamp)
    except VideoError as error:
        raise ClipError(str(error)) from error
    except (av.FFmpegError, OSError) as error:
        # What a truncated file holds before the cut is still good.
        if not stamps:
            raise ClipError(f"FFmpeg: {first_line(error)}") from error
    tell = begins and not leading and count == len(stamps)
    return Packets(sorted(stamps), sorted(keyframes), tell)


def count_frames(path: Path) -> tuple[int, bool]:
    """Count the pictures that a decoder gives, decoding only where packets mislead.

    Returns:
        Their number, and whether the packets tell it.

    Raises:
        ClipError: See :func:`read_packets`.
    """
    packets = read_packets(path)
    if packets.tell_frames:
        return len(packets.stamps), True
    frames = 0
    try:
        with open_stream(path) as (container, stream):
            for _ in container.decode(stream):
                frames += 1
    except (av.FFmpegError, OSError) as error:
        if not frames:
            raise ClipError(f"FFmpeg: {first_line(error)}") from error
    return frames, False


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
