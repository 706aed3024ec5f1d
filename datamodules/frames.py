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
* PNG and JPEG images hold RGB; alpha is dropped. In a directory with both, the PNG
  images are the frames.
"""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from datamodules.containers import open_container
from datamodules.ffmpeg_rgb import convert_as_ffmpeg
from datamodules.images import decode_image
from datamodules.paths import IMAGE_SUFFIXES, find_frames
from datamodules.raw_video import RawVideo, read_y4m
from datamodules.video_reader import VideoError, VideoReader, name_frames
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
        reader = _open_raw(path, size, fps, depth, yuv_as)
    elif suffix == ".y4m":
        reader = _open_y4m(path, yuv_as)
    else:
        reader = open_container(path, fps)
    if size not in (None, (reader.height, reader.width)):
        reader.close()
        raise VideoError(
            f"{path} is {reader.width}x{reader.height}, not the {size[1]}x{size[0]} "
            "asked for; a size is needed for raw .yuv only"
        )
    reader.fps = fps or reader.fps
    if max_frames is not None:
        reader._pictures = islice(reader._pictures, max_frames)
        reader.frames = reader.frames and min(reader.frames, max_frames)
    return reader


def _open_images(path: Path) -> VideoReader:
    paths = find_frames(path) if path.is_dir() else [path]
    if not paths:
        raise VideoError(f"directory {path} holds no {'/'.join(IMAGE_SUFFIXES)} image")
    height, width = _read_image(paths[0]).shape[-2:]
    pictures = name_frames(path, map(_read_image, paths))
    return VideoReader(path, width, height, IMAGE_FPS, len(paths), pictures)


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
    if size is None or fps is None:
        raise VideoError(
            f"raw file {path} does not say its size and fps: give both, or name it "
            "like name_416x240_50.yuv"
        )
    height, width = size
    if min(size) < 1:
        raise VideoError(f"size {width}x{height} is not possible")
    raw = RawVideo(path, width, height, fps, depth)
    file_bytes = path.stat().st_size
    frames, rest = divmod(file_bytes, raw.frame_bytes)
    if rest:
        raise VideoError(
            f"{path} has {file_bytes} bytes, which is not a whole number of "
            f"{width}x{height} {depth}-bit yuv420p frames of {raw.frame_bytes} bytes "
            f"({frames} frames would be {frames * raw.frame_bytes} bytes)"
        )
    return _read_raw(raw, frames, frames, yuv_as)


def _open_y4m(path: Path, yuv_as: YuvAs) -> VideoReader:
    raw = read_y4m(path)
    frames, rest = divmod(path.stat().st_size - raw.header_bytes, raw.frame_bytes)
    if frames < 1:
        raise VideoError(
            f"{path} is no y4m that can be read: it is shorter than one frame of the "
            "size in its header"
        )
    return _read_raw(raw, None if rest else frames, None, yuv_as)


def _read_raw(
    raw: RawVideo, frames: int | None, last: int | None, yuv_as: YuvAs
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

    codes = raw.codes()
    pictures = map(convert, islice(codes, last))
    size = (raw.width, raw.height)
    return VideoReader(raw.path, *size, raw.fps, frames, pictures, codes.close)


def raw_to_rgb(raw: RawVideo, frame: Codes) -> Tensor:
    """Return a raw video's frame as (3, H, W), RGB in [0, 1], as ``full709`` says."""
    planes = dequantise(frame, raw.depth, full_range=raw.full_range is not False)
    return planes_to_rgb(planes, "yuv420")
