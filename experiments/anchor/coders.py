"""Which coder runs which preset."""

from pathlib import Path

from experiments.anchor.base import AnchorCoder
from experiments.anchor.ffmpeg import FFmpegCoder
from experiments.anchor.pyav import PyAVCoder
from experiments.anchor.reference import ReferenceCoder
from experiments.anchor.settings import Preset


def make_coder(
    preset: Preset,
    knob: str,
    intra_period: int,
    *,
    name: str,
    binary: Path | None = None,
    decoder: Path | None = None,
    config: Path | None = None,
) -> AnchorCoder:
    """Return the coder that runs a preset.

    Args:
        preset: How the encoder is run.
        knob: What sets the rate.
        intra_period: Frames from one intra frame to the next, -1 for the first only.
        name: Label of the curve.
        binary: The encoder, for HM and VTM.
        decoder: Its decoder, for HM and VTM.
        config: Its configuration file, for HM and VTM.

    Raises:
        ValueError: The encoder is not there, or a file is named that it has no use for,
            or one that it needs is not.
    """
    common = (name, preset, knob, intra_period)
    if preset.tool == "reference":
        return ReferenceCoder(*common, binary=binary, decoder=decoder, config=config)
    if binary or decoder or config:
        raise ValueError(
            f"{preset.codec} needs no --binary, --decoder or --config: {preset.title} "
            "comes with a Python package"
        )
    if preset.tool == "ffmpeg":
        return FFmpegCoder(*common)
    return PyAVCoder(*common)
