"""The files that hold test sequences: what is in them, and their planes frame by frame.

Frames are read as 8-bit planes. Where a file holds full-range 8-bit 4:2:0, these are
its own integers (a raw ``.yuv`` is taken for full range, as the field does, whatever it
was made in). Everything else becomes RGB first, as :mod:`datamodules.frames` says, and
planes from there: those of a studio-range or BT.601 video, taken as they are, would
name other colours under the suite's matrix, and PNG images have none. What results is
rounded to 8 bits, so that every codec gets the same integers and is measured against
them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, islice, pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from datamodules.frames import (
    IMAGE_SUFFIXES,
    VideoError,
    Y4mHeader,
    find_images,
    open_video,
    read_y4m_codes,
    read_y4m_header,
)
from datamodules.sequences.standard_sets import explain_size, parse_name
from datamodules.sources.readers import packet_stamps
from datamodules.yuv import (
    Codes,
    Colour,
    quantise,
    read_yuv420_frame,
    rgb_to_planes,
    yuv420_frame_size,
)

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
    sequence: VideoSequence, colour: Colour, max_frames: int | None = None
) -> Iterator[Codes]:
    """Read a sequence's planes from the first frame on, one frame at a time.

    Args:
        sequence: What to read.
        colour: ``yuv420``: Y (H, W), U and V (ceil(H/2), ceil(W/2)). ``rgb``: R, G and
            B (H, W); of a 4:2:0 file by the full-range BT.709 matrix with chroma
            repeated.
        max_frames: Stop after so many; a shorter sequence gives all it has, unless it
            is listed.

    Returns:
        Three uint8 planes per frame; reading raises ``VideoError`` at a frame that is
        damaged or missing.

    Raises:
        ValueError: See :func:`frames_to_read`.
    """
    frames = frames_to_read(sequence, max_frames)
    if colour == "yuv420" and source_kind(sequence) == STORED_PLANES:
        return _check_count(sequence, _stored_codes(sequence, frames), frames)
    return _check_count(sequence, _converted_codes(sequence, colour, frames), frames)


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
    if suffix == ".y4m" and not _y4m_header(sequence.path).full_range:
        return "studio-range 4:2:0 planes, converted to RGB"
    if suffix in (".yuv", ".y4m"):
        return STORED_PLANES
    return "decoded to RGB by FFmpeg"


def _stored_codes(sequence: VideoSequence, frames: int | None) -> Iterator[Codes]:
    path, height, width = sequence.path, sequence.height, sequence.width
    with path.open("rb") as file:
        if path.suffix.lower() == ".y4m":
            stored = read_y4m_codes(file, read_y4m_header(file))
        else:
            stored = (read_yuv420_frame(file, height, width) for _ in count())
        for number in count():
            if number == frames:
                return
            try:
                codes = next(stored, None)
            except ValueError as error:
                where = f"{path}: frame {number} (from 0)"
                raise VideoError(f"{where}: {error}") from error
            if codes is None:
                return
            yield codes


def _converted_codes(
    sequence: VideoSequence, colour: Colour, frames: int | None
) -> Iterator[Codes]:
    if sequence.clip:
        for pixels in islice(sequence.clip.frames(), frames):
            rgb = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
            yield quantise(rgb_to_planes(rgb, colour))
        return
    size = (sequence.height, sequence.width)
    with open_video(sequence.path, size=size, fps=sequence.fps) as video:
        for frame in islice(video, frames):
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


class Content(NamedTuple):
    """What a file or directory of images holds; see :class:`VideoSequence`."""

    width: int
    height: int
    fps: Fraction
    frames: int | None


def examine(path: Path) -> Content:
    """Find out what a file or directory of images holds that no list describes.

    A raw ``.yuv`` says it by its name only. Of a container, the pictures are counted.

    Raises:
        ValueError: It cannot be read, or not be measured on.
    """
    if path.is_dir():
        _check_numbers(path)
        with open_video(path) as video:
            fps = parse_name(path.name).fps or video.fps
            return Content(video.width, video.height, fps, video.frames)
    suffix = path.suffix.lower()
    if suffix == ".yuv":
        return _examine_raw(path)
    if suffix == ".y4m":
        _y4m_header(path)
    with open_video(path) as video:
        frames = video.frames
        if suffix not in (".y4m", *IMAGE_SUFFIXES):
            # Containers count packets that show nothing too, or do not count.
            frames = len(packet_stamps(path)[0])
        return Content(video.width, video.height, video.fps, frames)


def _examine_raw(path: Path) -> Content:
    size, fps, depth = parse_name(path.stem)
    if size is None or fps is None:
        raise VideoError(
            f"raw file {path} must say its size and frames per second in its name, "
            "like name_416x240_50.yuv"
        )
    if depth not in (None, 8):
        raise VideoError(f"{path} has {depth} bits by its name, only 8 can be measured")
    with open_video(path, size=size, fps=fps) as video:
        if not video.frames:
            raise VideoError(f"{path} holds no frame")
        return Content(video.width, video.height, fps, video.frames)


def check_content(
    path: Path, width: int, height: int, frames: int, *, all_frames: bool
) -> None:
    """Compare a raw file or a directory of images with what a list says of it.

    Args:
        path: What to look at.
        width: Columns.
        height: Rows.
        frames: Frames that are wanted.
        all_frames: Whether it must not hold more than those.

    Raises:
        ValueError: It differs.
    """
    if path.is_dir():
        found = examine(path)
        _check_size(path, found.width, found.height, width, height)
        has = found.frames or 0
        if has < frames or (all_frames and has > frames):
            raise VideoError(f"{path} holds {has} images, not {frames}")
        return
    if path.suffix.lower() not in (".yuv", ".y4m"):
        raise VideoError(f"{path} is no .yuv, .y4m or directory of images")
    head_bytes, frame_bytes = 0, yuv420_frame_size(height, width)
    if path.suffix.lower() == ".y4m":
        header = _y4m_header(path)
        _check_size(path, header.width, header.height, width, height)
        head_bytes, frame_bytes = header.nbytes, header.frame_bytes
    has = path.stat().st_size - head_bytes
    whole, rest = divmod(has, frame_bytes)
    if (whole, rest) == (frames, 0) or (whole > frames and not (rest or all_frames)):
        return
    if head_bytes:
        meant = f"{whole} frames{' and a part of one' * bool(rest)}"
    else:
        meant = explain_size(has, width, height, frames)
    raise VideoError(
        f"{path} has {head_bytes + has} bytes, {frames} frames of {width}x{height} "
        f"8-bit 4:2:0 have {head_bytes + frames * frame_bytes}; it would be {meant}"
    )


def _check_size(
    path: Path, width: int, height: int, wanted_width: int, wanted_height: int
) -> None:
    if (width, height) != (wanted_width, wanted_height):
        raise VideoError(
            f"{path} is {width}x{height}, not {wanted_width}x{wanted_height}"
        )


def _y4m_header(path: Path) -> Y4mHeader:
    try:
        with path.open("rb") as file:
            header = read_y4m_header(file)
    except ValueError as error:
        raise VideoError(f"{path} is no y4m that can be read: {error}") from error
    if header.depth != 8:
        raise VideoError(f"{path} has {header.depth} bits, only 8 can be measured")
    return header


def _check_numbers(directory: Path) -> None:
    """Refuse images that are not numbered one by one: a frame is missing, or extra."""
    for image, following in pairwise(find_images(directory)):
        number = image_number(image)
        if number is None or image_number(following) != number + 1:
            raise VideoError(
                f"{directory}: {image.name} is followed by {following.name}, but "
                "frames must be numbered one by one"
            )


def image_number(image: Path) -> int | None:
    """Return the number that an image's name ends with, if it does."""
    match = re.search(r"\d+$", image.stem)
    return int(match[0]) if match else None
