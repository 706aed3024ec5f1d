"""Write whole videos frame by frame, so that only complete ones appear.

Frames are (3, H, W), RGB in [0, 1]. Raw ``.yuv`` and ``.y4m`` are written with the
suite's BT.709 full-range matrix, chroma averaged 2 x 2, luma and chroma rounded.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import IO, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.pipes import STDOUT, is_pipe, piped_output
from datamodules.pyav import av
from datamodules.video_reader import VideoError
from datamodules.whole_files import whole_or_nothing
from datamodules.yuv import Codes, quantise, rgb_to_planes

CONTAINER_FORMATS = {".mp4": "mp4", ".mkv": "matroska"}

# x264's scale ends at 0, lossless; differences below 17 are hardly ever seen.
X264_CRF = "12"

PutFrame: TypeAlias = Callable[[int, Tensor], None]
"""Appends a frame, whose number is given too."""


@contextmanager
def create_video(
    path: str | Path, width: int, height: int, fps: Fraction, *, depth: int = 8
) -> Iterator[Callable[[Tensor], None]]:
    """Make a video that appears under its name only when the block ends well.

    The block gets a function that appends a frame (3, height, width), RGB; values
    outside [0, 1] are clamped.

    Args:
        path: What to write, by its suffix: ``.y4m`` and ``.yuv`` (4:2:0), ``.mp4`` and
            ``.mkv`` (x264, visually lossless, BT.709 studio range; 4:4:4 if a side
            is odd), or no suffix for a directory of 8-bit PNG images, which must not
            exist or be empty. A pipe gets frames as they come: y4m, or yuv if it is
            called so.
        width: Columns of every frame.
        height: Rows of every frame.
        fps: Frames per second.
        depth: Bits per sample of ``.y4m`` and ``.yuv``; others have 8.

    Raises:
        VideoError: The suffix is unknown, a frame has another shape, or none was
            written.
        OSError: Something stands in the way.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    piped = path == STDOUT or is_pipe(path)
    is_directory = (not suffix or path.is_dir()) and not piped
    is_raw = suffix in (".y4m", ".yuv") and not is_directory
    if not (is_directory or is_raw or piped or suffix in CONTAINER_FORMATS):
        raise VideoError(
            f"cannot write {path}: the suffix must be .y4m, .yuv, "
            f"{', '.join(CONTAINER_FORMATS)}, or none for a directory of PNG images"
        )
    if depth != 8 and not (is_raw or piped):
        raise VideoError(f"cannot write {path} with {depth} bits: only .y4m and .yuv")
    if piped and suffix not in ("", ".y4m", ".yuv"):
        raise VideoError(f"cannot write {path}: a pipe takes only .y4m and .yuv")
    place = whole_or_nothing(path, directory=is_directory)
    with nullcontext(path) if piped else place as temporary:
        if is_directory:
            video = _png_directory(temporary)
        elif is_raw or piped:
            header = b""
            if suffix != ".yuv":
                header = _y4m_header(width, height, fps, depth)
            file = piped_output(path) if piped else temporary.open("wb")
            video = _raw_file(file, header, depth)
        else:
            video = _x264_file(temporary, CONTAINER_FORMATS[suffix], width, height, fps)
        with video as put:
            frames = 0

            def write(frame: Tensor) -> None:
                nonlocal frames
                if tuple(frame.shape) != (3, height, width):
                    raise VideoError(
                        f"frame {frames} has shape {tuple(frame.shape)}, "
                        f"the video has {(3, height, width)}"
                    )
                put(frames, frame)
                frames += 1

            yield write
            if not frames:
                raise VideoError(f"no frame was written to {path}")


@contextmanager
def _png_directory(path: Path) -> Iterator[PutFrame]:
    path.mkdir()

    def put(number: int, frame: Tensor) -> None:
        name = path / f"im{number + 1:05d}.png"
        if not cv2.imwrite(str(name), to_rgb8(frame)[..., ::-1]):
            raise VideoError(f"cannot write {name}")

    yield put


def write_png(picture: npt.NDArray[np.uint8], path: Path) -> None:
    """Write RGB (H, W, 3) as PNG, whole or not at all; its folder is made too.

    Raises:
        OSError: The file cannot be written.
    """
    _, data = cv2.imencode(".png", picture[..., ::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_nothing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def to_rgb8(frame: Tensor) -> npt.NDArray[np.uint8]:
    """Round (3, H, W) in [0, 1] to (H, W, 3) in 0..255."""
    codes = frame.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return codes.permute(1, 2, 0).contiguous().cpu().numpy()


def write_picture(file: IO[bytes], codes: Codes) -> None:
    """Append a picture's three planes to a raw file, samples as they are."""
    for plane in codes:
        file.write(plane.tobytes())


def _y4m_header(width: int, height: int, fps: Fraction, depth: int) -> bytes:
    layout = "420jpeg" if depth == 8 else f"420p{depth}"
    rate = f"{fps.numerator}:{fps.denominator}"
    return (
        f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C{layout} XCOLORRANGE=FULL\n"
    ).encode()


@contextmanager
def _raw_file(
    opened: AbstractContextManager[IO[bytes]], y4m_header: bytes, depth: int
) -> Iterator[PutFrame]:
    with opened as file:
        file.write(y4m_header)

        def put(number: int, frame: Tensor) -> None:
            planes = rgb_to_planes(frame.detach().float().clamp(0, 1), "yuv420")
            if y4m_header:
                file.write(b"FRAME\n")
            write_picture(file, quantise(planes, depth))

        yield put


@contextmanager
def _x264_file(
    path: Path, container_format: str, width: int, height: int, fps: Fraction
) -> Iterator[PutFrame]:
    formats = av.video.reformatter
    reformatter = formats.VideoReformatter()
    # Without these FFmpeg truncates instead of rounding.
    rounding = (
        formats.Interpolation.BICUBIC
        | formats.Interpolation.FULL_CHR_H_INT
        | formats.Interpolation.ACCURATE_RND
        | formats.Interpolation.BITEXACT
    )
    # 4:2:0 of an odd size does not exist in H.264.
    pixel_format = "yuv444p" if width % 2 or height % 2 else "yuv420p"
    if max(fps.as_integer_ratio()) >= 1 << 31:
        raise VideoError(f"x264 cannot write {path} at {fps} frames per second")
    try:
        # Absolute, or FFmpeg takes what comes before a colon for a protocol.
        target = str(path.absolute())
        with av.open(target, "w", format=container_format) as container:
            stream = container.add_stream(
                "libx264", rate=fps, options={"crf": X264_CRF}
            )
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            stream.codec_context.colorspace = formats.Colorspace.ITU709
            stream.codec_context.color_range = formats.ColorRange.MPEG
            stream.codec_context.color_primaries = formats.ColorPrimaries.BT709
            stream.codec_context.color_trc = formats.ColorTrc.BT709

            def put(number: int, frame: Tensor) -> None:
                # Built from an array, a frame has no picture type that x264 would obey.
                picture = av.VideoFrame.from_ndarray(to_rgb8(frame), format="rgb24")
                picture = reformatter.reformat(
                    picture,
                    format=pixel_format,
                    dst_colorspace=formats.Colorspace.ITU709,
                    dst_color_range=formats.ColorRange.MPEG,
                    interpolation=rounding,
                )
                picture.pts, picture.time_base = number, 1 / fps
                container.mux(stream.encode(picture))

            yield put
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise VideoError(f"x264 cannot write {path}: {error.strerror}") from error
