"""Turn a bitstream back into video: ``python -m experiments.decode IN OUT ...``."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.bitstreams.files import (
    StreamDecoder,
    add_pipeline_option,
    add_unit_options,
    load_decoder,
    open_stream,
    unit_options,
)
from experiments.cli import (
    check_paths,
    choose_device,
    coding_mode,
    run_command,
    speed,
    summary,
    track,
)

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.output or options.hash):
        parser.error("give OUT, or --hash to write nothing")
    return run_command(partial(decode, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.decode",
        description="Decode a bitstream file that experiments.encode wrote.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", metavar="IN", type=Path, help="bitstream file")
    add(
        "output",
        metavar="OUT",
        type=Path,
        nargs="?",
        help="video to write: .y4m, .yuv, .mp4, .mkv, or no suffix for PNG images",
    )
    add(
        "--checkpoint",
        metavar="CKPT",
        type=Path,
        required=True,
        help="the codec that the file was encoded with",
    )
    add(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where the networks run (default: the encoder's kind if there is one)",
    )
    add(
        "--depth",
        metavar="BITS",
        type=int,
        default=8,
        help="bits per sample of .y4m and .yuv (default: 8)",
    )
    add(
        "--partial",
        action="store_true",
        help="write the frames before the first missing or damaged unit",
    )
    add(
        "--scales",
        metavar="K",
        type=int,
        help="progressive decoding: only the K coarsest scales of each frame, for "
        "codecs that have scales (default: all)",
    )
    add_unit_options(parser, encodes=False)
    add_pipeline_option(parser)
    add(
        "--hash",
        action="store_true",
        help="print the SHA-256 of all frames (float32 RGB) as the last line",
    )
    return parser


def decode(options: argparse.Namespace) -> None:
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
            write = stack.enter_context(video).write
        device = _device(options, header)
        stack.enter_context(coding_mode(device))
        codec = load_decoder(header, options.checkpoint, device)
        codec.configure(**unit_options(options))
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


def _device(options: argparse.Namespace, header: "StreamHeader") -> "torch.device":
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
