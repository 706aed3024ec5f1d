"""Options that the commands share which run a codec."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.cli.checkpoints import checkpoint_option
from experiments.cli.options import option, parse_fps, parse_size
from lightning_modules import coding_options, decoding_options
from lightning_modules.numerics import MAX_THREADS

if TYPE_CHECKING:
    from datamodules.video_reader import VideoReader


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where the networks of an encoder run, and in which precision.

    Attributes:
        device: Where the networks run (default: cuda if there is one).
        dtype: Precision of the networks; decoders follow. float64 is slow, and
            decodes to the same frames on any machine.
        isa: Instruction set on a CPU; decoders follow. avx2 is what nearly all x86-64
            machines have, native what this one has: faster on some, and only for its
            like.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float16", "bfloat16", "float64"] = "float32"
    isa: Literal["avx2", "native"] = "avx2"


@dataclass(frozen=True, kw_only=True)
class RawVideoOptions:
    """How raw video is read.

    Attributes:
        size: Frame size, for raw .yuv only (default: as in name_416x240_50_8bit.yuv);
            makes a pipe one.
        fps: Frames per second, for raw .yuv (default: as in its name); replaces the
            rate of other files.
        depth: Bits per sample, for raw .yuv only (default: as in its name, else 8).
    """

    size: tuple[int, int] | None = option(None, metavar="WxH", read=parse_size)
    fps: Fraction | None = option(None, metavar="F", read=parse_fps)
    depth: int | None = option(None, metavar="BITS")

    def open(
        self, path: Path, max_frames: int | None, *, once: bool = False
    ) -> "VideoReader":
        """Open a video, raw or not.

        Args:
            path: Where it is.
            max_frames: Frames after which it ends; all by default.
            once: Whether this is the only pass, so that it may be a pipe.

        Raises:
            ValueError: It cannot be read, or its name contradicts an option.
        """
        from datamodules.frames import open_video
        from datamodules.sequences.content import settle_raw_format

        size, fps, depth = self.size, self.fps, 8 if self.depth is None else self.depth
        if path.suffix.lower() == ".yuv" and not path.is_dir():
            size, fps, depth = settle_raw_format(path, size, fps, self.depth)
        return open_video(
            path, size=size, fps=fps, depth=depth, max_frames=max_frames, once=once
        )


@dataclass(frozen=True, kw_only=True)
class SequencesOption:
    """Which test sequences are coded.

    Attributes:
        sequences: Test sequences: NAME=ROOT (uvg, mcl_jcv, hevc_b to hevc_e), a dataset
            JSON of DCVC, any folder of videos, one video, stills=DIR (each picture of a
            folder a sequence of one frame), or patterns, patterns:N, patterns=DIR
            (eight synthetic motions over N pictures, procedural or of a folder).
    """

    sequences: tuple[str, ...] = option(metavar="SPEC")


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """What some codecs can be told when they code.

    Attributes:
        coding: For ``codec.configure``, which refuses what is another codec's.
    """

    coding: dict[str, Any] = option(also=coding_options)


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(RawVideoOptions, CodecOptions, DeviceOptions):
    """Code a video with a trained codec into a bitstream file.

    Attributes:
        input: Video, raw 4:2:0 (.y4m, .yuv), directory of PNG or JPEG images, or one
            image; or a pipe, - for the standard input.
        output: Bitstream file to write.
        checkpoint: Trained codec: a file, the folder of a stage or a run, whose newest
            is taken, or the name of a shipped model (lvc --models).
        rate: Quality in the codec's own unit (UI2C: qp 0 to 63); more is more bits.
        target_bpp: Search the rate that takes so many bits per pixel, within 1 %.
        target_kbps: Search the rate that takes so many kilobits per second, within
            1 %.
        max_frames: Stop after N frames.
        intra_period: Start without a reference every N frames (default: only at the
            first).
        threads: Of torch on a CPU, up to 1024; decoders follow (default:
            OMP_NUM_THREADS or the cores, at most 8).
        unchecked: Leave out the checksums of pixels: the encoder saves its own
            reconstruction, and no decoder can tell whether its frames are the same.
        verify: Decode in a second process, require identical frames, report PSNR.
    """

    input: Path = option(metavar="IN", positional=True)
    output: Path = option(metavar="OUT", positional=True)
    checkpoint: Path = option(metavar="CKPT", read=checkpoint_option)
    rate: float | None = option(None, metavar="QP", one_of="rate", needed=True)
    target_bpp: float | None = option(None, metavar="BPP", one_of="rate")
    target_kbps: float | None = option(None, metavar="KBPS", one_of="rate")
    max_frames: int | None = option(None, metavar="N")
    intra_period: int = option(-1, metavar="N")
    threads: int | None = option(None, metavar="N")
    unchecked: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise ValueError(
                f"--threads is {self.threads}: it must be 1 to {MAX_THREADS}"
            )


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Decode a bitstream file that experiments.encode wrote.

    Attributes:
        input: Bitstream file, or a pipe.
        output: Video to write: .y4m, .yuv, .mp4, .mkv, or no suffix for PNG images; a
            pipe, - for the standard output, gets y4m, or yuv if it is called .yuv.
        checkpoint: The codec that the file was encoded with: a file, the folder of a
            stage or a run, whose newest is taken, or a shipped model's name (default:
            the shipped model that the file names).
        device: Where the networks run (default: the encoder's kind if there is one).
        depth: Bits per sample of .y4m and .yuv.
        partial: Write the frames before the first missing or damaged unit.
        scales: Progressive decoding: only the K coarsest scales of each frame, for
            codecs that have scales (default: all).
        strict: Frames that are not the encoder's own are an error, and no warning.
        hash: Print the SHA-256 of all frames (float32 RGB) as the last line.
        coding: For ``codec.configure``; all else that encoders are told is in the
            stream.
    """

    input: Path = option(metavar="IN", positional=True)
    output: Path | None = option(None, metavar="OUT", positional=True, nargs="?")
    checkpoint: Path | None = option(None, metavar="CKPT", read=checkpoint_option)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    depth: int = option(8, metavar="BITS")
    partial: bool = False
    scales: int | None = option(None, metavar="K")
    strict: bool = False
    hash: bool = False
    coding: dict[str, Any] = option(also=decoding_options)

    def __post_init__(self) -> None:
        if not (self.output or self.hash):
            raise ValueError("give OUT, or --hash to write nothing")
        if self.strict and self.scales is not None:
            raise ValueError(
                "--strict compares frames of all scales with the encoder's: leave out "
                "--scales"
            )
