"""YUV4MPEG2: a header line, then ``FRAME`` lines, each before a raw frame."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from datamodules.video_reader import VideoError
from datamodules.yuv import Codes, read_yuv420_frame, yuv420_frame_size

# Header lines have some 60 bytes; whatever has no line end by here is no y4m.
MAX_LINE = 1024


@dataclass(frozen=True)
class Y4mHeader:
    """What the first line of a y4m file says.

    Attributes:
        width: Columns of every frame.
        height: Rows of every frame.
        fps: Frames per second.
        depth: Bits per sample.
        full_range: False if the file declares studio range.
        nbytes: Length of the line.
    """

    width: int
    height: int
    fps: Fraction
    depth: int
    full_range: bool
    nbytes: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame with a ``FRAME`` line that says nothing more."""
        samples = yuv420_frame_size(self.height, self.width, self.depth)
        return len(b"FRAME\n") + samples


def read_y4m_header(file: BinaryIO) -> Y4mHeader:
    """Read the first line of a 4:2:0 y4m file and leave the file behind it.

    Raises:
        VideoError: It is none, or its samples are not 4:2:0.
    """
    line = file.readline(MAX_LINE)
    return Y4mHeader(*_parse_y4m_header(line), nbytes=len(line))


def read_y4m_codes(file: BinaryIO, header: Y4mHeader) -> Iterator[Codes]:
    """Give the frames behind the header of a y4m file as the integers it holds.

    Raises:
        ValueError: The file ends within a frame, or a ``FRAME`` line is missing.
    """
    while line := file.readline(MAX_LINE):
        if not (line.startswith(b"FRAME") and line.endswith(b"\n")):
            raise VideoError("no FRAME line where one must be")
        yield read_yuv420_frame(file, header.height, header.width, header.depth)


def _parse_y4m_header(line: bytes) -> tuple[int, int, Fraction, int, bool]:
    """Return width, height, fps, bits per sample, and whether range is full."""
    if not (line.startswith(b"YUV4MPEG2 ") and line.endswith(b"\n")):
        raise VideoError("it does not begin with a YUV4MPEG2 line")
    tokens = line.decode("ascii", "replace").split()[1:]
    values = {token[0]: token[1:] for token in tokens if token[0] != "X"}
    try:
        width, height = int(values["W"]), int(values["H"])
        fps = Fraction(values["F"].replace(":", "/"))
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise VideoError(f"W, H or F in {line!r} is missing or wrong") from error
    if min(width, height) < 1 or fps <= 0:
        raise VideoError(f"W, H and F in {line!r} must be above 0")
    layout = re.fullmatch(r"420(?:jpeg|mpeg2|paldv|p(\d+))?", values.get("C", "420"))
    if layout is None:
        raise VideoError(f"its samples are C{values['C']}, only 4:2:0 is read")
    depth = int(layout[1] or 8)
    return width, height, fps, depth, "XCOLORRANGE=LIMITED" not in tokens
