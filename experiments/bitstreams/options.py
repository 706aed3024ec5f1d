"""Options that the commands share which run a codec."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.cli import option, parse_fps, parse_size

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
        """Open a video for one pass; see :func:`~datamodules.frames.open_video`."""
        from datamodules.frames import open_video

        return open_video(
            path, size=self.size, fps=self.fps, depth=self.depth, max_frames=max_frames
        )


@dataclass(frozen=True, kw_only=True)
class UnitOptions:
    """What only codecs of large units can be told; no bit changes.

    Attributes:
        gop_batch: Groups of pictures that are coded side by side, for codecs that have
            them (default: 1); faster on a GPU.
    """

    gop_batch: int | None = option(None, metavar="N")

    def coding(self) -> dict[str, Any]:
        """Return the options that were given, for ``codec.configure``."""
        given = {
            "gop_batch": self.gop_batch,
            "pipeline": getattr(self, "pipeline", None),
            "overlap": getattr(self, "gop_overlap", None),
            "tile": getattr(self, "tile", None),
        }
        if given["overlap"]:
            given["overlap"] = given["overlap"] == "on"
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class EncoderUnitOptions(UnitOptions):
    """What only encoders of large units can be told.

    Attributes:
        gop_overlap: Whether groups of pictures share their outer frames, for codecs
            that have them (default: as trained); decoders see it in the stream.
        tile: Work in tiles of SIDE pixels, as 576, where memory is too small for whole
            frames, for codecs that can; seams change the frames a little.
    """

    gop_overlap: Literal["on", "off"] | None = None
    tile: int | None = option(None, metavar="SIDE")


@dataclass(frozen=True, kw_only=True)
class PipelineOption:
    """How many frames are worked on at once.

    Attributes:
        pipeline: Work on P frames at once, on as many GPUs as there are, for codecs
            that can (DHVC without its auxiliary path); not one bit changes. On a CPU
            set OMP_NUM_THREADS to its cores over P, for encoder and decoder alike.
    """

    pipeline: int | None = option(None, metavar="P")
