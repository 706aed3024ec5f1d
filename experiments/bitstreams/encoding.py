"""How ``encode`` works: one pass or a search, a report, a proof."""

import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import lightning_modules
from datamodules.paths import IMAGE_SUFFIXES
from datamodules.pipes import SAVE_FIRST, STDOUT, as_input, as_output, is_pipe
from datamodules.sources.folder import VIDEO_SUFFIXES
from datamodules.video_reader import VideoReader
from datamodules.whole_files import whole_or_nothing
from experiments.bitstreams.coding_mode import (
    choose_device,
    coding_mode,
    costs_of,
    speed,
    summary,
)
from experiments.bitstreams.files import StreamEncoder, header_of
from experiments.bitstreams.options import EncodeOptions
from experiments.bitstreams.rate_search import deviation, search_rate
from experiments.cli.command import check_paths
from experiments.cli.progress import track
from lightning_modules.codec import RateKnob, VideoCodec
from lightning_modules.numerics import (
    current,
    default_threads,
    recreated,
)
from lightning_modules.psnr import psnr_8_bit


@dataclass(frozen=True)
class Encoding:
    """One pass over the video.

    Attributes:
        coded: What was written, and what that took.
        psnr: Mean over frames in dB; ``None`` if nothing is verified.
    """

    coded: StreamEncoder
    psnr: float | None


def encode(options: EncodeOptions) -> None:
    """Code ``options.input`` into ``options.output`` and print what it costs.

    Raises:
        ValueError: An option, a file or the verification is wrong, or the target is
            out of reach.
    """
    options = replace(options, input=as_input(options.input))
    check_paths(options.input, options.output, options.checkpoint)
    if as_output(options.output) == STDOUT:
        raise ValueError(
            f"OUT is {options.output}: a bitstream appears only when it is complete, "
            "so it must be a file"
        )
    if options.output.suffix.lower() in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, ".yuv"):
        raise ValueError(
            f"OUT is {options.output}, but a bitstream is no {options.output.suffix} "
            f"file: call it {options.output.with_suffix('.lvc')}"
        )
    if options.rate is None and is_pipe(options.input):
        raise ValueError(
            f"a target takes several encodes, and {options.input} is {SAVE_FIRST}, or "
            "give --rate"
        )
    device = choose_device(options.device)
    numerics = replace(current(), threads=options.threads or default_threads())
    with (
        options.open(options.input, options.max_frames, once=True) as video,
        whole_or_nothing(options.output) as temporary,
        coding_mode(device),
        recreated(numerics),
    ):
        codec = lightning_modules.load_codec(
            options.checkpoint, device=device, dtype=getattr(torch, options.dtype)
        )
        codec.configure(**options.coding)
        if device.type == "cpu" and not codec.exact:
            _warn_unlike(options.isa, numerics.isa)
        if options.rate is None:
            encoding = _search(options, codec, temporary)
        else:
            rate = codec.rate_knob.check(options.rate)
            encoding = _encode_once(options, codec, rate, video, temporary)
        if encoding.coded.digest:
            digest = encoding.coded.digest
            _verify(temporary, options.checkpoint, device.type, digest)
    print(_report(options, codec.rate_knob, encoding))


def _warn_unlike(asked: str, isa: str) -> None:
    """Warn if the instruction set is not the one asked for."""
    if asked not in (isa, "native"):
        print(
            f"warning: {asked} cannot be had (the processor lacks it, or torch was "
            f"imported before): the stream is encoded with {isa}, and another machine "
            "may decode other frames; --dtype float64 decodes alike on any",
            file=sys.stderr,
        )


def _encode_once(
    options: EncodeOptions,
    codec: VideoCodec,
    rate: float,
    video: VideoReader,
    path: Path,
) -> Encoding:

    # Frames that the codec has taken and not yet given back, for the PSNR.
    taken: deque[Tensor] = deque()
    psnr_sum = 0.0

    def frames() -> Iterator[Tensor]:
        for frame in track(video, "encoding", video.frames):
            if options.verify:
                taken.append(frame)
            yield frame

    coded = StreamEncoder(
        codec,
        header_of(codec, video, rate, options.dtype),
        frames(),
        path,
        intra_period=options.intra_period,
        reconstruct=options.verify,
        checked=not options.unchecked,
    )
    for frame in coded:
        psnr_sum += psnr_8_bit(frame, taken.popleft())
    mean = psnr_sum / len(coded.frame_bits) if options.verify else None
    return Encoding(coded, mean)


def _search(options: EncodeOptions, codec: VideoCodec, path: Path) -> Encoding:
    """Code at several rates and leave the file that is closest to the target."""
    unit, target = "bpp", options.target_bpp
    if target is None:
        unit, target = "kbps", options.target_kbps
    assert target is not None, "the parser asks for one of them"
    attempt = path.with_name(f"{path.name}.trial")
    closest = math.inf
    kept: Encoding | None = None

    def trial(rate: float) -> float:
        nonlocal closest, kept
        with options.open(options.input, options.max_frames) as video:
            encoding = _encode_once(options, codec, rate, video, attempt)
            size, fps = (video.height, video.width), video.fps
        frames, nbytes = len(encoding.coded.frame_bits), encoding.coded.nbytes
        cost = costs_of(frames, size, fps, nbytes)[unit]
        off = deviation(cost, target)
        print(
            f"{codec.rate_knob.name} {rate:.6g}: {nbytes} bytes, {cost:.5g} {unit}, "
            f"{off:+.2%}",
            file=sys.stderr,
        )
        if abs(off) < closest:
            closest, kept = abs(off), encoding
            os.replace(attempt, path)
        return cost

    try:
        found = search_rate(trial, codec.rate_knob, target, unit=unit)
    finally:
        attempt.unlink(missing_ok=True)
    if not found.met:
        print(
            f"warning: {len(found.trials)} encodes came no closer than "
            f"{found.deviation:+.2%} to {target:g} {unit}; the fewer units a video "
            "has, the coarser are its rates",
            file=sys.stderr,
        )
    assert kept is not None, "a search has at least one trial"
    return kept


def _report(options: EncodeOptions, knob: RateKnob, encoding: Encoding) -> str:
    coded, header = encoding.coded, encoding.coded.header
    frames, size = len(coded.frame_bits), (header.height, header.width)
    parts = [summary(options.output, frames, size, header.fps, coded.nbytes)]
    if options.rate is None:
        parts.append(f"{knob.name} {header.rate:.6g}")
    if encoding.psnr is not None:
        parts.append(f"PSNR {encoding.psnr:.2f} dB")
    parts.append(speed(frames, coded.seconds["encode"]))
    if encoding.psnr is not None:
        parts.append("verified")
    return ", ".join(parts)


def _verify(path: Path, checkpoint: Path, device: str, expected: str) -> None:
    """Decode in another process and compare the frames' hash with the encoder's."""
    # -P: not what lies in the working directory.
    command = [sys.executable, "-P", "-m", "experiments.decode", str(path), "--hash"]
    command += ["--checkpoint", str(checkpoint), "--device", device]
    search = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
    )
    if result.returncode:
        reason = (result.stderr.strip() or "no message").splitlines()[-1]
        raise ValueError(f"verification failed, nothing was written: {reason}")
    if result.stdout.split()[-1:] != [expected]:
        raise ValueError(
            "verification failed, nothing was written: decoded frames differ from the "
            f"encoder's own (SHA-256 {result.stdout.strip()}, not {expected})"
        )
