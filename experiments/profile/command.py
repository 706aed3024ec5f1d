"""Count and time a codec: ``python -m experiments.profile --config FILE ...``."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datamodules.whole_files import whole_or_nothing
from experiments.cli.checkpoints import checkpoint_option
from experiments.cli.command import run_command
from experiments.cli.configs import describe_configs
from experiments.cli.options import option, parse
from experiments.results.drawing.tables import Table, print_table, words

if TYPE_CHECKING:
    from lightning_modules.codec import VideoCodec

EPILOG = """examples:
  python -m experiments.profile --config experiments/configs/ui2c.yaml
  python -m experiments.profile --checkpoint runs/ui2c --time --height 270 --width 480
"""


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """Count a codec's parameters and MACs as the papers do, and time it if asked.

    MACs are counted on the meta device: seconds and no memory at any size. They are
    those of convolutions and matrix products on the padded picture, divided by the
    pixels of the original one and by the frames of a unit: the convention of the
    papers' complexity tables.

    Attributes:
        config: As for fit: a path, or the name of one of the suite's own; can be
            repeated.
        checkpoint: In its place, a trained codec: a file, the folder of a stage or a
            run, or the name of a shipped model (lvc --models).
        list_configs: Print those, and end.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        output: Write the figures to this JSON file.
        time: Also time it, with random weights if there is no checkpoint.
        pipeline: Also time P workers that code overlapping frames (DHVC without
            auxiliary path), beside one.
        gop_batch: Also time N groups of pictures (VideoVAE): one at a time, side by
            side as coding does, and their networks in one batch.
        device: Where to time (default: cuda if there is one).
        dtype: What is timed: the precision of the networks.
        overlap: Time encoding with overlap too, bytes of a unit made while the networks
            work on the next (default: on a GPU).
        repeats: Timed runs.
        ceiling: Also tell the most PSNR that each size's latents can have without a
            reference: that of principal components, found on these sequences (as for
            evaluate).
        held_out: Sequences to measure that on.
        numbers: Tell it of a latent with so many numbers per block, too.

    Raises:
        ValueError: A number is too small, or an option needs another one.
    """

    config: tuple[str, ...] | None = option(
        None, repeated=True, one_of="codec", needed=True
    )
    checkpoint: Path | None = option(
        None, metavar="CKPT", read=checkpoint_option, one_of="codec"
    )
    list_configs: bool = option(False, shows=describe_configs)
    height: int = 1080
    width: int = 1920
    output: Path | None = None
    time: bool = False
    pipeline: int | None = option(None, metavar="P")
    gop_batch: int | None = option(None, metavar="N")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float16", "bfloat16", "float64"] = "float32"
    overlap: bool = False
    repeats: int = 3
    ceiling: tuple[str, ...] = option((), metavar="SPEC", nargs="+")
    held_out: tuple[str, ...] = option((), metavar="SPEC", nargs="+")
    numbers: tuple[int, ...] = option((), metavar="N", nargs="+")

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"--repeats is {self.repeats}, it must be at least 1")
        if self.height < 1 or self.width < 1:
            size = f"{self.width}x{self.height}"
            raise ValueError(f"{size} is no picture size: both must be >= 1")
        if bool(self.ceiling) != bool(self.held_out):
            given, missing = ("ceiling", "held_out")[:: 1 if self.ceiling else -1]
            raise ValueError(
                f"--{given} needs --{missing}: components are found on the sequences "
                "of --ceiling and measured on those of --held_out"
            )
        if self.numbers and not self.ceiling:
            raise ValueError("--numbers are of a ceiling: add --ceiling and --held_out")
        if min(self.numbers, default=1) < 1:
            raise ValueError(f"--numbers is {min(self.numbers)}: it must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: profile(parse(ProfileOptions, "profile", argv, EPILOG)))


def profile(options: ProfileOptions) -> None:
    """Measure as the options say, print the figures and write them."""
    output = options.output
    # Entered first, so that a name that cannot be written is refused before the work.
    with whole_or_nothing(output) if output else nullcontext() as temporary:
        if temporary:
            temporary.touch()
        report = measure(options)
        if temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")


def measure(options: ProfileOptions) -> dict[str, Any]:
    """Count, time and print; return all figures."""
    import torch

    from experiments.bitstreams.coding_mode import choose_device, coding_mode
    from experiments.profile import ceiling, complexity, groups, pipeline, timing

    size = options.height, options.width
    with nullcontext() if options.checkpoint else torch.device("meta"):
        codec = _codec_of(options).to("meta")
    workers = options.pipeline
    if workers is not None:
        pipeline.check_pipeline(codec, workers)
    if options.gop_batch is not None:
        groups.check_groups(codec, options.gop_batch)
    clips = None
    if options.ceiling:
        clips = ceiling.find_clips(options.ceiling, options.held_out)
    timed = options.time or workers or options.gop_batch
    device = choose_device(options.device if timed else "cpu")
    report = complexity.count(codec, *size)
    print_table(complexity.complexity_table(report))
    if clips:
        report["ceiling"] = ceiling.measure_ceiling(codec, *clips, options.numbers)
        print_table(ceiling.ceiling_table(codec.shown_name, report["ceiling"]))
    if timed:
        codec = _codec_of(options).to(device, getattr(torch, options.dtype))
        codec.eval()
    if options.time:
        with coding_mode(device):
            overlap = options.overlap or None
            report["time"] = timing.timings(codec, *size, options.repeats, overlap)
        rows = list(map(list, report["time"].items()))
        print_table(Table("time", words("figure", "value"), rows))
    if workers:
        report["pipeline"] = {
            "dtype": options.dtype,
            **pipeline.measure_pipeline(codec, workers, *size, options.repeats),
            "macs_bound": pipeline.macs_bound(report["modules"], workers),
        }
        print_table(pipeline.pipeline_table(report["pipeline"]))
    if options.gop_batch:
        figures = groups.measure_groups(
            codec, options.gop_batch, *size, options.repeats
        )
        report["groups"] = {"dtype": options.dtype, **figures}
        print_table(groups.groups_table(figures))
    return report


def _codec_of(options: ProfileOptions) -> "VideoCodec":
    from lightning_modules import load_codec

    if options.checkpoint:
        return load_codec(options.checkpoint)
    return build_codec(options.config or ())


def build_codec(configs: Sequence[str]) -> "VideoCodec":
    """Return the network that the configuration files describe, untrained."""
    from experiments.fit.options import build_parser, instantiate

    parser = build_parser()
    config = parser.parse_args([f"--config={path}" for path in configs])
    codec: VideoCodec = instantiate(parser, config).model.codec
    return codec
