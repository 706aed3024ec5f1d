"""The options of ``propagation``."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.bitstreams.options import CodecOptions, DeviceOptions, SequencesOption
from experiments.cli.checkpoints import checkpoint_option
from experiments.cli.options import option
from experiments.propagation.numbers import DEFAULT_TESTS, TESTS


def parse_positions(text: str) -> tuple[int, ...]:
    """Turn ``1,2,4`` into numbers."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentTypeError(
            f"{text!r} are no positions: give numbers of frames from 1, like 1,2,4"
        )
    return tuple(map(int, parts))


@dataclass(frozen=True, kw_only=True)
class PropagationOptions(SequencesOption, CodecOptions, DeviceOptions):
    """Find how far one frame's errors reach, and how well a codec's rate obeys.

    Attributes:
        checkpoint: Trained codec: a file, the folder of a stage or a run, whose newest
            is taken, or the name of a shipped model (lvc --models).
        output: Folder to write.
        name: Label of the curves (default: the codec's).
        overlay: Show these files of earlier runs too; without --checkpoint only these.
        tests: Which of position, slope, low_reference, fluctuation, sweep, target_rate
            and sawtooth to do (default: the first four).
        rate: Values of the codec's knob (default: the middle one of those that its
            paper reports).
        low_rate: Of the unit of low quality, and where a sawtooth begins (default: the
            lowest there is).
        max_frames: Of each sequence (default: 104, which position 96 needs for units of
            up to 8 frames).
        positions: Of the position test (default: 1,2,4,8,16,32,64,96, those that the
            sequences are long enough for).
        targets: Units that the position test looks at, spread over those with all
            positions.
        sweep: Do the sweep, at so many rates (default: only if --tests says so, at 65).

    Raises:
        ValueError: A number is too small, or there is nothing to do.
    """

    checkpoint: Path | None = option(None, metavar="CKPT", read=checkpoint_option)
    sequences: tuple[str, ...] = option((), metavar="SPEC")
    output: Path = option(metavar="FOLDER")
    name: str | None = None
    overlay: tuple[Path, ...] = option((), metavar="JSON")
    tests: tuple[str, ...] = option(DEFAULT_TESTS, metavar="TEST", choices=TESTS)
    rate: tuple[float, ...] | None = option(None, metavar="R")
    low_rate: float | None = option(None, metavar="L")
    max_frames: int = option(104, metavar="N")
    positions: Sequence[int] | None = option(None, metavar="N,N", read=parse_positions)
    targets: int = option(4, metavar="N")
    sweep: int | None = option(None, metavar="N")

    def __post_init__(self) -> None:
        if bool(self.checkpoint) != bool(self.sequences):
            raise ValueError("--checkpoint and --sequences go together: give both")
        if not (self.checkpoint or self.overlay):
            raise ValueError(
                "nothing to do: give --checkpoint and --sequences to measure, or "
                "--overlay to show what was measured"
            )
        for name, least in (("max_frames", 2), ("targets", 1), ("sweep", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} is {value}, it must be at least {least}")
