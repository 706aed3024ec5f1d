"""Frames out of video files, by number.

decord reads training clips. It counts packets, not pictures: a VP8 file with hidden
frames or an MP4 with an edit list has fewer frames than decord says, and beyond the
last one decord silently repeats it. So its count is compared with the index's, and
where they differ, as where decord cannot open a file (AV1) or is not installed
(outside x86-64 Linux), PyAV reads. PyAV also reads everything that must be
frame-exact, by decoding from the first frame on.

Video that is to be turned or mirrored is PyAV's too: decord ignores a mirror, and fails
where rows are padded. So is a file of several video tracks, of which decord may choose
another than every command here does. One difference is accepted: after a seek in H.264
with open GOPs (measured: 8 of 60 seeks) or in AVI with B-frames, decord's clip may
begin some frames off the place asked for. Sources of 10 bits and more become 8-bit RGB.
A y4m is converted by the suite itself, as :mod:`datamodules.frames` says, in every
command.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

from datamodules.frames import raw_to_rgb
from datamodules.raw_video import read_y4m
from datamodules.sources.index import VideoInfo
from datamodules.sources.pyav_reader import PyAvReader, first_line
from datamodules.sources.source import (
    Blocks,
    ClipError,
    Frames,
    block_length,
    opencv,
)
from datamodules.yuv import Codes

Video: TypeAlias = tuple[Path, VideoInfo]

READERS_BYTES = 256 << 20
"""Bytes that the readers which a process keeps open may hold."""

PIXEL_BYTES = 32
"""Bytes that a decoder which waits holds for each pixel of a frame, about at most.

Measured: 15 to 20, for H.264 and HEVC, 8 and 10 bits, up to 8K."""

FRAME_BYTES = 64
"""Bytes that lists of packets hold for each frame of a video."""


class DecordReader:
    """An open decord reader with one thread.

    decord has a thread that decodes what follows a clip too, into a queue without end:
    a reader that waits would hold each frame of a short video (measured: 0.7 GB for
    300 of 720p). So each reading ends with a seek, which empties the queue.

    Args:
        path: The video.

    Raises:
        ClipError: decord cannot open it.
    """

    def __init__(self, path: Path) -> None:
        decord = _decord()
        try:
            # More than one thread hangs in a forked worker.
            self._video = decord.VideoReader(str(path.absolute()), num_threads=1)
        except (decord.DECORDError, RuntimeError, UnicodeEncodeError) as error:
            raise ClipError("decord cannot open it") from error

    def __len__(self) -> int:
        """Return decord's count, which is one of packets."""
        return len(self._video)

    def blocks(self, numbers: Sequence[int]) -> Blocks:
        """Give frames by number, as :data:`Blocks`.

        Args:
            numbers: Frame numbers from 0, rising, each once.

        Raises:
            ClipError: A frame cannot be read.
        """
        decord = _decord()
        try:
            # Without this, what a seek in an open GOP gives depends on what was read
            # before, and a resumed run would see other frames.
            self._video.seek(0)
            first, count = 0, 1
            while first < len(numbers):
                some = list(numbers[first : first + count])
                frames: Frames = self._video.get_batch(some).asnumpy()
                if frames.ndim != 4 or len(frames) != len(some) or frames.shape[3] != 3:
                    raise ClipError(
                        f"decord returned {frames.shape} for {len(some)} RGB frames"
                    )
                count = block_length(frames[0].nbytes)
                yield first, frames
                first += len(some)
                # The next ones need their place.
                del frames
            self._video.seek(0)
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            # Its text is a place in decord's build and a time of day.
            raise ClipError("decord cannot decode its frames") from error


@cache
def _decord() -> Any:
    """Import decord, and OpenCV before it.

    The first of the two to be loaded decides which zlib both use, and with decord's
    OpenCV cannot read every PNG.
    """
    opencv()
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    return decord


@cache
def has_decord() -> bool:
    """Tell whether decord can be imported: there are wheels for x86-64 only."""
    try:
        _decord()
    except ImportError:
        return False
    return True


Reader: TypeAlias = DecordReader | PyAvReader


class OpenReaders:
    """The videos that a process keeps open: those read last, within a limit.

    A reader that alone is above it, such as one of 8K, is closed after each clip.

    Args:
        limit: Bytes that all readers together may hold, by an estimate.
    """

    def __init__(self, limit: int = READERS_BYTES) -> None:
        self._limit = limit
        self._process = os.getpid()
        # The one read last is at the end.
        self._open: dict[Video, Reader] = {}
        self._parents: list[dict[Video, Reader]] = []

    def __contains__(self, video: Video) -> bool:
        return video in self._open

    def blocks(self, video: Video, numbers: Sequence[int]) -> Blocks:
        """Give frames of a video by number (see :meth:`DecordReader.blocks`).

        Args:
            video: Its path, and its entry in the index.
            numbers: Frame numbers from 0, rising, each once.

        Raises:
            ClipError: The video cannot be opened or a frame not be read.
        """
        if self._process != os.getpid():
            # After a fork, the parent reads at the same places of the same files. To
            # free its readers would wait for ever for threads that only it has.
            self._parents.append(self._open)
            self._open, self._process = {}, os.getpid()
        # One that fails, or is left amid a clip, must not be read again.
        reader = self._open.pop(video, None)
        self._close(self._limit - held_bytes(video))
        reader = reader or open_reader(video)
        yield from reader.blocks(numbers)
        if held_bytes(video) <= self._limit:
            self._open[video] = reader

    def _close(self, limit: int) -> None:
        """Close those read longest ago, until the others hold at most ``limit``."""
        held = sum(map(held_bytes, self._open))
        while self._open and held > limit:
            video = next(iter(self._open))
            held -= held_bytes(video)
            del self._open[video]


READERS = OpenReaders()
"""The videos that this process keeps open."""


def held_bytes(video: Video) -> int:
    """Estimate the bytes that an open reader holds while it waits."""
    _, info = video
    return PIXEL_BYTES * info.width * info.height + FRAME_BYTES * info.frames


def open_reader(video: Video) -> Reader:
    """Open a video for training clips.

    Raises:
        ClipError: Neither decord nor PyAV can open it.
    """
    path, info = video
    if info.plain and has_decord():
        try:
            reader = DecordReader(path)
        except ClipError:
            return PyAvReader(path, frames=info.frames)
        if len(reader) == info.frames:
            return reader
    return PyAvReader(path, frames=info.frames)


def y4m_blocks(path: Path, numbers: Sequence[int]) -> Blocks:
    """Give frames of a y4m by number, one at a time (see :meth:`DecordReader.blocks`).

    Raises:
        ClipError: It cannot be opened, or a frame not be read.
    """
    try:
        raw = read_y4m(path)
        size = path.stat().st_size - raw.header_bytes
        if size % raw.frame_bytes:
            # It is cut, or its FRAME lines say more than that word.
            wanted = set(numbers)
            some = islice(raw.codes(), numbers[-1] + 1)
            codes: Iterator[Codes] = (
                frame for at, frame in enumerate(some) if at in wanted
            )
        else:
            codes = chain.from_iterable(
                islice(raw.codes(number), 1) for number in numbers
            )
        place = -1
        for place, frame in enumerate(codes):
            rgb = raw_to_rgb(raw, frame).mul_(255).round_().byte()
            yield place, rgb.permute(1, 2, 0).numpy()[None]
        if place + 1 < len(numbers):
            raise ClipError(f"it ends before frame {numbers[-1]} (from 0)")
    except (ValueError, OSError) as error:
        raise ClipError(first_line(error)) from error
