"""All frames of a video in their order, equal to those that the folder source gives."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from datamodules.paths import find_frames, reason_of
from datamodules.pyav import av
from datamodules.sources.pyav_reader import first_line
from datamodules.sources.source import ClipError, Frames, read_images
from datamodules.video_reader import VideoError
from datamodules.video_stream import open_stream, turn_upright


def decode_frames(path: Path) -> Iterator[Frames]:
    """Give the frames of a video, a y4m or a directory of images.

    Args:
        path: As the folder source's list has it.

    Yields:
        (H, W, 3), RGB, 0..255; each of the size of the first.

    Raises:
        ClipError: The next frame is damaged or of another size, or there is none at
            all. Those before are good.
    """
    shape: tuple[int, ...] | None = None
    number = 0
    try:
        for number, frame in enumerate(_decode(path)):
            if shape not in (None, frame.shape):
                raise ClipError(
                    f"it is {frame.shape[1]}x{frame.shape[0]}, those before it are not"
                )
            shape = frame.shape
            yield frame
            number += 1
    except (OSError, ValueError) as error:
        raise ClipError(f"frame {number} (from 0): {reason_of(error)}") from error
    if shape is None:
        raise ClipError("no frame decodes")


def _decode(path: Path) -> Iterator[Frames]:
    if path.is_dir():
        for image in find_frames(path):
            yield read_images([image])[0]
    elif path.suffix.lower() == ".y4m":
        yield from _decode_y4m(path)
    else:
        yield from _decode_container(path)


def _decode_container(path: Path) -> Iterator[Frames]:
    try:
        with open_stream(path) as (container, stream):
            # Processes are the parallelism.
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                yield turn_upright(frame, frame.to_ndarray(format="rgb24"))
    except av.FFmpegError as error:
        why = error.strerror or first_line(error)
        raise VideoError(f"FFmpeg: {why}") from error


def _decode_y4m(path: Path) -> Iterator[Frames]:
    # Here, because it brings torch.
    from datamodules.frames import raw_to_rgb
    from datamodules.raw_video import read_y4m

    raw = read_y4m(path)
    for codes in raw.codes():
        rgb = raw_to_rgb(raw, codes).mul_(255).round_().byte()
        yield rgb.permute(1, 2, 0).numpy()


def scaled_size(
    height: int, width: int, shorter: int | None, factor: float
) -> tuple[int, int]:
    """Return height and width of stored frames; never larger than the source's.

    Args:
        height: Of the source.
        width: Of the source.
        shorter: The shorter side in the end, ``None`` for any.
        factor: Both sides are divided by it, if there is no ``shorter``.

    Returns:
        Whole numbers, even where they differ from the source's.
    """
    ratio = min(height, width) / shorter if shorter else factor
    if ratio <= 1:
        return height, width
    rows, columns = (max(2, 2 * round(side / ratio / 2)) for side in (height, width))
    return rows, columns


def scale(frame: Frames, size: tuple[int, int]) -> Frames:
    """Scale a frame down to (height, width): each pixel is the mean of its area."""
    if frame.shape[:2] == size:
        return frame
    scaled: Frames = cv2.resize(
        np.ascontiguousarray(frame), size[::-1], interpolation=cv2.INTER_AREA
    )
    return scaled
