"""Measure a classical codec on test sequences: ``python -m experiments.anchor ...``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.anchor.settings import codec_names, load_preset, load_presets
from experiments.cli import option, parse, run_command
from experiments.evaluate.options import JobOptions

EPILOG = """\
examples:
  python -m experiments.anchor --codec x265 --sequences hevc_b=/data/HEVC_B \\
      --qp 22 27 32 37 --max_frames 96 --intra_period 32 --output results/x265.json
  python -m experiments.anchor --codec vtm --sequences uvg=/data/UVG --qp 22 27 32 37 \\
      --max_frames 96 --binary EncoderApp --decoder DecoderApp \\
      --config cfg/encoder_lowdelay_vtm.cfg --output results/vtm.json

Frames, colours and metrics are those of experiments.evaluate, so that its files can be
compared. Every file is decoded again and counted whole. Encoders use one thread each:
more --workers are faster and give the same bytes.
"""


def describe_presets() -> str:
    """Return all codecs with their presets, where those are from, and their rates."""
    lines = []
    for codec in codec_names():
        presets = load_presets(codec)
        default = next(iter(presets.values()))
        knobs = [
            f"--{name} {knob.low:g} to {knob.high:g}"
            for name, knob in default.knobs.items()
        ]
        given = [f"{c} as {f}" for c, f in default.pixel_formats.items()]
        lines += [f"{codec}: {default.title}; {', '.join([*knobs, *given])}"]
        for preset in presets.values():
            only = f", --{' or --'.join(preset.knobs)} only"
            limit = "" if len(preset.knobs) == len(default.knobs) else only
            mark = " (default)" if preset is default else ""
            lines += [
                f"  {preset.name}{mark}: {preset.structure}{limit}; {preset.note}",
                f"      source: {preset.source}",
            ]
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class AnchorOptions(JobOptions):
    """Code test sequences with a classical codec and compare them with the source.

    Attributes:
        list: Print all presets and end.
        codec: Which: aom, av1 (SVT-AV1), hm, vtm, vvc (VVenC), x264, x265.
        preset: How; see --list (default: its first).
        qp: Constant quantisers, in the encoder's own scale.
        crf: Constant rate factors instead, where the encoder has them.
        binary: Encoder program, for hm and vtm.
        decoder: Its decoder (default: the encoder's own reconstruction is compared).
        config: Its configuration file.
    """

    list: bool = option(False, shows=describe_presets)
    codec: str = option(metavar="NAME")
    preset: str | None = option(None, metavar="NAME")
    qp: tuple[float, ...] = option((), metavar="Q", one_of="rate", needed=True)
    crf: tuple[float, ...] = option((), metavar="Q", one_of="rate", needed=True)
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
    from experiments.anchor.coders import make_coder
    from experiments.evaluate.job import Rate
    from experiments.evaluate.jobs import run_jobs

    preset = load_preset(options.codec, options.preset)
    knob = "qp" if options.qp else "crf"
    rates = [Rate(preset.check_rate(knob, q)) for q in options.qp or options.crf]
    coder = make_coder(
        preset,
        knob,
        options.intra_period,
        name=options.label,
        binary=options.binary,
        decoder=options.decoder,
        config=options.config,
    )
    if preset.structure == "random_access":
        print(
            f"note: {preset.name} refers to later frames, which a low-delay codec "
            "cannot; --list names low-delay presets",
            file=sys.stderr,
        )
    return run_jobs(coder, rates, options)
