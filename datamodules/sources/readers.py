"""Frames out of video files, by number.

decord reads training clips. It counts packets, not pictures: a VP8 file with hidden
frames or an MP4 with an edit list has fewer frames than decord says, and beyond the
last one decord silently repeats it. So its count is compared with the index's, and
where they differ, as where decord cannot open a file (AV1) or is not installed
(outside x86-64 Linux), PyAV reads. PyAV also reads everything that must be
frame-exact, by decoding from the first frame on.

Video that is to be turned or mirrored is PyAV's too: decord ignores a mirror, and fails
where rows are padded. One difference is accepted: after a seek in H.264 with open GOPs
(measured: 8 of 60 seeks) or in AVI with B-frames, decord's clip may begin some frames
off the place asked for. Sources of 10 bits and more become 8-bit RGB. A y4m
is converted by the suite itself, as :mod:`datamodules.frames` says, in every command.
"""

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from datamodules.frames import raw_to_rgb
from datamodules.raw_video import read_y4m
from datamodules.sources.pyav_reader import PyAvReader, first_line
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
        except (decord.DECORDError, RuntimeError, UnicodeEncodeError) as error:
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
def open_reader(
    path: Path, frames: int, process: int, plain: bool = True
) -> DecordReader | PyAvReader:
    """Open a video for training clips; those used last stay open.

    Args:
        path: The video.
        frames: How many frames it has (from the index).
        process: Number of this one: after a fork, readers belong to the parent.
        plain: Whether decord may read it.

    Raises:
        ClipError: Neither decord nor PyAV can open it.
    """
    if plain and has_decord():
        try:
            reader = DecordReader(path)
        except ClipError:
            return PyAvReader(path, frames=frames)
        if len(reader) == frames:
            return reader
    return PyAvReader(path, frames=frames)


def read_frames(
    path: Path, frames: int, numbers: Sequence[int], plain: bool = True
) -> Frames:
    """Return frames of a video by number (see :meth:`DecordReader.read`).

    Args:
        path: The video.
        frames: How many frames it has.
        numbers: Frame numbers from 0, rising, each once.
        plain: Whether decord may read it.

    Raises:
        ClipError: The video cannot be opened or a frame not be read.
    """
    try:
        return open_reader(path, frames, os.getpid(), plain).read(numbers)
    except BaseException:
        # One that failed must not be read again.
        open_reader.cache_clear()
        raise


def read_y4m_frames(path: Path, numbers: Sequence[int]) -> Frames:
    """Return frames of a y4m by number (see :meth:`DecordReader.read`).

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
            codes = [frame for at, frame in enumerate(some) if at in wanted]
        else:
            codes = [next(raw.codes(number)) for number in numbers]
        if len(codes) < len(numbers):
            raise ClipError(f"it ends before frame {numbers[-1]} (from 0)")
        clip = torch.stack([raw_to_rgb(raw, frame) for frame in codes])
    except (ValueError, OSError, StopIteration) as error:
        raise ClipError(first_line(error)) from error
    frames: Frames = clip.mul_(255).round_().byte().permute(0, 2, 3, 1).numpy()
    return frames
