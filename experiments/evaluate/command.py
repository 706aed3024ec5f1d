"""Measure a trained codec on test sequences: ``python -m experiments.evaluate ...``."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.bitstreams.coding_mode import choose_device
from experiments.bitstreams.rate_search import check_target
from experiments.cli import add_device_options, add_given, run_command, take_given
from experiments.evaluate.jobs import add_shared_options, measure_all, settings_of
from experiments.evaluate.learned import LearnedCoder
from experiments.evaluate.parts import Rate
from lightning_modules import coding_options

if TYPE_CHECKING:
    from lightning_modules.codec import VideoCodec

EPILOG = """\
examples:
  python -m experiments.evaluate --checkpoint last.ckpt --max_frames 96 \\
      --sequences hevc_b=/data/HEVC_B uvg=/data/UVG --output results/ui2c.json
  python -m experiments.evaluate --checkpoint last.ckpt --sequences clips/ \\
      --colour rgb --target_bpp 0.02 0.05 0.1 --workers 2 --output results/rgb.json
  python -m experiments.evaluate --checkpoint dhvc.ckpt --scales 1,2,3 \\
      --sequences patterns:2 --output results/dhvc.json

Every point is a real bitstream that another process decodes to the same frames. The
same command again goes on with what is missing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(partial(evaluate, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate",
        description="Measure a trained codec on test sequences.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", metavar="CKPT", type=Path, required=True, help="trained codec")
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument(
        "--rate",
        metavar="R",
        type=float,
        nargs="+",
        help="values of the codec's knob (default: the ones its paper reports)",
    )
    rates.add_argument(
        "--target_bpp",
        metavar="X",
        type=float,
        nargs="+",
        help="search the rate that gives these bits per pixel on each sequence",
    )
    rates.add_argument(
        "--target_kbps", metavar="X", type=float, nargs="+", help="the same in kbit/s"
    )
    add_shared_options(parser)
    add(
        "--estimate",
        action="store_true",
        help="fast: bits are the model's estimate and nothing is decoded; a file of "
        "its own kind, never compared with real bitstreams",
    )
    add(
        "--scales",
        metavar="K",
        nargs="+",
        default=[],
        help="also measure what only the K coarsest scales give, one point for each "
        "number, of a codec that has scales",
    )
    add_given(parser, coding_options())
    add_device_options(parser)
    return parser


def evaluate(options: argparse.Namespace) -> int:
    """Measure as the options say; see :func:`experiments.evaluate.jobs.run_jobs`."""
    if not options.checkpoint.is_file():
        raise ValueError(f"there is no checkpoint {options.checkpoint}")
    if options.estimate and options.scales:
        raise ValueError("--scales needs real bitstreams: leave out --estimate")
    kind = "estimate" if options.estimate else "bitstream"
    settings = settings_of(options, kind)
    coder = LearnedCoder(
        name=options.name or options.output.stem,
        checkpoint=options.checkpoint.absolute(),
        device=choose_device(options.device).type,
        dtype=options.dtype,
        intra_period=options.intra_period,
        estimate=options.estimate,
        threads=settings.threads,
        options=take_given(vars(options), coding_options()),
    )
    coder.scales = _scales(options.scales, coder.codec)
    knob = coder.codec.rate_knob
    coder.codec.check_intra_period(options.intra_period)
    for unit in ("bpp", "kbps"):
        for target in getattr(options, f"target_{unit}") or ():
            check_target(knob, target, unit)
    if options.target_bpp:
        rates = [Rate(value, "bpp") for value in options.target_bpp]
    elif options.target_kbps:
        rates = [Rate(value, "kbps") for value in options.target_kbps]
    else:
        rates = [Rate(knob.check(value)) for value in options.rate or knob.points]
    return measure_all(coder, rates, settings, options)


def _scales(texts: Sequence[str], codec: "VideoCodec") -> tuple[int, ...]:
    """Return the numbers of scales to decode besides all, from ``1 2`` or ``1,2``."""
    try:
        numbers = {int(number) for text in texts for number in text.split(",")}
    except ValueError:
        listed = " ".join(texts)
        raise ValueError(f"--scales {listed}: give numbers, like 1,2,3") from None
    for number in sorted(numbers):
        codec.check_scales(number)
    # What all scales give is a point anyway.
    return tuple(sorted(numbers - {codec.scales}))
