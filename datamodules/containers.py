"""Container video, decoded by FFmpeg frame by frame; damage is an error."""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from datamodules.video_reader import VideoError, VideoReader, name_frames
from datamodules.video_stream import open_stream, turn_upright


def open_container(path: Path, fps: Fraction | None) -> VideoReader:
    """Open whatever FFmpeg decodes and look at the first frame.

    Args:
        path: A container with a video stream.
        fps: Frames per second if the file does not say them.

    Raises:
        VideoError: It is no such file, is truncated, holds no frame or says no rate.
    """
    with ExitStack() as stack:
        try:
            container, stream = stack.enter_context(open_stream(path))
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                f"{path} cannot be opened as a video: {error.strerror}"
            ) from error
        except VideoError as error:
            raise VideoError(f"{path}: {error}") from error
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
        pictures = name_frames(path, _decode(container, stream))
        first = next(pictures, None)
        if first is None:
            raise VideoError(f"{path} holds no frame")
        close = stack.pop_all().close
    height, width = first.shape[-2:]
    return VideoReader(
        path,
        width,
        height,
        Fraction(fps),
        stream.frames or None,
        chain([first], pictures),
        close,
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
                upright = np.ascontiguousarray(turn_upright(frame, rgb.to_ndarray()))
                pixels = torch.from_numpy(upright).permute(2, 0, 1)
                yield pixels.contiguous().float().div_(255)
    except av.FFmpegError as error:
        raise VideoError(f"it cannot be decoded: {error.strerror}") from error
