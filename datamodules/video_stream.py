"""The video stream of a container: which one it is, and which way up its frames are."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from datamodules.pyav import av
from datamodules.video_reader import VideoError

# The tangent of a degree: FFmpeg takes what is closer to a quarter turn for one.
OBLIQUE = 0.0175


@contextmanager
def open_stream(path: Path, file: IO[bytes] | None = None) -> Iterator[tuple[Any, Any]]:
    """Open a container; gives it and the video stream that FFmpeg would choose.

    Args:
        path: Where it is.
        file: It, if it is open already.

    Raises:
        VideoError: It has no video stream (cover art is none), or one that this FFmpeg
            has no decoder for.
        av.FFmpegError: It cannot be opened.
        OSError: It cannot be read.
    """
    # Absolute, or FFmpeg takes what comes before a colon for a protocol. Tags in other
    # encodings than UTF-8 are common, and none of them is looked at.
    source = file or str(path.absolute())
    with av.open(source, metadata_errors="replace") as container:
        stream = container.streams.best("video")
        if stream is None or is_cover(stream):
            raise VideoError("no video stream")
        if stream.codec_context is None:
            raise VideoError("FFmpeg has no decoder for the codec of its video")
        yield container, stream


def is_cover(stream: Any) -> bool:
    """Tell whether a stream is a picture that players show beside a file's name."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def frame_rate(container: Any, stream: Any) -> Fraction | None:
    """Return frames per second, the average if they vary; ``None`` if unknown.

    An AVI file has no times but a rate, which of H.264 is often that of its fields or
    of another file's clock. FFmpeg looks at what is in it then, and so does this.
    """
    rates = [stream.average_rate, stream.guessed_rate]
    if container.format.name == "avi":
        rates.reverse()
    return rates[0] or rates[1]


def turn_upright(frame: Any, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn and mirror a frame's pixels as its display matrix asks, as FFmpeg does.

    Args:
        frame: A decoded frame of PyAV.
        pixels: (H, W, ...), of the frame as it is stored.

    Returns:
        A view, (H, W, ...) or (W, H, ...).

    Raises:
        VideoError: It is to be turned by an angle between quarter turns.

    Source: libavutil/display.h: a pixel (x, y) goes to (a x + c y, b x + d y).
    """
    matrix = display_matrix(frame)
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, crossed) > OBLIQUE * max(straight, crossed):
        raise VideoError("it is to be shown turned, and not by quarter turns")
    if crossed > straight:
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    pixels = pixels[:, ::-1] if right < 0 else pixels
    return pixels[::-1] if down < 0 else pixels


def is_shown_as_stored(frame: Any) -> bool:
    """Tell whether a frame is neither turned nor mirrored, not even slightly askew."""
    a, b, c, d = display_matrix(frame) or (1, 0, 0, 1)
    return a == d > 0 and b == c == 0


def display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """Return a, b, c and d of a frame's display matrix, if it has one."""
    # Not ``frame.side_data``: the frame keeps that, which keeps the frame, and hundreds
    # of decoded frames would wait for Python to look for such circles.
    kinds: Any = av.sidedata.sidedata
    data = kinds.SideDataContainer(frame).get(kinds.Type.DISPLAYMATRIX)
    if data is None:
        return None
    values = np.frombuffer(bytes(data), np.int32).tolist()
    matrix = values[0], values[1], values[3], values[4]
    return matrix if any(matrix) else None
