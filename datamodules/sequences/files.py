"""The planes of test sequences, frame by frame.

Frames are read as 8-bit planes. Where a file holds full-range 8-bit 4:2:0, these are
its own integers (a raw ``.yuv`` is taken for full range, as the field does, whatever it
was made in). Everything else becomes RGB first, as :mod:`datamodules.frames` says, and
planes from there: those of a studio-range or BT.601 video, taken as they are, would
name other colours under the suite's matrix, and PNG images have none. What results is
rounded to 8 bits, so that every codec gets the same integers and is measured against
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from datamodules.frames import open_video
from datamodules.paths import IMAGE_SUFFIXES
from datamodules.raw_video import RawVideo, read_y4m
from datamodules.sequences.content import open_y4m
from datamodules.video_reader import VideoError
from datamodules.yuv import Codes, Colour, YuvAs, quantise, rgb_to_planes

STORED_PLANES = "8-bit 4:2:0 planes as stored"


class ComputedClip(Protocol):
    """Frames that no file holds."""

    @property
    def origin(self) -> str:
        """Say what they are computed from, for the record."""

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Compute frames (H, W, 3), RGB, 0..255."""


@dataclass(frozen=True)
class VideoSequence:
    """A video to measure on.

    Attributes:
        set: The set that it belongs to.
        name: Its name, unique within the set and without slashes.
        path: File, or directory of images; of a clip that is computed what it is made
            of.
        width: Columns.
        height: Rows.
        fps: Frames per second.
        frames: How many a full pass gives; ``None`` for a y4m whose size does not say.
        listed: Whether a table or configuration says that there are so many.
        clip: What computes the frames, where no file holds them.
    """

    set: str
    name: str
    path: Path
    width: int
    height: int
    fps: Fraction
    frames: int | None
    listed: bool = False
    clip: ComputedClip | None = None


def frames_to_read(sequence: VideoSequence, max_frames: int | None) -> int | None:
    """Return how many frames :func:`read_codes` gives at most; ``None``: no limit.

    Raises:
        ValueError: ``max_frames`` is below 1, or more than a listed sequence has.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames is {max_frames}, it must be at least 1")
    if sequence.frames is None or max_frames is None:
        return sequence.frames or max_frames
    if sequence.listed and max_frames > sequence.frames:
        raise ValueError(
            f"{max_frames} frames were asked for, but {sequence.name} of set "
            f"{sequence.set} has {sequence.frames}: ask for at most that many, or for "
            "all"
        )
    return min(sequence.frames, max_frames)


def read_codes(
    sequence: VideoSequence,
    colour: Colour,
    max_frames: int | None = None,
    yuv_as: YuvAs = "full709",
) -> Iterator[Codes]:
    """Read a sequence's planes from the first frame on, one frame at a time.

    Args:
        sequence: What to read.
        colour: ``yuv420``: Y (H, W), U and V (ceil(H/2), ceil(W/2)). ``rgb``: R, G and
            B (H, W).
        max_frames: Stop after so many; a shorter sequence gives all it has, unless it
            is listed.
        yuv_as: How a raw 4:2:0 file becomes RGB: ``full709`` (full-range BT.709, chroma
            repeated) or ``ffmpeg`` (its default conversion).

    Returns:
        Three uint8 planes per frame; reading raises ``VideoError`` at a frame that is
        damaged or missing.

    Raises:
        ValueError: See :func:`frames_to_read`.
    """
    frames = frames_to_read(sequence, max_frames)
    if colour == "yuv420" and source_kind(sequence) == STORED_PLANES:
        codes: Iterator[Codes] = _stored(sequence).codes()
    else:
        codes = _converted_codes(sequence, colour, yuv_as)
    return _check_count(sequence, islice(codes, frames), frames)


def source_kind(sequence: VideoSequence) -> str:
    """Say what is in the file, for the record: planes that are used as stored, or not.

    Raises:
        VideoError: It is a y4m that cannot be read.
    """
    if sequence.clip:
        return sequence.clip.origin
    suffix = sequence.path.suffix.lower()
    if sequence.path.is_dir() or suffix in IMAGE_SUFFIXES:
        return "RGB images"
    if suffix == ".y4m" and open_y4m(sequence.path).full_range is False:
        return "studio-range 4:2:0 planes, converted to RGB"
    if suffix in (".yuv", ".y4m"):
        return STORED_PLANES
    return "decoded to RGB by FFmpeg"


def _stored(sequence: VideoSequence) -> RawVideo:
    if sequence.path.suffix.lower() == ".y4m":
        return read_y4m(sequence.path)
    return RawVideo(sequence.path, sequence.width, sequence.height, sequence.fps)


def _converted_codes(
    sequence: VideoSequence, colour: Colour, yuv_as: YuvAs
) -> Iterator[Codes]:
    if sequence.clip:
        for pixels in sequence.clip.frames():
            rgb = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
            yield quantise(rgb_to_planes(rgb, colour))
        return
    size = (sequence.height, sequence.width)
    with open_video(sequence.path, size=size, fps=sequence.fps, yuv_as=yuv_as) as video:
        for frame in video:
            yield quantise(rgb_to_planes(frame, colour))


def _check_count(
    sequence: VideoSequence, codes: Iterator[Codes], frames: int | None
) -> Iterator[Codes]:
    read = 0
    for frame in codes:
        yield frame
        read += 1
    if sequence.frames is not None and read != frames:
        raise VideoError(
            f"{sequence.path} ends before frame {read} (from 0): {frames} frames were "
            "to be read"
        )
