"""How the frames of a store lie in its files, and how a clip of them is read.

Measured on 100 frames of 1280x720 (cups, H.264), random crops of 256x256, one thread,
warm files, as tensors (T, 3, H, W); the first three are what a store can have:

| frames as | clips of 7 a CPU second | of 32 | bytes a pixel |
|---|---|---|---|
| ``rgb``: planes R, G and B, the crop's rows read | 2,902 | 613 | 3 |
| ``yuv420``: planes Y, U and V, the crop's rows read | 534 | 113 | 1.5 |
| ``jpeg``: q95 4:4:4 in tiles of 128, the crop's tiles read | 148 | 33 | 0.34 |
| RGB interleaved, memory-mapped | 2,041 | 392 | 3 |
| RGB planes, memory-mapped | 7,045 | 1,540 | 3 |
| JPEG q95 4:2:0 in tiles of 128; of 256 | 175; 125 | 39; 28 | 0.27; 0.24 |
| JPEG q95 4:2:0, whole frames | 41 | 9 | 0.23 |
| WebP q95, whole frames | 13 | 3 | 0.18 |
| PNG, whole frames | 9 | 1.9 | 0.94 |
| x264 of key frames only, CRF 10, decord | 14 | 3.3 | 0.17 |
| litdata, an item is a fixed clip, raw | 707 | 103 | 3 |
| litdata, an item is a fixed clip, JPEG | 56 | 8 | 0.23 |
| WebDataset, a fixed clip, raw, in the order of the tar | 92 | 9 | 3 |
| the mp4 itself, decord | 2.7 | 2.3 | 0.01 |

litdata and WebDataset give whole samples: a clip would begin at a few fixed frames, or
be read many times over. Maps of memory are the fastest, but a truncated or lost file
of a network is a fatal signal there, where reading is an error that names the file;
and mapped pages count as memory of each loader process.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from datamodules.sources.source import ClipError, Frames, Window, opencv
from datamodules.yuv_codes import chroma_size, codes_to_rgb8, rgb8_to_codes

FormatName: TypeAlias = Literal["rgb", "yuv420", "jpeg"]

TILE = 128
"""Side of a JPEG tile in pixels: a multiple of 8. The last ones may be smaller."""

# 4:4:4, so that tiles have no seams of interpolated chroma.
SAMPLING = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444


class Place(NamedTuple):
    """Where a shot lies in a file.

    Attributes:
        start: Byte of its first frame.
        table: Byte of the table of where its frames end, if the format has one.
    """

    start: int
    table: int = 0


class FrameFormat(ABC):
    """Frames of one size, as bytes.

    Args:
        height: Rows.
        width: Columns.
        quality: Of lossy formats.
    """

    bytes_per_pixel: ClassVar[float | None] = None
    """None where it depends on the picture."""
    has_table: ClassVar[bool] = False

    def __init__(self, height: int, width: int, quality: int = 0) -> None:
        self.height = height
        self.width = width
        self.quality = quality

    @abstractmethod
    def encode(self, frame: Frames) -> bytes:
        """Return the bytes of a frame (H, W, 3), RGB, 0..255."""

    @abstractmethod
    def read(
        self, file: int, place: Place, numbers: Sequence[int], window: Window
    ) -> Frames:
        """Read a part of some frames of a shot.

        Args:
            file: Number of the open file.
            place: Where the shot lies in it.
            numbers: Of frames in the shot, from 0, rising.
            window: Rows and columns.

        Returns:
            (len(numbers), rows, columns, 3), RGB, 0..255.

        Raises:
            ClipError: The file is shorter than it was, or damaged.
            OSError: It cannot be read.
        """


class Rgb(FrameFormat):
    """Planes R, G and B: exact, three bytes a pixel."""

    bytes_per_pixel = 3.0

    def encode(self, frame: Frames) -> bytes:
        """Return the planes, one after the other."""
        return frame.transpose(2, 0, 1).tobytes()

    def read(
        self, file: int, place: Place, numbers: Sequence[int], window: Window
    ) -> Frames:
        """Read the rows of the window (see :meth:`FrameFormat.read`)."""
        plane = self.height * self.width
        # Planes, as the tensor of a clip has them: no pixel is moved after this.
        clip = np.empty((len(numbers), 3, window.rows, window.columns), np.uint8)
        for frame, number in zip(clip, numbers, strict=True):
            for colour, out in enumerate(frame):
                start = place.start + (3 * number + colour) * plane
                _read_rows(file, start, self.width, window, out)
        return clip.transpose(0, 2, 3, 1)


class Yuv420(FrameFormat):
    """Planes of BT.709 full range, chroma averaged 2 x 2: half the bytes of RGB."""

    bytes_per_pixel = 1.5

    def encode(self, frame: Frames) -> bytes:
        """Return Y, U and V, one after the other."""
        return b"".join(plane.tobytes() for plane in rgb8_to_codes(frame))

    def read(
        self, file: int, place: Place, numbers: Sequence[int], window: Window
    ) -> Frames:
        """Read the window's rows and convert it (see :meth:`FrameFormat.read`)."""
        rows, columns = chroma_size(self.height, self.width)
        luma, chroma = self.height * self.width, rows * columns
        # The chroma samples that some of the window's pixels share.
        top, left = window.top // 2, window.left // 2
        bottom = (window.top + window.rows + 1) // 2
        right = (window.left + window.columns + 1) // 2
        small = Window(top, left, bottom - top, right - left)
        count = len(numbers)
        y = np.empty((count, window.rows, window.columns), np.uint8)
        uv = np.empty((2, count, small.rows, small.columns), np.uint8)
        for at, number in enumerate(numbers):
            start = place.start + number * (luma + 2 * chroma)
            _read_rows(file, start, self.width, window, y[at])
            for plane in range(2):
                begin = start + luma + plane * chroma
                _read_rows(file, begin, columns, small, uv[plane, at])
        return codes_to_rgb8((y, uv[0], uv[1]), window.top % 2, window.left % 2)


class Jpeg(FrameFormat):
    """Tiles of JPEG: a tenth of the bytes of RGB, with JPEG's errors.

    A frame is the lengths of its tiles (uint32, little-endian, row by row) and then the
    tiles. Behind a shot's frames stands where each ends (uint64, from the shot's first
    byte).
    """

    has_table = True

    def __init__(self, height: int, width: int, quality: int = 0) -> None:
        super().__init__(height, width, quality)
        self._tiles = -(-height // TILE), -(-width // TILE)

    def encode(self, frame: Frames) -> bytes:
        """Return lengths and tiles."""
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING]
        tiles = []
        for top in range(0, self.height, TILE):
            for left in range(0, self.width, TILE):
                tile = frame[top : top + TILE, left : left + TILE, ::-1]
                _, data = cv2.imencode(".jpg", tile, options)
                tiles.append(data.tobytes())
        lengths = np.array([len(tile) for tile in tiles], "<u4")
        return b"".join([lengths.tobytes(), *tiles])

    def read(
        self, file: int, place: Place, numbers: Sequence[int], window: Window
    ) -> Frames:
        """Read and decode the tiles of the window (see :meth:`FrameFormat.read`)."""
        opencv()
        shape = (len(numbers), window.rows, window.columns, 3)
        clip = np.empty(shape, np.uint8)
        first, last = numbers[0], numbers[-1]
        ends = np.empty(last - first + 2, "<u8")
        ends[0] = 0
        # Where a frame begins is where the one before it ends.
        skip = int(first == 0)
        _read_exactly(file, ends[skip:], place.table + 8 * (first - 1 + skip))
        for out, number in zip(clip, numbers, strict=True):
            self._read_frame(file, place.start + int(ends[number - first]), window, out)
        return clip

    def _read_frame(self, file: int, start: int, window: Window, out: Frames) -> None:
        down, across = self._tiles
        lengths = np.empty((down, across), "<u4")
        _read_exactly(file, lengths, start)
        ends = np.cumsum(lengths, dtype=np.int64)
        if ends[-1] > 3 * self.height * self.width + 4096 * ends.size:
            raise ClipError("the prepared store is damaged")
        rows = range(window.top // TILE, (window.top + window.rows - 1) // TILE + 1)
        columns = range(
            window.left // TILE, (window.left + window.columns - 1) // TILE + 1
        )
        begins = ends - lengths.ravel()
        base = int(begins[rows[0] * across])
        data = np.empty(int(ends[(rows[-1] + 1) * across - 1]) - base, np.uint8)
        _read_exactly(file, data, start + lengths.nbytes + base)
        for row in rows:
            for column in columns:
                number = row * across + column
                part = data[begins[number] - base : ends[number] - base]
                tile = self._decode(part, row, column)
                top, left = row * TILE - window.top, column * TILE - window.left
                inside = tile[max(0, -top) :, max(0, -left) :]
                top, left = max(0, top), max(0, left)
                place = out[top : top + inside.shape[0], left : left + inside.shape[1]]
                place[:] = inside[: place.shape[0], : place.shape[1]]

    def _decode(self, data: npt.NDArray[np.uint8], row: int, column: int) -> Frames:
        try:
            tile = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
        except cv2.error:
            tile = None
        height = min(TILE, self.height - row * TILE)
        width = min(TILE, self.width - column * TILE)
        if tile is None or tile.shape != (height, width, 3):
            raise ClipError("the prepared store is damaged")
        return tile


FORMATS: dict[FormatName, type[FrameFormat]] = {
    "rgb": Rgb,
    "yuv420": Yuv420,
    "jpeg": Jpeg,
}


def _read_rows(
    file: int, start: int, pitch: int, window: Window, out: npt.NDArray[np.uint8]
) -> None:
    """Read a window of a plane that begins at ``start`` into ``out`` (rows, columns).

    Whole rows are read, in one call: a page of the disk holds most of a row anyway.
    """
    start += window.top * pitch
    if window.columns == pitch:
        _read_exactly(file, out, start)
        return
    rows = np.empty((window.rows, pitch), np.uint8)
    _read_exactly(file, rows, start)
    out[:] = rows[:, window.left : window.left + window.columns]


def _read_exactly(file: int, out: npt.NDArray[Any], start: int) -> None:
    left = out.reshape(-1).view(np.uint8)
    while left.size:
        # A file system over a network may give a part.
        count = os.preadv(file, [left.data], start)
        if not count:
            raise ClipError(
                "the prepared store is damaged: a file is shorter than it was"
            )
        left, start = left[count:], start + count
