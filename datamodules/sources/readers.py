"""Frames out of video files, by number.

decord reads training clips. It counts packets, not pictures: a VP8 file with hidden
frames or an MP4 with an edit list has fewer frames than decord says, and beyond the
last one decord silently repeats it. So its count is compared with the index's, and
where they differ, as where decord cannot open a file (AV1) or is not installed
(outside x86-64 Linux), PyAV reads. PyAV also reads everything that must be
frame-exact, by decoding from the first frame on.

Two differences between them are accepted: decord turns video with rotation metadata
upright, PyAV does not; and after a seek in H.264 with open GOPs (measured: 8 of 60
seeks) or in AVI with B-frames the clip may begin some frames off the place asked for.
Sources of 10 bits and more become 8-bit RGB.
"""

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from datamodules.sources.pyav_reader import PyAvReader
from datamodules.sources.source import ClipError, Frames, opencv

READERS = 8
"""Videos kept open per process; each holds a decoder's memory."""


class DecordReader:
    """An open decord reader with one thread.

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
        except (decord.DECORDError, RuntimeError) as error:
            raise ClipError("decord cannot open it") from error

    def __len__(self) -> int:
        """Return decord's count, which is one of packets."""
        return len(self._video)

    def read(self, numbers: Sequence[int]) -> Frames:
        """Return frames (len(numbers), H, W, 3), RGB, 0..255.

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
            frames: Frames = self._video.get_batch(list(numbers)).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            # Its text is a place in decord's build and a time of day.
            raise ClipError("decord cannot decode its frames") from error
        if frames.ndim != 4 or frames.shape[0] != len(numbers) or frames.shape[3] != 3:
            raise ClipError(
                f"decord returned {frames.shape} for {len(numbers)} RGB frames"
            )
        return frames


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


@lru_cache(maxsize=READERS)
def open_reader(path: Path, frames: int, process: int) -> DecordReader | PyAvReader:
    """Open a video for training clips; those used last stay open.

    Args:
        path: The video.
        frames: How many frames it has (from the index).
        process: Number of this one: after a fork, readers belong to the parent.

    Raises:
        ClipError: Neither decord nor PyAV can open it.
    """
    if has_decord():
        try:
            reader = DecordReader(path)
        except ClipError:
            return PyAvReader(path)
        if len(reader) == frames:
            return reader
    return PyAvReader(path)


def read_frames(path: Path, frames: int, numbers: Sequence[int]) -> Frames:
    """Return frames of a video by number (see :meth:`DecordReader.read`).

    Args:
        path: The video.
        frames: How many frames it has.
        numbers: Frame numbers from 0, rising, each once.

    Raises:
        ClipError: The video cannot be opened or a frame not be read.
    """
    try:
        return open_reader(path, frames, os.getpid()).read(numbers)
    except BaseException:
        # One that failed must not be read again.
        open_reader.cache_clear()
        raise
