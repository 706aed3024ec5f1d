"""Measure a trained codec on test sequences: ``python -m experiments.evaluate ...``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.bitstreams.options import CodecOptions, DeviceOptions
from experiments.cli.checkpoints import checkpoint_option
from experiments.cli.command import run_command
from experiments.cli.options import option, parse
from experiments.cli.progress import say
from experiments.evaluate.options import JobOptions
from lightning_modules.numerics import pin

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


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(JobOptions, CodecOptions, DeviceOptions):
    """Code test sequences with a trained codec and compare them with the source.

    Attributes:
        checkpoint: Trained codec: a file, the folder of a stage or a run, whose newest
            is taken, or the name of a shipped model (lvc --models).
        rate: Values of the codec's knob (default: the ones its paper reports).
        target_bpp: Search the rate that gives these bits per pixel on each sequence.
        target_kbps: The same in kbit/s.
        estimate: Fast: bits are the model's estimate and nothing is decoded; a file of
            its own kind, never compared with real bitstreams.
        scales: Also what only the K coarsest scales give, one point for each number,
            of a codec that has scales.
        latents: Also how often each value of the latents was coded, by scale: in the
            file, and a figure for each sequence in a folder beside it, .latents.
    """

    checkpoint: Path = option(metavar="CKPT", read=checkpoint_option)
    rate: tuple[float, ...] = option((), metavar="R", one_of="rate")
    target_bpp: tuple[float, ...] = option((), metavar="X", one_of="rate")
    target_kbps: tuple[float, ...] = option((), metavar="X", one_of="rate")
    estimate: bool = False
    scales: tuple[str, ...] = option((), metavar="K")
    latents: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.checkpoint.is_file():
            raise ValueError(f"there is no checkpoint {self.checkpoint}")
        if self.estimate and self.scales:
            raise ValueError("--scales needs real bitstreams: leave out --estimate")

    @property
    def bits_from(self) -> str:
        """What tells the bits."""
        return "estimate" if self.estimate else "bitstream"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(
        lambda: evaluate(parse(EvaluateOptions, "evaluate", argv, EPILOG))
    )


def evaluate(options: EvaluateOptions) -> int:
    """Do as the options say; see :func:`experiments.evaluate.jobs.run_jobs`."""
    # Before the imports, which take seconds.
    say(f"loading {options.checkpoint}, looking at the sequences")
    pin(options.isa)
    from experiments.bitstreams.coding_mode import choose_device
    from experiments.bitstreams.rate_search import check_target
    from experiments.evaluate.job import Rate
    from experiments.evaluate.jobs import run_jobs
    from experiments.evaluate.learned import EstimatedCoder, LearnedCoder

    kind = EstimatedCoder if options.estimate else LearnedCoder
    coder = kind(
        name=options.label,
        checkpoint=options.checkpoint.absolute(),
        metric_device=choose_device(options.device).type,
        dtype=options.dtype,
        intra_period=options.intra_period,
        threads=options.threads_each,
        coding=options.coding,
        latents=options.latents,
    )
    codec = coder.codec
    coder.scales = _scales(options.scales, codec)
    codec.check_intra_period(options.intra_period)
    rates = []
    for unit, targets in (("bpp", options.target_bpp), ("kbps", options.target_kbps)):
        for target in targets:
            check_target(codec.rate_knob, target, unit)
            rates.append(Rate(target, unit))
    if not rates:
        values = options.rate or codec.rate_knob.points
        rates = [Rate(codec.rate_knob.check(value)) for value in values]
    return run_jobs(coder, rates, options)


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
