"""Read whole videos frame by frame, for the commands that code and measure them.

Frames come in order, none is skipped, and memory holds one of them. Damage is an
error that names the frame, never a silent end. How a file's colour is read:

* Raw ``.yuv`` and ``.y4m`` (4:2:0) go through the suite's own BT.709 full-range
  matrix with chroma repeated. A y4m file whose header says ``XCOLORRANGE=LIMITED``
  is scaled from studio range first; its siting of chroma is not looked at.
* Container video (mp4, mkv, webm, avi, ...) is converted by FFmpeg as the file's own
  matrix and range tags ask (BT.601 studio range where there are none), rounded to
  8-bit RGB, and turned upright if the file says so. Nothing is tone-mapped.
* PNG and JPEG images hold RGB; alpha is dropped.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from datamodules.yuv import (
    Codes,
    dequantise,
    planes_to_rgb,
    read_yuv420_frame,
    yuv420_frame_size,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

# Images carry no frame rate; FFmpeg assumes the same.
IMAGE_FPS = Fraction(25)

# Header lines have some 60 bytes; whatever has no line end by here is no y4m.
MAX_Y4M_LINE = 1024


class VideoError(ValueError):
    """A video cannot be read or written as asked."""


@dataclass
class VideoReader:
    """One pass over the frames of a video; a context manager that closes the file.

    Attributes:
        path: What is read.
        width: Columns of every frame.
        height: Rows of every frame.
        fps: Frames per second; the average if the rate varies.
        frames: Number of frames that iterating is expected to give; ``None`` if only
            reading to the end can tell. Containers are sometimes wrong.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    frames: int | None
    _pictures: Iterator[Tensor]
    _close: Callable[[], None] = lambda: None
    _max_frames: int | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """Give frames (3, H, W), float32 RGB in [0, 1].

        Raises:
            VideoError: A frame is missing, damaged or of another size.
        """
        count = 0
        while self._max_frames is None or count < self._max_frames:
            try:
                picture = next(self._pictures, None)
            except (ValueError, OSError) as error:
                where = f"{self.path}: frame {count} (from 0)"
                raise VideoError(f"{where}: {error}") from error
            if picture is None:
                break
            height, width = picture.shape[-2:]
            if (height, width) != (self.height, self.width):
                raise VideoError(
                    f"{self.path}: frame {count} (from 0) is {width}x{height}, but "
                    f"the first is {self.width}x{self.height}"
                )
            yield picture
            count += 1
        if count == 0:
            raise VideoError(f"{self.path} holds no frame")

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_video(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    depth: int = 8,
    max_frames: int | None = None,
) -> VideoReader:
    """Open any video, raw file, image or directory of images for one pass.

    Args:
        path: A ``.yuv`` or ``.y4m`` file of 4:2:0, a directory of images (in natural
            order), one image, or anything else that FFmpeg decodes.
        size: (height, width) of a raw ``.yuv``; others say it themselves.
        fps: Frames per second of a raw ``.yuv``; replaces what any other says.
        depth: Bits per sample of a raw ``.yuv``.
        max_frames: Stop after so many frames.

    Raises:
        VideoError: It is missing, empty, undecodable, or does not fit ``size``.
    """
    path = Path(path)
    if max_frames is not None and max_frames < 1:
        raise VideoError(f"max_frames is {max_frames}, it must be at least 1")
    if fps is not None and fps <= 0:
        raise VideoError(f"fps is {fps}, it must be above 0")
    if not path.exists():
        raise VideoError(f"there is no file or directory {path}")
    suffix = path.suffix.lower()
    if depth != 8 and suffix != ".yuv":
        raise VideoError(
            f"depth is {depth}, but only a raw .yuv has to be told: {path} says itself "
            "how many bits its samples have"
        )
    if path.is_dir() or suffix in IMAGE_SUFFIXES:
        reader = _open_images(path)
    elif suffix == ".yuv":
        reader = _open_raw(path, size, fps, depth)
    elif suffix == ".y4m":
        reader = _open_y4m(path)
    else:
        reader = _open_container(path, fps)
    if size not in (None, (reader.height, reader.width)):
        reader.close()
        raise VideoError(
            f"{path} is {reader.width}x{reader.height}, not the {size[1]}x{size[0]} "
            "asked for; a size is needed for raw .yuv only"
        )
    reader.fps = fps or reader.fps
    if max_frames is not None:
        reader._max_frames = max_frames
        reader.frames = reader.frames and min(reader.frames, max_frames)
    return reader


def _open_images(path: Path) -> VideoReader:
    paths = find_images(path) if path.is_dir() else [path]
    if not paths:
        raise VideoError(f"directory {path} holds no {'/'.join(IMAGE_SUFFIXES)} image")
    height, width = _read_image(paths[0]).shape[-2:]
    pictures = (_read_image(p) for p in paths)
    return VideoReader(path, width, height, IMAGE_FPS, len(paths), pictures)


def find_images(directory: Path) -> list[Path]:
    """Return a directory's visible images in the order in which they are read."""
    found = [p for p in directory.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    visible = [p for p in found if not p.name.startswith(".")]
    return sorted(visible, key=lambda p: _natural_key(p.name))


def _natural_key(name: str) -> list[str | int]:
    """Make ``im2`` sort before ``im10``."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _read_image(path: Path) -> Tensor:
    """Read 8- or 16-bit RGB, (3, H, W) in [0, 1]."""
    import cv2

    try:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise VideoError(f"image {path} cannot be decoded: {error}") from error
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise VideoError(f"image {path} cannot be decoded")
    peak = np.iinfo(pixels.dtype).max
    rgb = torch.from_numpy(pixels[..., ::-1].astype(np.float32))
    return rgb.permute(2, 0, 1).contiguous() / peak


def _open_raw(
    path: Path, size: tuple[int, int] | None, fps: Fraction | None, depth: int
) -> VideoReader:
    if size is None or fps is None:
        raise VideoError(f"raw file {path} does not say its size and fps: give both")
    height, width = size
    if min(size) < 1:
        raise VideoError(f"size {width}x{height} is not possible")
    frame_bytes = yuv420_frame_size(height, width, depth)
    file_bytes = path.stat().st_size
    frames, rest = divmod(file_bytes, frame_bytes)
    if rest:
        raise VideoError(
            f"{path} has {file_bytes} bytes, which is not a whole number of "
            f"{width}x{height} {depth}-bit yuv420p frames of {frame_bytes} bytes "
            f"({frames} frames would be {frames * frame_bytes} bytes)"
        )
    file = path.open("rb")
    pictures = (_read_yuv(file, height, width, depth) for _ in range(frames))
    return VideoReader(path, width, height, fps, frames, pictures, file.close)


def _read_yuv(file: BinaryIO, height: int, width: int, depth: int) -> Tensor:
    return _codes_to_rgb(read_yuv420_frame(file, height, width, depth), depth)


def _codes_to_rgb(codes: Codes, depth: int, full_range: bool = True) -> Tensor:
    return planes_to_rgb(dequantise(codes, depth, full_range=full_range), "yuv420")


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
    line = file.readline(MAX_Y4M_LINE)
    return Y4mHeader(*_parse_y4m_header(line), nbytes=len(line))


def read_y4m_codes(file: BinaryIO, header: Y4mHeader) -> Iterator[Codes]:
    """Give the frames behind the header of a y4m file as the integers it holds.

    Raises:
        ValueError: The file ends within a frame, or a ``FRAME`` line is missing.
    """
    while line := file.readline(MAX_Y4M_LINE):
        if not (line.startswith(b"FRAME") and line.endswith(b"\n")):
            raise VideoError("no FRAME line where one must be")
        yield read_yuv420_frame(file, header.height, header.width, header.depth)


def _open_y4m(path: Path) -> VideoReader:
    """Open YUV4MPEG2: a header line, then ``FRAME`` lines each before a raw frame."""
    file = path.open("rb")
    try:
        header = read_y4m_header(file)
        data_bytes = path.stat().st_size - header.nbytes
        frames, rest = divmod(data_bytes, header.frame_bytes)
        if frames < 1:
            raise VideoError("it is shorter than one frame of the size in its header")
    except ValueError as error:
        file.close()
        raise VideoError(f"{path} is no y4m that can be read: {error}") from error
    pictures = (
        _codes_to_rgb(codes, header.depth, header.full_range)
        for codes in read_y4m_codes(file, header)
    )
    known = None if rest else frames
    size = (header.width, header.height)
    return VideoReader(path, *size, header.fps, known, pictures, file.close)


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


def _open_container(path: Path, fps: Fraction | None) -> VideoReader:
    """Open whatever FFmpeg decodes and look at the first frame."""
    import av

    try:
        # Absolute, or FFmpeg takes what comes before a colon for a protocol.
        container = av.open(str(path.absolute()))
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path} cannot be opened as a video: {error.strerror}"
        ) from error
    try:
        if not container.streams.video:
            raise VideoError(f"{path} has no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        ends = [entry.pos + entry.size for entry in stream.index_entries]
        end = max([*ends, _matroska_end(path)])
        if end > path.stat().st_size:
            raise VideoError(
                f"{path} is truncated: it has {path.stat().st_size} bytes, but says "
                f"itself that it has {end}"
            )
        fps = fps or stream.average_rate or stream.guessed_rate
        if not fps:
            raise VideoError(f"{path} does not say its frame rate: give fps")
        pictures = _decode(container, stream)
        try:
            first = next(pictures, None)
        except ValueError as error:
            raise VideoError(f"{path}: frame 0 (from 0): {error}") from error
        if first is None:
            raise VideoError(f"{path} holds no frame")
    except BaseException:
        container.close()
        raise
    height, width = first.shape[-2:]
    return VideoReader(
        path,
        width,
        height,
        Fraction(fps),
        stream.frames or None,
        chain([first], pictures),
        container.close,
    )


def _matroska_end(path: Path) -> int:
    """Return where a Matroska file says it ends; 0 if it is none or does not say.

    FFmpeg takes the end of a truncated one for the end of the video.

    Source: RFC 8794, sections 4 to 6 (EBML variable-size integers and elements).
    """
    with path.open("rb") as file:
        head = file.read(256)

    def size_at(position: int) -> tuple[int, int]:
        """Return an element's size and where its data begins."""
        length = 9 - head[position].bit_length()
        mask = (1 << 7 * length) - 1
        size = int.from_bytes(head[position : position + length], "big") & mask
        return (0 if size == mask else size), position + length

    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return 0
    header_size, start = size_at(4)
    segment = start + header_size
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return 0
    size, start = size_at(segment + 4)
    return start + size if size else 0


def _decode(container: Any, stream: Any) -> Iterator[Tensor]:
    """Decode a container's stream to its end, upright, refusing damage."""
    import av
    from av.video.reformatter import Interpolation, VideoReformatter

    reformatter = VideoReformatter()
    # FFmpeg's default for RGB truncates instead of rounding: 1 to 2 codes too dark.
    rounding = (
        Interpolation.BILINEAR
        | Interpolation.FULL_CHR_H_INT
        | Interpolation.ACCURATE_RND
        | Interpolation.BITEXACT
    )
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError("its packet is incomplete")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise VideoError("it is damaged")
                rgb = reformatter.reformat(
                    frame, format="rgb24", interpolation=rounding
                )
                pixels = torch.from_numpy(rgb.to_ndarray()).permute(2, 0, 1)
                pixels = torch.rot90(pixels, frame.rotation // 90, dims=(1, 2))
                yield pixels.contiguous().float().div_(255)
    except av.FFmpegError as error:
        raise VideoError(f"it cannot be decoded: {error.strerror}") from error
