"""What files and directories of images hold, and whether that can be measured on."""

import re
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

from datamodules.frames import open_video
from datamodules.paths import IMAGE_SUFFIXES, find_frames
from datamodules.pipes import SAVE_FIRST, is_pipe
from datamodules.raw_video import RawVideo, read_y4m
from datamodules.sequences.standard_sets import STANDARD_SETS, parse_name
from datamodules.sources.pyav_reader import count_frames
from datamodules.video_reader import VideoError
from datamodules.yuv import yuv420_frame_size

# What copies of the sequences come in besides the table's own sizes.
_OTHER_SIZES = ((3840, 2160), (1920, 1088), (1920, 1024))
RATE_ROUNDED = 1e-4


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
    if is_pipe(path):
        raise VideoError(f"{path} is {SAVE_FIRST}")
    suffix = path.suffix.lower()
    if suffix == ".yuv":
        return _examine_raw(path)
    if suffix == ".y4m":
        open_y4m(path)
    with open_video(path) as video:
        frames = video.frames
        if suffix not in (".y4m", *IMAGE_SUFFIXES):
            # Containers count packets that show nothing too, or do not count.
            frames, _ = count_frames(path)
        return Content(video.width, video.height, video.fps, frames)


def _examine_raw(path: Path) -> Content:
    size, fps, depth = settle_raw_format(path)
    if size is None or fps is None:
        raise VideoError(
            f"raw file {path} must say its size and frames per second in its name, "
            "like name_416x240_50.yuv"
        )
    if depth != 8:
        raise VideoError(f"{path} has {depth} bits by its name, only 8 can be measured")
    with open_video(path, size=size, fps=fps) as video:
        if not video.frames:
            raise VideoError(f"{path} holds no frame")
        return Content(video.width, video.height, fps, video.frames)


def settle_raw_format(
    path: Path,
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    depth: int | None = None,
) -> tuple[tuple[int, int] | None, Fraction | None, int]:
    """Return what a raw ``.yuv`` holds: as the user says, or else as its name does.

    Args:
        path: The file.
        size: (height, width), if given.
        fps: Frames per second, if given.
        depth: Bits per sample, if given.

    Returns:
        Size and rate, ``None`` where nobody says one, and depth, by default 8.

    Raises:
        VideoError: The user and the name contradict each other, or its samples are not
            4:2:0 by its name.
    """
    stated = parse_name(path.stem)
    if stated.chroma not in (None, "420"):
        raise VideoError(
            f"{path} has {stated.chroma} chroma by its name, only 420 is read"
        )
    unlike = []
    if size and stated.size and size != stated.size:
        unlike.append(f"{stated.size[1]}x{stated.size[0]}, not {size[1]}x{size[0]}")
    # Names round: 29.97 for 30000/1001.
    if fps and stated.fps and abs(fps / stated.fps - 1) > RATE_ROUNDED:
        unlike.append(f"{_number(stated.fps)} fps, not {_number(fps)}")
    if depth is not None and stated.depth not in (None, depth):
        unlike.append(f"{stated.depth} bits, not {depth}")
    if unlike:
        raise VideoError(
            f"the name of {path} says {' and '.join(unlike)}: leave that option out, "
            "or rename the file"
        )
    return (
        size or stated.size,
        fps or stated.fps,
        (stated.depth or 8) if depth is None else depth,
    )


def _number(rate: Fraction) -> str:
    return f"{float(rate):g}"


def check_content(
    path: Path, width: int, height: int, frames: int, *, all_frames: bool
) -> None:
    """Compare a raw file or a directory of images with what a list says of it.

    Args:
        path: The file or directory.
        width: Columns.
        height: Rows.
        frames: Frames that are wanted.
        all_frames: Whether it must not hold more than those.

    Raises:
        ValueError: It differs.
    """
    if path.is_dir():
        found = examine(path)
        _check_size(path, found, width, height)
        has = found.frames or 0
        if has < frames or (all_frames and has > frames):
            raise VideoError(f"{path} holds {has} images, not {frames}")
        return
    if path.suffix.lower() not in (".yuv", ".y4m"):
        raise VideoError(f"{path} is no .yuv, .y4m or directory of images")
    head_bytes, frame_bytes = 0, yuv420_frame_size(height, width)
    if path.suffix.lower() == ".y4m":
        header = open_y4m(path)
        _check_size(path, header, width, height)
        head_bytes, frame_bytes = header.header_bytes, header.frame_bytes
    has = path.stat().st_size - head_bytes
    whole, rest = divmod(has, frame_bytes)
    if (whole, rest) == (frames, 0) or (whole > frames and not (rest or all_frames)):
        return
    if head_bytes:
        meant = f"{whole} frames{' and a part of one' * bool(rest)}"
    else:
        meant = _explain_size(has, width, height, frames)
    raise VideoError(
        f"{path} has {head_bytes + has} bytes, {frames} frames of {width}x{height} "
        f"8-bit 4:2:0 have {head_bytes + frames * frame_bytes}; it would be {meant}"
    )


def _check_size(path: Path, found: Content | RawVideo, width: int, height: int) -> None:
    if (found.width, found.height) != (width, height):
        raise VideoError(
            f"{path} is {found.width}x{found.height}, not {width}x{height}"
        )


def open_y4m(path: Path) -> RawVideo:
    """Read the header of a y4m file that can be measured on.

    Raises:
        VideoError: It is none, or has more than 8 bits.
    """
    raw = read_y4m(path)
    if raw.depth != 8:
        raise VideoError(f"{path} has {raw.depth} bits, only 8 can be measured")
    return raw


def _check_numbers(directory: Path) -> None:
    """Refuse images that are not numbered one by one: a frame is missing, or extra."""
    for image, following in pairwise(find_frames(directory)):
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


def _explain_size(nbytes: int, width: int, height: int, frames: int) -> str:
    """Say what raw 4:2:0 video a file could be that should be this one, and is not."""
    frame_bytes = yuv420_frame_size(height, width)
    whole, rest = divmod(nbytes, frame_bytes)
    guesses = []
    if not rest:
        guesses.append(f"{whole} frames of {width}x{height}")
    if nbytes == 2 * frames * frame_bytes:
        guesses.append(f"{frames} frames of more than 8 bits")
    for other_width, other_height in _sizes():
        if nbytes == frames * yuv420_frame_size(other_height, other_width):
            guesses.append(f"{frames} frames of {other_width}x{other_height}")
    part = f"{whole} frames of {width}x{height} and a part of one"
    return " or ".join(guesses) or part


def _sizes() -> Iterable[tuple[int, int]]:
    """Return (width, height) of everything that a test sequence may be, each once."""
    sequences = chain.from_iterable(STANDARD_SETS.values())
    table = [(sequence.width, sequence.height) for sequence in sequences]
    return dict.fromkeys([*table, *_OTHER_SIZES])
