"""Container video, decoded by FFmpeg frame by frame; damage is an error."""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.pipes import PipedInput
from datamodules.pyav import av
from datamodules.video_reader import (
    VideoError,
    VideoReader,
    name_frames,
    settle_rate,
)
from datamodules.video_stream import frame_rate, open_stream, turn_upright

EBML = b"\x1a\x45\xdf\xa3"

# Enough for the header of a Matroska file and that of its segment.
HEAD_BYTES = 256

PIPED = (
    "; of a pipe raw video needs --size and --fps, and an MP4 whose index is at its "
    "end must be saved to a file first"
)


def is_container(head: bytes) -> bool:
    """Tell by a file's first bytes whether it is Matroska, AVI, MP4 or MPEG-TS."""
    return head.startswith((EBML, b"RIFF", b"\x47\x40")) or head[4:8] == b"ftyp"


def open_container(
    path: Path, fps: Fraction | None, piped: PipedInput | None = None
) -> VideoReader:
    """Open whatever FFmpeg decodes and look at the first frame.

    Args:
        path: A container with a video stream.
        fps: Frames per second, instead of those that the file says.
        piped: What comes out of the path, if it is a pipe.

    Raises:
        VideoError: It is no such file, is truncated, holds no frame or says no rate.
    """
    with ExitStack() as stack:
        if piped:
            stack.callback(piped.close)
            end = _matroska_end(piped.peek())
        try:
            container, stream = stack.enter_context(open_stream(path, piped))
        except (av.FFmpegError, OSError) as error:
            reason = f"{error.strerror}{'' if piped is None else PIPED}"
            raise VideoError(f"{path} cannot be opened as a video: {reason}") from error
        except VideoError as error:
            raise VideoError(f"{path}: {error}") from error
        stream.thread_type = "AUTO"
        if not piped:
            with path.open("rb") as file:
                end = _matroska_end(file.read(HEAD_BYTES))
            ends = [entry.pos + entry.size for entry in stream.index_entries]
            _check_end(path, path.stat().st_size, max([end, *ends]))
        fps = settle_rate(path, fps or frame_rate(container, stream))
        pictures: Iterator[Tensor] = name_frames(path, _decode(container, stream))
        if piped:
            pictures = chain(pictures, _check_piped(path, piped, end))
        first = next(pictures, None)
        if first is None:
            raise VideoError(f"{path} holds no frame")
        close = stack.pop_all().close
    height, width = first.shape[-2:]
    return VideoReader(
        path,
        width,
        height,
        fps,
        stream.frames or None,
        chain([first], pictures),
        close,
    )


def _check_piped(path: Path, piped: PipedInput, end: int) -> Iterator[Tensor]:
    """Give no frame, but check that a pipe gave all that it said."""
    _check_end(path, piped.count_rest(), end)
    yield from ()


def _check_end(path: Path, nbytes: int, end: int) -> None:
    if end > nbytes:
        raise VideoError(
            f"{path} is truncated: it has {nbytes} bytes, but says itself that it has "
            f"{end}"
        )


def _matroska_end(head: bytes) -> int:
    """Return where a Matroska file says it ends; 0 if it is none or does not say.

    FFmpeg takes the end of a truncated one for the end of the video.

    Args:
        head: Its first bytes.

    Source: RFC 8794, sections 4 to 6 (EBML variable-size integers and elements).
    """

    def size_at(position: int) -> tuple[int, int]:
        """Return an element's size and where its data begins."""
        length = 9 - head[position].bit_length()
        mask = (1 << 7 * length) - 1
        size = int.from_bytes(head[position : position + length], "big") & mask
        return (0 if size == mask else size), position + length

    if not head.startswith(EBML):
        return 0
    header_size, start = size_at(4)
    segment = start + header_size
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return 0
    size, start = size_at(segment + 4)
    return start + size if size else 0


def _decode(container: Any, stream: Any) -> Iterator[Tensor]:
    """Decode a container's stream to its end, upright, refusing damage."""
    formats = av.video.reformatter
    reformatter = formats.VideoReformatter()
    # FFmpeg's default for RGB truncates instead of rounding: 1 to 2 codes too dark.
    rounding = (
        formats.Interpolation.BILINEAR
        | formats.Interpolation.FULL_CHR_H_INT
        | formats.Interpolation.ACCURATE_RND
        | formats.Interpolation.BITEXACT
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
                upright = np.ascontiguousarray(turn_upright(frame, rgb.to_ndarray()))
                pixels = torch.from_numpy(upright).permute(2, 0, 1)
                yield pixels.contiguous().float().div_(255)
    except av.FFmpegError as error:
        raise VideoError(f"it cannot be decoded: {error.strerror}") from error
