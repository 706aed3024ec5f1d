"""What every source shares: its interface, cutting a clip out, reading images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from datamodules.images import decode_image

Frames: TypeAlias = npt.NDArray[np.uint8]
Rng: TypeAlias = np.random.Generator
Blocks: TypeAlias = Iterator[tuple[int, Frames]]
"""Whole frames of a clip, some at a time: the place of a block's first frame in the
clip, and the block (n, H, W, 3), RGB, 0..255. A reader that has to begin again gives
place 0 once more."""

BLOCK_BYTES = 16 << 20
"""Bytes of whole frames that a reader gives at once; two frames of 1080p."""

# A fixed clip is decoded from the first frame on, so it must not start late.
LATEST_FIXED_START = 240


class ClipError(ValueError):
    """A video that cannot give the clip asked for: skipped, counted and reported."""


class Window(NamedTuple):
    """A part of a frame: its first row and column, and how many there are."""

    top: int
    left: int
    rows: int
    columns: int


class ClipSource(ABC):
    """A list of videos that clips are read from.

    Sources are pickled into loader workers; what must not travel (open files) is
    opened there.

    Attributes:
        default_stride: Distance between the frames of a clip if the user names none.
        skipped: Videos left out when the source was opened: label -> reason.
    """

    default_stride: ClassVar[int] = 1
    skipped: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of videos."""

    @abstractmethod
    def label(self, item: int) -> str:
        """Return a name for reports of video ``item``, from 0."""

    @abstractmethod
    def read(
        self, item: int, rng: Rng | None, frames: int, crop: int | None, stride: int
    ) -> Frames:
        """Read one clip.

        A video with too few frames is played back and forth (see :func:`window`).

        Args:
            item: Number of the video, from 0.
            rng: Draws the window and the crop. ``None`` asks for the fixed clip:
                always the same frames, decoded frame-exactly, and the largest
                centred crop that fits.
            frames: Length of the clip.
            crop: Side of the square crop in pixels; ``None`` for whole frames.
            stride: Distance between neighbouring frames of the clip, at least 1.

        Returns:
            (frames, H, W, 3), RGB, 0..255.

        Raises:
            ClipError: The video is broken, or too small for the crop.
        """

    def unfit(self, item: int, frames: int, crop: int) -> str:
        """Say why a video can give no random clip, as far as that is known unopened.

        Args:
            item: Number of the video, from 0.
            frames: Length of the clip.
            crop: Side of its square crop in pixels.

        Returns:
            The reason; empty if there is none, or nothing is known.
        """
        return ""

    def hold_out(self, most: int) -> tuple[Sequence[int], Sequence[int]] | None:
        """Share the videos out between training and validation.

        Args:
            most: How many may validate, at least 1.

        Returns:
            Numbers of those that train, and of those that validate: the last ones.
            ``None`` if there are too few to hold any out.
        """
        kept = len(self) - most
        return (range(kept), range(kept, len(self))) if kept >= most else None

    @abstractmethod
    def describe(self) -> str:
        """Say in one line what this source holds."""

    def test_part(self) -> "ClipSource | None":
        """Return what the data set keeps apart for tests, ``None`` if it does not."""
        return None


def read_clip(
    blocks: Callable[[list[int]], Blocks],
    length: int,
    rng: Rng | None,
    frames: int,
    crop: int | None,
    stride: int,
) -> Frames:
    """Read a clip, as :meth:`ClipSource.read` says, of a video of ``length`` frames.

    Whole frames never exist all at once: each block is cropped before the next is read.

    Args:
        blocks: Gives frames by number; it is asked for rising ones, each once.
        length: Frames of the video.
        rng: See :meth:`ClipSource.read`, as for the rest.
        frames: Length of the clip.
        crop: Side of its crop.
        stride: Distance between its frames.

    Returns:
        A view of memory that holds a frame's channels one after another, as a tensor
        of the clip does.
    """
    numbers = window(length, frames, stride, rng)
    distinct, places = np.unique(numbers, return_inverse=True)
    before: Any = rng.bit_generator.state if rng else None
    try:
        clip = _cropped(blocks(distinct.tolist()), len(distinct), crop, rng)
    except ClipError:
        if rng:
            # The next draw, of another video, does not depend on how far this one got.
            rng.bit_generator.state = before
        raise
    if distinct.tolist() != numbers:
        clip = clip[places]
    return clip.transpose(0, 2, 3, 1)


def _cropped(blocks: Blocks, count: int, crop: int | None, rng: Rng | None) -> Frames:
    """Return crops (count, 3, H, W) of whole frames."""
    clip: Frames | None = None
    for first, block in blocks:
        height, width = block.shape[1:3]
        if clip is None:
            size = height, width
            top, left, rows, columns = choose_window(height, width, crop, rng)
            clip = np.empty((count, 3, rows, columns), np.uint8)
        if size != (height, width):
            raise ClipError("frames differ in size")
        part = block[:, top : top + rows, left : left + columns]
        clip[first : first + len(block)] = part.transpose(0, 3, 1, 2)
        # The next one needs its place.
        del block, part
    assert clip is not None, "a reader gives frames, or raises"
    return clip


def block_length(frame_bytes: int) -> int:
    """Return how many whole frames of so many bytes a block may have, at least 1."""
    return max(1, BLOCK_BYTES // frame_bytes)


def window(length: int, frames: int, stride: int, rng: Rng | None) -> list[int]:
    """Choose the frames of a clip.

    Where the video is shorter than the clip, it is played back and forth: 0 ... n-1,
    n-2 ... 1, 0 ...

    Args:
        length: Frames of the video, at least 1.
        frames: Frames of the clip.
        stride: Distance between neighbouring frames of the clip.
        rng: Draws the start; ``None`` takes the middle, or frame 240 if that is later.

    Returns:
        Frame numbers in playing order, each from 0 to ``length - 1``.

    Raises:
        ClipError: The video has one frame only, and a clip of several was asked for.
    """
    check_length(length, frames)
    last_start = max(0, length - 1 - (frames - 1) * stride)
    if rng is None:
        start = min(last_start // 2, LATEST_FIXED_START)
    else:
        start = int(rng.integers(last_start + 1))
    period = max(1, 2 * length - 2)
    steps = [(start + i * stride) % period for i in range(frames)]
    return [min(step, period - step) if step else 0 for step in steps]


def choose_window(height: int, width: int, crop: int | None, rng: Rng | None) -> Window:
    """Choose which part of a clip's frames is kept.

    Args:
        height: Of the whole frames.
        width: Of the whole frames.
        crop: Side of the square; ``None`` for whole frames.
        rng: Draws the place; ``None`` takes the largest centred crop that fits.

    Raises:
        ClipError: The frames are smaller than a random crop.
    """
    if crop is None:
        return Window(0, 0, height, width)
    if rng is None:
        rows, columns = min(crop, height), min(crop, width)
        return Window((height - rows) // 2, (width - columns) // 2, rows, columns)
    check_size(height, width, crop)
    top = int(rng.integers(height - crop + 1))
    return Window(top, int(rng.integers(width - crop + 1)), crop, crop)


def unfit_for(length: int, height: int, width: int, frames: int, crop: int) -> str:
    """Say what length and size of a video have against a clip; nothing if it fits."""
    try:
        check_length(length, frames)
        check_size(height, width, crop)
    except ClipError as error:
        return str(error)
    return ""


def check_length(length: int, frames: int) -> None:
    """Raise :class:`ClipError` if a video has no two frames to play to and fro."""
    if length < 1 or (length == 1 and frames > 1):
        raise ClipError(f"too short: {length} frame(s)")


def check_size(height: int, width: int, crop: int) -> None:
    """Raise :class:`ClipError` if a crop of side ``crop`` does not fit."""
    if min(height, width) < crop:
        raise ClipError(f"too small: {width}x{height}, the crop is {crop}x{crop}")


@cache
def opencv() -> Any:
    """Import OpenCV with its threads off: workers are the parallelism.

    A thread pool would also not survive the fork that starts a worker.
    """
    import cv2

    cv2.setNumThreads(0)
    return cv2


def read_images(paths: Sequence[Path]) -> Frames:
    """Return PNG or JPEG files as frames (len(paths), H, W, 3), RGB, 0..255.

    Raises:
        ClipError: See :func:`image_blocks`.
    """
    return np.concatenate([block for _, block in image_blocks(paths)])


def image_blocks(paths: Sequence[Path]) -> Blocks:
    """Give PNG or JPEG files as frames, one at a time.

    Raises:
        ClipError: A file is missing, is cut, does not decode or differs in size.
    """
    cv2 = opencv()
    size = ""
    for number, path in enumerate(paths):
        try:
            image = decode_image(path, cv2.IMREAD_COLOR)
        except (OSError, ValueError) as error:
            what = str(error) if path.is_file() else "is missing"
            raise ClipError(f"frame {path.name} {what}") from error
        own = f"{image.shape[1]}x{image.shape[0]}"
        if own != (size := size or own):
            raise ClipError(
                f"frames differ in size: {paths[0].name} is {size}, "
                f"{path.name} is {own}"
            )
        yield number, image[None, :, :, ::-1]
