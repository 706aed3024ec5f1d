"""Turn a bitstream back into video: ``python -m experiments.decode IN OUT ...``."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments.bitstreams.coding_mode import (
    choose_device,
    coding_mode,
    speed,
    summary,
)
from experiments.bitstreams.files import StreamDecoder, load_decoder, open_stream
from experiments.bitstreams.options import CodecOptions
from experiments.cli import check_paths, option, parse, run_command, track

if TYPE_CHECKING:
    import torch

    from lightning_modules.bitstream import StreamHeader

EPILOG = """\
examples:
  python -m experiments.decode in.lvc out.y4m --checkpoint last.ckpt
  python -m experiments.decode cut.lvc frames --checkpoint last.ckpt --partial
  python -m experiments.decode in.lvc preview.mp4 --checkpoint dhvc.ckpt --scales 1

OUT appears only when it is complete. PNG images hold exactly the decoded frames,
rounded to 8 bits; .y4m and .yuv round chroma to 4:2:0 too; .mp4 and .mkv are for
watching, not for measuring.
"""


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(CodecOptions):
    """Decode a bitstream file that experiments.encode wrote.

    Attributes:
        input: Bitstream file.
        output: Video to write: .y4m, .yuv, .mp4, .mkv, or no suffix for PNG images.
        checkpoint: The codec that the file was encoded with.
        device: Where the networks run (default: the encoder's kind if there is one).
        depth: Bits per sample of .y4m and .yuv.
        partial: Write the frames before the first missing or damaged unit.
        scales: Progressive decoding: only the K coarsest scales of each frame, for
            codecs that have scales (default: all).
        hash: Print the SHA-256 of all frames (float32 RGB) as the last line.
    """

    input: Path = option(metavar="IN", positional=True)
    output: Path | None = option(None, metavar="OUT", positional=True, nargs="?")
    checkpoint: Path = option(metavar="CKPT")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    depth: int = option(8, metavar="BITS")
    partial: bool = False
    scales: int | None = option(None, metavar="K")
    hash: bool = False

    def __post_init__(self) -> None:
        if not (self.output or self.hash):
            raise ValueError("give OUT, or --hash to write nothing")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: decode(parse(DecodeOptions, "decode", argv, EPILOG)))


def decode(options: DecodeOptions) -> None:
    """Decode ``options.input`` into ``options.output`` and print what it cost.

    Raises:
        ValueError: An option is wrong, or the file is damaged or another codec's.
    """
    from datamodules.writing import create_video

    check_paths(options.input, options.output, options.checkpoint)
    with open_stream(options.input) as reader, ExitStack() as stack:
        header = reader.header
        write = None
        if options.output:
            video = create_video(
                options.output,
                header.width,
                header.height,
                header.fps,
                depth=options.depth,
            )
            write = stack.enter_context(video)
        device = _device(options, header)
        stack.enter_context(coding_mode(device))
        codec = load_decoder(header, options.checkpoint, device)
        codec.configure(**options.coding)
        decoder = StreamDecoder(
            codec,
            reader,
            partial=options.partial,
            hashing=options.hash,
            scales=options.scales,
        )
        for frame in track(decoder, "decoding", None):
            if write:
                write(frame)
        if not decoder.frames:
            reason = decoder.stopped or "it holds none"
            raise ValueError(f"{options.input}: no frame could be decoded; {reason}")
    count, stopped = decoder.frames, decoder.stopped
    if stopped:
        print(
            f"warning: {count} frames recovered from {options.input}, then {stopped}",
            file=sys.stderr,
        )
    if options.output:
        size, nbytes = (header.height, header.width), options.input.stat().st_size
        cost = summary(options.output, count, size, header.fps, nbytes)
        if stopped or options.scales:  # The file's bytes are not these frames'.
            cost = f"{options.output}: {count} frames of {size[1]}x{size[0]}"
        if options.scales:
            cost += f", {options.scales} of {codec.scales} scales decoded"
        print(f"{cost}, {speed(count, decoder.seconds['decode'])}")
    if options.hash:
        print(decoder.digest)


def _device(options: DecodeOptions, header: "StreamHeader") -> "torch.device":
    """Return where to decode: where it was encoded, unless the user says otherwise."""
    wants_same = options.device == "auto" and header.device == "cpu"
    device = choose_device("cpu" if wants_same else options.device)
    if device.type != header.device:
        print(
            f"warning: {options.input} was encoded on {header.device}, and bit-exact "
            f"decoding on {device.type} is not guaranteed; an error says if it fails",
            file=sys.stderr,
        )
    return device


if __name__ == "__main__":
    raise SystemExit(main())
