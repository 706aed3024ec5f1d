"""Raw 4:2:0 files: ``.yuv``, of which the user says what it holds, and ``.y4m``.

A y4m begins with a line that says it (YUV4MPEG2), and a ``FRAME`` line stands before
each frame.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedReader
from pathlib import Path

from datamodules.video_reader import VideoError, name_frames
from datamodules.yuv import Codes, read_yuv420_frame, yuv420_frame_size

# Header lines have some 60 bytes; whatever has no line end by here is no y4m.
MAX_LINE = 1024
MAX_SIDE = (1 << 16) - 1


@dataclass(frozen=True)
class RawVideo:
    """What a raw file holds.

    Attributes:
        path: The file.
        width: Columns of every frame.
        height: Rows of every frame.
        fps: Frames per second; ``None`` if a y4m does not know them.
        depth: Bits per sample.
        full_range: What a y4m declares; ``None`` if the file does not say.
        header_bytes: Length of a y4m's first line; 0 of a ``.yuv``.
    """

    path: Path
    width: int
    height: int
    fps: Fraction | None
    depth: int = 8
    full_range: bool | None = None
    header_bytes: int = 0

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame, its ``FRAME`` line one that says nothing more."""
        samples = yuv420_frame_size(self.height, self.width, self.depth)
        return samples + len(b"FRAME\n") * bool(self.header_bytes)

    def codes(self, first: int = 0) -> Generator[Codes]:
        """Give the frames as the integers that the file holds.

        Args:
            first: Frame to begin with, of a file whose frames have ``frame_bytes``.

        Raises:
            VideoError: The file ends within a frame, or a ``FRAME`` line is missing.
        """
        return name_frames(self.path, self._read(first))

    def _read(self, first: int) -> Iterator[Codes]:
        with self.path.open("rb") as file:
            file.seek(self.header_bytes + first * self.frame_bytes)
            yield from self._read_on(file)

    def codes_from(self, file: BufferedReader) -> Generator[Codes]:
        """Give the frames from where an open file stands; see :meth:`codes`."""
        return name_frames(self.path, self._read_on(file))

    def _read_on(self, file: BufferedReader) -> Iterator[Codes]:
        while file.peek(1):
            if self.header_bytes:
                line = file.readline(MAX_LINE)
                if not (line.startswith(b"FRAME") and line.endswith(b"\n")):
                    raise VideoError("no FRAME line where one must be")
            yield read_yuv420_frame(file, self.height, self.width, self.depth)


def read_y4m(path: Path) -> RawVideo:
    """Read what the first line of a 4:2:0 y4m file says.

    Raises:
        VideoError: It is none, or its samples are not 4:2:0.
    """
    with path.open("rb") as file:
        return read_y4m_line(path, file)


def read_y4m_line(path: Path, file: BufferedReader) -> RawVideo:
    """Read the first line of an open y4m file; see :func:`read_y4m`."""
    line = file.readline(MAX_LINE)
    try:
        return RawVideo(path, *_parse_y4m_header(line), header_bytes=len(line))
    except ValueError as error:
        raise VideoError(f"{path} is no y4m that can be read: {error}") from error


def _parse_y4m_header(
    line: bytes,
) -> tuple[int, int, Fraction | None, int, bool | None]:
    """Return width, height, fps, bits per sample, and whether it says full range."""
    if not (line.startswith(b"YUV4MPEG2 ") and line.endswith(b"\n")):
        raise VideoError("it does not begin with a YUV4MPEG2 line")
    tokens = line.decode("ascii", "replace").split()[1:]
    values = {token[0]: token[1:] for token in tokens if token[0] != "X"}
    try:
        width, height = int(values["W"]), int(values["H"])
        rate = values.get("F", "0:0").replace(":", "/")
        # 0:0 is the format's word for a rate that nobody knows.
        fps = Fraction(rate) if rate.partition("/")[0].strip("0") else None
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise VideoError(f"W, H or F in {line!r} is missing or wrong") from error
    if not (1 <= min(width, height) <= max(width, height) <= MAX_SIDE):
        raise VideoError(f"W and H in {line!r} must be 1 to {MAX_SIDE}")
    if fps is not None and fps <= 0:
        raise VideoError(f"F in {line!r} must be above 0")
    layout = re.fullmatch(r"420(?:jpeg|mpeg2|paldv|p(\d+))?", values.get("C", "420"))
    if layout is None:
        raise VideoError(f"its samples are C{values['C']}, only 4:2:0 is read")
    depth = int(layout[1] or 8)
    ranges = {"XCOLORRANGE=FULL": True, "XCOLORRANGE=LIMITED": False}
    stated = next((ranges[token] for token in tokens if token in ranges), None)
    return width, height, fps, depth, stated
