"""How ``decode`` works: a stream, its frames, what to say of them."""

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch

from datamodules.paths import printable
from datamodules.pipes import STDOUT, as_input, as_output, is_pipe
from datamodules.writing import create_video
from experiments.bitstreams.coding_mode import (
    choose_device,
    coding_mode,
    speed,
    summary,
)
from experiments.bitstreams.files import (
    StreamDecoder,
    load_decoder,
    open_stream,
    shipped_decoder,
)
from experiments.bitstreams.options import DecodeOptions
from experiments.bitstreams.pixels import OtherPixelsError, PixelChecks
from experiments.cli.command import check_paths
from experiments.cli.progress import track
from lightning_modules.bitstream import StreamHeader
from lightning_modules.numerics import PORTABLE, current, recreated

REMEDY = (
    "decode with that version and kind of machine, or encode with --dtype float64, "
    "which decodes alike on any"
)
MEANT_EXACT = "it should be so on any machine: get the file again, or try another"
PIPED = (
    "decode it from a file: kernels cannot be chosen any more when a pipe says which"
)


def decode(options: DecodeOptions) -> None:
    """Decode ``options.input`` into ``options.output`` and print what it cost.

    Raises:
        ValueError: An option is wrong, or the file is damaged or another codec's.
    """
    options = replace(options, input=as_input(options.input))
    # Where the video goes to the standard output, nothing else may.
    told = sys.stdout
    if options.output and as_output(options.output) == STDOUT:
        options, told = replace(options, output=STDOUT), sys.stderr
    check_paths(options.input, options.output, options.checkpoint)
    with open_stream(options.input) as reader, ExitStack() as stack:
        header = reader.header
        if header.numerics is None and is_pipe(options.input):
            raise ValueError(
                f"{printable(options.input)} is of an earlier version, whose kernels "
                "cannot be chosen after a pipe was opened: decode it from a file"
            )
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
        stack.enter_context(recreated(header.numerics))
        _warn_unlike(options, header, device)
        checkpoint = options.checkpoint
        if checkpoint is None:
            checkpoint = shipped_decoder(header, options.input)
        codec = load_decoder(header, checkpoint, device)
        codec.configure(**options.coding)
        checks = PixelChecks(
            partial(_tell_other_pixels, options, header), strict=options.strict
        )
        decoder = StreamDecoder(
            codec,
            reader,
            partial=options.partial,
            hashing=options.hash,
            scales=options.scales,
            pixels=checks,
        )
        for frame in track(decoder, "decoding", None):
            if write:
                write(frame)
        if not decoder.frames:
            reason = decoder.stopped or "it holds none"
            name = printable(options.input)
            raise ValueError(f"{name}: no frame could be decoded; {reason}")
    count, stopped = decoder.frames, decoder.stopped
    if stopped:
        print(
            f"warning: {count} frames recovered from {printable(options.input)}, then "
            f"{stopped}",
            file=sys.stderr,
        )
    if options.output:
        size, nbytes = (header.height, header.width), options.input.stat().st_size
        cost = summary(options.output, count, size, header.fps, nbytes)
        # The file's bytes are not these frames', or a pipe has none.
        if stopped or options.scales or is_pipe(options.input):
            cost = f"{printable(options.output)}: {count} frames of {size[1]}x{size[0]}"
        if options.scales:
            cost += f", {options.scales} of {codec.scales} scales decoded"
        # Every one was compared, and none was found to differ.
        checked = ", checked" if checks.compared == count and not checks.differs else ""
        print(f"{cost}, {speed(count, decoder.seconds['decode'])}{checked}", file=told)
    if options.hash:
        print(decoder.digest, file=told)


def _device(options: DecodeOptions, header: StreamHeader) -> torch.device:
    """Return where to decode: where it was encoded, unless the user says otherwise."""
    wants_same = options.device == "auto" and header.device == "cpu"
    return choose_device("cpu" if wants_same else options.device)


def _warn_unlike(
    options: DecodeOptions, header: StreamHeader, device: torch.device
) -> None:
    """Warn of what the encoder ran with and cannot be had here."""
    if header.exact:
        return
    unlike = []
    if device.type != header.device:
        unlike.append(f"on {header.device}, this is {device.type}")
    elif header.numerics:
        unlike += header.numerics.unlike(current(), device.type)
    if unlike:
        checked = "" if header.numerics else ", which nothing will tell"
        print(
            f"warning: {printable(options.input)} was encoded {'; '.join(unlike)}: "
            f"decoding may fail, or give other frames{checked}; "
            f"{_remedy(options, header)}",
            file=sys.stderr,
        )


def _remedy(options: DecodeOptions, header: StreamHeader) -> str:
    """Return what to do where frames are, or may be, other than the encoder's."""
    if header.exact:
        return MEANT_EXACT
    others = header.numerics and header.numerics.isa != PORTABLE
    return PIPED if others and is_pipe(options.input) else REMEDY


def _tell_other_pixels(
    options: DecodeOptions, header: StreamHeader, frame: int
) -> None:
    """Say which frame is not the encoder's.

    Raises:
        OtherPixelsError: It has to be.
    """
    said = (
        f"{printable(options.input)}: frame {frame} is not, bit by bit, what the "
        f"encoder ({header.numerics}, {header.device}) made of it, and PSNR may differ "
        f"from there on; {_remedy(options, header)}"
    )
    if options.strict:
        raise OtherPixelsError(said)
    print(f"warning: {said}", file=sys.stderr)
