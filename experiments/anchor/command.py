"""Measure a classical codec on test sequences: ``python -m experiments.anchor ...``."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.anchor.settings import codec_names, load_preset, load_presets
from experiments.cli import run_command
from experiments.evaluate.job import Rate
from experiments.evaluate.jobs import add_shared_options, measure_all, settings_of

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(partial(anchor, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.anchor",
        description="Measure a classical codec on test sequences.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action=_ListPresets, nargs=0, help="print all presets and end")
    add(
        "--codec",
        required=True,
        metavar="NAME",
        help=f"which: {', '.join(codec_names())} (av1: SVT-AV1, vvc: VVenC)",
    )
    add("--preset", metavar="NAME", help="how; see --list (default: its first)")
    rates = parser.add_mutually_exclusive_group(required=True)
    rates.add_argument(
        "--qp",
        metavar="Q",
        type=float,
        nargs="+",
        help="constant quantisers, in the encoder's own scale",
    )
    rates.add_argument(
        "--crf",
        metavar="Q",
        type=float,
        nargs="+",
        help="constant rate factors instead, where the encoder has them",
    )
    add_shared_options(parser)
    add("--binary", metavar="PATH", type=Path, help="encoder program, for hm and vtm")
    add(
        "--decoder",
        metavar="PATH",
        type=Path,
        help="its decoder (default: the encoder's own reconstruction is measured)",
    )
    add("--config", metavar="CFG", type=Path, help="its configuration file")
    return parser


class _ListPresets(argparse.Action):
    """Print every codec's presets and exit, whatever else is missing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        print(describe_presets())
        parser.exit()


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


def anchor(options: argparse.Namespace) -> int:
    """Measure as the options say; see :func:`experiments.evaluate.jobs.measure_all`.

    Raises:
        ValueError: An option, a file or the encoder is wrong.
    """
    from experiments.anchor.coders import make_coder

    preset = load_preset(options.codec, options.preset)
    knob = "qp" if options.qp else "crf"
    values = getattr(options, knob)
    rates = [Rate(preset.check_rate(knob, value)) for value in values]
    settings = settings_of(options)
    coder = make_coder(
        preset,
        knob,
        options.intra_period,
        name=options.name or options.output.stem,
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
    return measure_all(coder, rates, settings, options)
