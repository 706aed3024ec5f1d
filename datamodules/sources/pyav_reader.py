"""Frames that PyAV decodes by number, and what a video's packets say of them."""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from datamodules.sources.source import ClipError, Frames


class PyAvReader:
    """A reader that opens its file anew for every clip.

    Args:
        path: The video.
        exact: Decode from the first frame on, instead of from the nearest keyframe.

    Raises:
        ClipError: FFmpeg cannot open it, or it holds no frames.
    """

    def __init__(self, path: Path, exact: bool = False) -> None:
        self._path = path
        self._keyframes: dict[int, int] = {}
        if not exact:
            stamps, keyframes = packet_stamps(path)
            self._keyframes = {key: bisect_left(stamps, key) for key in keyframes}

    def read(self, numbers: Sequence[int]) -> Frames:
        """Return frames by number (see :meth:`DecordReader.read`)."""
        wanted = set(numbers)
        before = [key for key, at in self._keyframes.items() if 0 < at <= numbers[0]]
        seek_to = max(before) if before else None
        try:
            frames = self._decode(wanted, numbers[-1], seek_to)
            if len(frames) < len(wanted) and seek_to is not None:
                # The container called a frame a keyframe that is none.
                frames = self._decode(wanted, numbers[-1], None)
        except (av.FFmpegError, OSError) as error:
            raise ClipError(f"FFmpeg: {first_line(error)}") from error
        if len(frames) < len(wanted):
            raise ClipError(
                f"FFmpeg decoded {len(frames)} of {len(wanted)} frames "
                f"up to number {numbers[-1]}"
            )
        if len({frame.shape for frame in frames}) > 1:
            raise ClipError("frames differ in size")
        return np.stack(frames)

    def _decode(self, wanted: set[int], last: int, seek_to: int | None) -> list[Frames]:
        """Return what can be decoded of the wanted frames, in order."""
        frames: list[Frames] = []
        with av.open(str(self._path.absolute())) as container:
            stream = container.streams.video[0]
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
                        return self._decode(wanted, last, None)
                for frame in packet.decode():
                    if number in wanted:
                        frames.append(frame.to_ndarray(format="rgb24"))
                    number += 1
                if number > last:
                    break
        return frames


def packet_stamp(packet: Any, otherwise: int) -> int:
    """Return when a packet's picture is shown, in the stream's time base."""
    for stamp in (packet.pts, packet.dts):
        if stamp is not None:
            return int(stamp)
    return otherwise


def packet_stamps(path: Path) -> tuple[list[int], list[int]]:
    """Find when each picture of a video is shown, without decoding it.

    Packets that are damaged, that an edit list discards, or that share their time
    with another (hidden reference frames of VP8 and VP9) show no picture of their
    own; without them the count is that of the frames a decoder gives.

    Returns:
        Sorted times of all pictures and of those that decoding can start at, in the
        stream's time base.

    Raises:
        ClipError: FFmpeg cannot open it, or it holds no video.
    """
    stamps: set[int] = set()
    keyframes: set[int] = set()
    try:
        with av.open(str(path.absolute())) as container:
            if not container.streams.video:
                raise ClipError("no video stream")
            for packet in container.demux(container.streams.video[0]):
                if not packet.size or packet.is_corrupt or packet.is_discard:
                    continue
                stamp = packet_stamp(packet, len(stamps))
                stamps.add(stamp)
                if packet.is_keyframe:
                    keyframes.add(stamp)
    except (av.FFmpegError, OSError) as error:
        # What a truncated file holds before the cut is still good.
        if not stamps:
            raise ClipError(f"FFmpeg: {first_line(error)}") from error
    return sorted(stamps), sorted(keyframes)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
