"""Options that the commands share which run a codec."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.cli import option, parse_fps, parse_size
from lightning_modules import coding_options

if TYPE_CHECKING:
    from datamodules.video_reader import VideoReader


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where the networks of an encoder run, and in which precision.

    Attributes:
        device: Where the networks run (default: cuda if there is one).
        dtype: Precision of the networks; decoders follow. float64 is slow, and
            decodes with other threads and kernels too.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float16", "bfloat16", "float64"] = "float32"


@dataclass(frozen=True, kw_only=True)
class RawVideoOptions:
    """How raw video is read.

    Attributes:
        size: Frame size, for raw .yuv only.
        fps: Frames per second, for raw .yuv (replaces the rate of other files).
        depth: Bits per sample, for raw .yuv only.
    """

    size: tuple[int, int] | None = option(None, metavar="WxH", read=parse_size)
    fps: Fraction | None = option(None, metavar="F", read=parse_fps)
    depth: int = option(8, metavar="BITS")

    def open(self, path: Path, max_frames: int | None) -> "VideoReader":
        """Open a video, raw or not.

        Args:
            path: Where it is.
            max_frames: Frames after which it ends; all by default.
        """
        from datamodules.frames import open_video

        return open_video(
            path, size=self.size, fps=self.fps, depth=self.depth, max_frames=max_frames
        )


@dataclass(frozen=True, kw_only=True)
class SequencesOption:
    """Which test sequences are coded.

    Attributes:
        sequences: Test sequences: NAME=ROOT (uvg, mcl_jcv, hevc_b to hevc_e), a dataset
            JSON of DCVC, any folder of videos, one video, or patterns, patterns:N,
            patterns=DIR (eight synthetic motions over N pictures, procedural or of a
            folder).
    """

    sequences: tuple[str, ...] = option(metavar="SPEC")


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """What some codecs can be told when they code.

    Attributes:
        coding: For ``codec.configure``, which refuses what is another codec's.
    """

    coding: dict[str, Any] = option(also=coding_options)
