"""Read whole videos frame by frame, for the commands that code and measure them.

Frames come in order, none is skipped, and memory holds one of them. Damage is an
error that names the frame, never a silent end. How a file's colour is read:

* Raw ``.yuv`` and ``.y4m`` (4:2:0) go through the suite's own BT.709 full-range
  matrix with chroma repeated. A y4m file whose header says ``XCOLORRANGE=LIMITED``
  is scaled from studio range first; its siting of chroma is not looked at.
  Or, if asked for, as FFmpeg converts them (:mod:`datamodules.ffmpeg_rgb`).
* Container video (mp4, mkv, webm, avi, ...) is converted by FFmpeg as the file's own
  matrix and range tags ask (BT.601 studio range where there are none), rounded to
  8-bit RGB, and turned upright if the file says so. Nothing is tone-mapped.
* Of a pipe the first bytes say which of these it is; if they say none and a size is
  given, it is a ``.yuv``.
* PNG and JPEG images hold RGB; alpha is dropped. In a directory with both, the PNG
  images are the frames.
"""

from collections.abc import Generator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from datamodules.containers import is_container, open_container
from datamodules.ffmpeg_rgb import convert_as_ffmpeg
from datamodules.images import decode_image
from datamodules.paths import IMAGE_SUFFIXES, find_frames
from datamodules.pipes import SAVE_FIRST, is_pipe, open_piped_input
from datamodules.raw_video import RawVideo, read_y4m, read_y4m_line
from datamodules.video_reader import (
    VideoError,
    VideoReader,
    name_frames,
    settle_rate,
)
from datamodules.yuv import Codes, YuvAs, dequantise, planes_to_rgb

# Images carry no frame rate; FFmpeg assumes the same.
IMAGE_FPS = Fraction(25)


def open_video(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    depth: int = 8,
    max_frames: int | None = None,
    yuv_as: YuvAs = "full709",
    once: bool = False,
) -> VideoReader:
    """Open any video, raw file, image or directory of images for one pass.

    Args:
        path: A ``.yuv`` or ``.y4m`` file of 4:2:0, a directory of images (in natural
            order), one image, or anything else that FFmpeg decodes.
        size: (height, width) of a raw ``.yuv``; others say it themselves.
        fps: Frames per second of a raw ``.yuv``; replaces what any other says.
        depth: Bits per sample of a raw ``.yuv``.
        max_frames: Stop after so many frames.
        yuv_as: How a raw ``.yuv`` or ``.y4m`` becomes RGB.
        once: Whether this is the only pass, so that it may be a pipe.

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
    piped = is_pipe(path)
    if piped and not once:
        raise VideoError(f"{path} is {SAVE_FIRST}")
    suffix = path.suffix.lower()
    if depth != 8 and suffix != ".yuv" and not (piped and size):
        raise _says_depth(path, depth)
    if piped:
        reader = _open_piped(path, size, fps, depth, yuv_as)
    elif path.is_dir() or suffix in IMAGE_SUFFIXES:
        reader = _open_images(path, fps)
    elif suffix == ".yuv":
        reader = _open_raw(path, size, fps, depth, yuv_as)
    elif suffix == ".y4m":
        reader = _open_y4m(path, fps, yuv_as)
    else:
        reader = open_container(path, fps)
    if size not in (None, (reader.height, reader.width)):
        reader.close()
        raise VideoError(
            f"{path} is {reader.width}x{reader.height}, not the {size[1]}x{size[0]} "
            "asked for; a size is needed for raw .yuv only"
        )
    if max_frames is not None:
        reader._pictures = islice(reader._pictures, max_frames)
        reader.frames = reader.frames and min(reader.frames, max_frames)
    return reader


def _says_depth(path: Path, depth: int) -> VideoError:
    return VideoError(
        f"depth is {depth}, but only a raw .yuv has to be told: {path} says itself how "
        "many bits its samples have"
    )


def _open_images(path: Path, fps: Fraction | None) -> VideoReader:
    paths = find_frames(path) if path.is_dir() else [path]
    if not paths:
        raise VideoError(f"directory {path} holds no {'/'.join(IMAGE_SUFFIXES)} image")
    height, width = _read_image(paths[0]).shape[-2:]
    pictures = name_frames(path, map(_read_image, paths))
    return VideoReader(path, width, height, fps or IMAGE_FPS, len(paths), pictures)


def _read_image(path: Path) -> Tensor:
    """Read 8- or 16-bit RGB, (3, H, W) in [0, 1]."""
    try:
        pixels = decode_image(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except ValueError as error:
        raise VideoError(f"image {path} {error}") from error
    if pixels.dtype not in (np.uint8, np.uint16):
        raise VideoError(
            f"image {path} has samples of {pixels.dtype}, not 8 or 16 bits"
        )
    peak = np.iinfo(pixels.dtype).max
    rgb = torch.from_numpy(pixels[..., ::-1].astype(np.float32))
    return rgb.permute(2, 0, 1).contiguous() / peak


def _open_raw(
    path: Path,
    size: tuple[int, int] | None,
    fps: Fraction | None,
    depth: int,
    yuv_as: YuvAs,
) -> VideoReader:
    raw = _describe_raw(path, size, fps, depth)
    # Whether it may be read is known now, and not at its first frame.
    with path.open("rb"):
        file_bytes = path.stat().st_size
    frames, rest = divmod(file_bytes, raw.frame_bytes)
    if rest:
        raise VideoError(
            f"{path} has {file_bytes} bytes, which is not a whole number of "
            f"{raw.width}x{raw.height} {depth}-bit yuv420p frames of "
            f"{raw.frame_bytes} bytes ({frames} frames would be "
            f"{frames * raw.frame_bytes} bytes)"
        )
    return _read_raw(raw, raw.codes(), frames, fps, yuv_as)


def _describe_raw(
    path: Path, size: tuple[int, int] | None, fps: Fraction | None, depth: int
) -> RawVideo:
    if size is None or fps is None:
        name = ", or name it like name_416x240_50.yuv" * (path.suffix != "")
        raise VideoError(
            f"raw file {path} does not say its size and fps: give both{name}"
        )
    height, width = size
    if min(size) < 1:
        raise VideoError(f"size {width}x{height} is not possible")
    return RawVideo(path, width, height, fps, depth)


def _open_y4m(path: Path, fps: Fraction | None, yuv_as: YuvAs) -> VideoReader:
    raw = read_y4m(path)
    frames, rest = divmod(path.stat().st_size - raw.header_bytes, raw.frame_bytes)
    if frames < 1:
        raise VideoError(
            f"{path} is no y4m that can be read: it is shorter than one frame of the "
            "size in its header"
        )
    return _read_raw(raw, raw.codes(), None if rest else frames, fps, yuv_as)


def _open_piped(
    path: Path,
    size: tuple[int, int] | None,
    fps: Fraction | None,
    depth: int,
    yuv_as: YuvAs,
) -> VideoReader:
    file = open_piped_input(path)
    try:
        head = file.peek()
        if not head:
            raise VideoError(f"{path} ended at once: nothing was written into it")
        is_y4m = head.startswith(b"YUV4MPEG2")
        is_raw = path.suffix.lower() == ".yuv" or (size and not is_container(head))
        if depth != 8 and (is_y4m or not is_raw):
            raise _says_depth(path, depth)
        if not (is_y4m or is_raw):
            return open_container(path, fps, file)
        if is_y4m:
            raw = read_y4m_line(path, file)
        else:
            raw = _describe_raw(path, size, fps, depth)
        reader = _read_raw(raw, raw.codes_from(file), None, fps, yuv_as)
    except BaseException:
        file.close()
        raise
    reader.close = file.close
    return reader


def _read_raw(
    raw: RawVideo,
    codes: Generator[Codes],
    frames: int | None,
    fps: Fraction | None,
    yuv_as: YuvAs,
) -> VideoReader:
    if yuv_as == "ffmpeg" and raw.depth != 8:
        raise VideoError(
            f"{raw.path} has {raw.depth} bits, but only 8 are converted as FFmpeg "
            "does: read it as full709"
        )

    def convert(frame: Codes) -> Tensor:
        if yuv_as == "ffmpeg":
            return convert_as_ffmpeg(frame, full_range=raw.full_range is True)
        return raw_to_rgb(raw, frame)

    fps = settle_rate(raw.path, fps or raw.fps)
    size = (raw.width, raw.height)
    return VideoReader(raw.path, *size, fps, frames, map(convert, codes), codes.close)


def raw_to_rgb(raw: RawVideo, frame: Codes) -> Tensor:
    """Return a raw video's frame as (3, H, W), RGB in [0, 1], as ``full709`` says."""
    planes = dequantise(frame, raw.depth, full_range=raw.full_range is not False)
    return planes_to_rgb(planes, "yuv420")
