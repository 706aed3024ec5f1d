"""Measure another codec on test sequences: ``python -m experiments.anchor ...``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from experiments.anchor.settings import Preset, codec_names, load_preset, load_presets
from experiments.cli.command import run_command
from experiments.cli.options import option, parse
from experiments.cli.progress import say
from experiments.evaluate.options import JobOptions
from lightning_modules.numerics import PORTABLE, pin

EPILOG = """\
examples:
  python -m experiments.anchor --codec x265 --sequences hevc_b=/data/HEVC_B \\
      --qp 22 27 32 37 --max_frames 96 --intra_period 32 --output results/x265.json
  python -m experiments.anchor --codec vtm --sequences uvg=/data/UVG --qp 22 27 32 37 \\
      --max_frames 96 --binary EncoderApp --decoder DecoderApp \\
      --config cfg/encoder_lowdelay_vtm.cfg --output results/vtm.json
  python -m experiments.anchor --codec compressai --preset ssf2020 --quality 1 3 5 7 \\
      --sequences uvg=/data/UVG --max_frames 96 --output results/ssf2020.json
  python -m experiments.anchor --codec jpeg --sequences stills=/data/kodak \\
      --colour rgb --output results/jpeg.json
  python -m experiments.anchor --codec decoded --name DCVC-FM \\
      --decoded 0=out/q0/{sequence} 21=out/q21/{sequence} --bytes 0=out/q0/bin \\
      21=out/q21/bin --sequences uvg=/data/UVG --fid frames --output results/fm.json

Frames, colours and metrics are those of experiments.evaluate, so that its files can be
compared. Every file is decoded again and counted whole; what --decoded gives is stamped
"not decoded by us". Classical encoders use one thread each: more --workers are faster
and give the same bytes.
"""


NUMBERED = ("qp", "crf", "quality")
"""Knobs whose values are numbers alone."""

NAMED = ("checkpoint", "decoded")
"""Knobs that are given with a file for each rate."""

TOLD = ("bytes", "device", "binary", "decoder", "config")
"""Options that only some codecs have a use for."""


def describe_presets() -> str:
    """Return all codecs with their presets, where those are from, and their rates."""
    lines = []
    for codec in codec_names():
        presets = load_presets(codec)
        default = next(iter(presets.values()))
        given = [f"{c} as {f}" for c, f in default.pixel_formats.items()]
        lines += [f"{codec}: {default.title}; {', '.join([*_knobs(default), *given])}"]
        for preset in presets.values():
            own = _knobs(preset)
            only = " only"
            if preset.knobs.keys() == default.knobs.keys():
                own = [text for text in own if text not in _knobs(default)]
                only = ""
            limit = f", {' or '.join(own)}{only}" if own else ""
            mark = " (default)" if preset is default else ""
            lines += [
                f"  {preset.name}{mark}: {preset.structure}{limit}; {preset.note}",
                f"      source: {preset.source}",
            ]
            lines += [
                f"      version {number}: {paper}"
                for number, paper in preset.run.get("paper_versions", {}).items()
            ]
    return "\n".join(lines)


def _knobs(preset: Preset) -> list[str]:
    """Return what sets a preset's rate, with its range."""
    texts = []
    for name, knob in preset.knobs.items():
        text = f"--{name} RATE="
        if knob.bounded:
            text = f"--{name} {knob.low:g} to {knob.high:g}"
        if knob.usual:
            text += f" (default: {' '.join(f'{value:g}' for value in knob.usual)})"
        texts.append(text)
    return texts


@dataclass(frozen=True, kw_only=True)
class AnchorOptions(JobOptions):
    """Code test sequences with another codec and compare them with the source.

    Attributes:
        list: Print all presets and end.
        codec: Which: aom, av1 (SVT-AV1), avif, compressai (learned), decoded (any that
            was run elsewhere), hm, jpeg, vtm, vvc (VVenC), webp, x264, x265.
        preset: How; see --list (default: its first).
        qp: Constant quantisers, in the encoder's own scale.
        crf: Constant rate factors instead, where the encoder has them.
        quality: Of jpeg, webp and avif (default: six that --list names); or published
            weights of compressai, from torch hub's folder, nothing is downloaded.
        checkpoint: Other weights of compressai, at any number as rate.
        decoded: Frames that another codec decoded: video, folder of PNG, or a folder or
            pattern ({sequence}) with one of these for each sequence.
        bytes: What they took: a number, the bitstream's file, a .txt or .json of bytes
            per frame, or a folder or pattern as above.
        device: Where the networks of compressai run (default: cuda if there is one).
        binary: Encoder program, for hm and vtm.
        decoder: Its decoder (default: the encoder's own reconstruction is compared).
        config: Its configuration file.
    """

    list: bool = option(False, shows=describe_presets)
    codec: str = option(metavar="NAME")
    preset: str | None = option(None, metavar="NAME")
    qp: tuple[float, ...] = option((), metavar="Q", one_of="rate")
    crf: tuple[float, ...] = option((), metavar="Q", one_of="rate")
    quality: tuple[float, ...] = option((), metavar="N", one_of="rate")
    checkpoint: tuple[str, ...] = option((), metavar="RATE=FILE", one_of="rate")
    decoded: tuple[str, ...] = option((), metavar="RATE=PATH", one_of="rate")
    bytes: tuple[str, ...] = option((), metavar="RATE=BYTES")
    device: Literal["auto", "cpu", "cuda"] | None = None
    binary: Path | None = option(None, metavar="PATH")
    decoder: Path | None = option(None, metavar="PATH")
    config: Path | None = option(None, metavar="CFG")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: anchor(parse(AnchorOptions, "anchor", argv, EPILOG)))


def anchor(options: AnchorOptions) -> int:
    """Do as the options say; see :func:`experiments.evaluate.jobs.run_jobs`.

    Raises:
        ValueError: An option, a file or the encoder is wrong.
    """
    # Before the imports, which take seconds.
    say(f"loading {options.codec}, looking at the sequences")
    # As evaluate does by default, so that both measure in the same way.
    pin(PORTABLE)
    from experiments.anchor.coders import make_coder
    from experiments.anchor.given import by_rate
    from experiments.evaluate.job import Rate
    from experiments.evaluate.jobs import run_jobs

    preset = load_preset(options.codec, options.preset)
    knob, values = _told_rates(options, preset)
    rates: dict[float, str | None] = dict.fromkeys(values)
    if knob in NAMED:
        rates = {**by_rate(f"--{knob}", values)}
    for rate in rates:
        preset.check_rate(knob, rate)
    options = _with_own_period(options, preset)
    coder = make_coder(
        preset,
        knob,
        options.intra_period,
        name=options.label,
        rates=rates,
        threads=options.threads_each,
        **{name: getattr(options, name) for name in TOLD},
    )
    for remark in coder.remarks():
        print(f"note: {remark}", file=sys.stderr)
    return run_jobs(coder, [Rate(rate) for rate in rates], options)


def _told_rates(options: AnchorOptions, preset: Preset) -> tuple[str, Sequence[Any]]:
    """Return what sets the rate, and its values: those given, or else the usual.

    Raises:
        ValueError: None is given, and the preset has no usual ones.
    """
    for name in (*NUMBERED, *NAMED):
        if values := getattr(options, name):
            return name, values
    for name, knob in preset.knobs.items():
        if knob.usual:
            return name, knob.usual
    raise ValueError(
        f"preset {preset.name!r} of {preset.codec} needs its rates: give --"
        f"{' or --'.join(preset.knobs)} with one or more values; --list says which"
    )


def _with_own_period(options: AnchorOptions, preset: Preset) -> AnchorOptions:
    """Return the options with the intra period of an encoder that has no other."""
    own = preset.intra_period
    if own is None:
        return options
    if options.intra_period not in (-1, own):
        print(
            f"note: {preset.codec} codes each frame alone: its intra period is {own}, "
            f"and not {options.intra_period}; compare accepts it with any other",
            file=sys.stderr,
        )
    return replace(options, intra_period=own)
