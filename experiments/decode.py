"""Turn a bitstream back into video: ``python -m experiments.decode IN OUT ...``."""

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.coding import (
    check_paths,
    choose_device,
    coding_mode,
    frame_bytes,
    run_command,
    speed,
    summary,
    track,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightning_modules.bitstream import BitstreamReader, StreamHeader
    from lightning_modules.codec import VideoCodec

EPILOG = """\
examples:
  python -m experiments.decode in.lvc out.y4m --checkpoint last.ckpt
  python -m experiments.decode cut.lvc frames --checkpoint last.ckpt --partial

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
    from lightning_modules.bitstream import BitstreamError, BitstreamReader
    from lightning_modules.codec import DesyncError

    check_paths(options.input, options.output)
    with options.input.open("rb") as file:
        try:
            _decode(options, BitstreamReader(file))
        except (BitstreamError, DesyncError) as error:
            raise ValueError(f"{options.input}: {error}") from error


def _decode(options: argparse.Namespace, reader: "BitstreamReader") -> None:
    from datamodules.writing import create_video

    header = reader.header
    stopped: list[str] = []
    count = 0
    digest = hashlib.sha256()
    with ExitStack() as stack:
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
        codec = _load(options, header, device)
        start = time.perf_counter()
        frames = _frames(codec, reader, stopped if options.partial else None)
        for frame in track(frames, "decoding", None):
            count += 1
            if write:
                write(frame)
            if options.hash:
                digest.update(frame_bytes(frame))
        pace = speed(count, start)
        if not count:
            raise ValueError(
                f"{options.input}: no frame could be decoded; "
                + (stopped[0] if stopped else "it holds none")
            )
    if stopped:
        print(
            f"warning: {count} frames recovered from {options.input}, then "
            f"{stopped[0]}",
            file=sys.stderr,
        )
    if options.output:
        size, nbytes = (header.height, header.width), options.input.stat().st_size
        cost = summary(options.output, count, size, header.fps, nbytes)
        if stopped:  # The file's bytes are not these frames'.
            cost = f"{options.output}: {count} frames of {size[1]}x{size[0]}"
        print(f"{cost}, {pace}")
    if options.hash:
        print(digest.hexdigest())


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


def _load(
    options: argparse.Namespace, header: "StreamHeader", device: "torch.device"
) -> "VideoCodec":
    """Load the codec as the encoder ran it.

    Raises:
        ValueError: It is not the one that the file was encoded with.
    """
    import torch

    from lightning_modules import load_codec

    codec = load_codec(
        options.checkpoint, device=device, dtype=getattr(torch, header.dtype)
    )
    name, fingerprint = type(codec).__name__, codec.fingerprint()
    if name != header.codec:
        raise ValueError(
            f"{options.input} was encoded with {header.codec}, but "
            f"{options.checkpoint} is a {name}"
        )
    if fingerprint != header.fingerprint:
        raise ValueError(
            f"{options.input} was encoded with the weights "
            f"{header.fingerprint.hex()}, but {options.checkpoint} has "
            f"{fingerprint.hex()}: use the checkpoint that it was encoded with"
        )
    return codec


def _frames(
    codec: "VideoCodec", reader: "BitstreamReader", stopped: list[str] | None
) -> Iterator["Tensor"]:
    """Decode until the end, or until damage if ``stopped`` is there to take why."""
    from lightning_modules.bitstream import BitstreamError
    from lightning_modules.codec import DesyncError, Packet

    header = reader.header
    packets = (Packet(unit.payload, unit.frames, unit.checksum) for unit in reader)
    try:
        yield from codec.decompress(packets, header.height, header.width)
    except (BitstreamError, DesyncError) as error:
        if stopped is None:
            raise
        stopped.append(str(error))


if __name__ == "__main__":
    raise SystemExit(main())
