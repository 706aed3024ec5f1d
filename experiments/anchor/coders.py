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
        if binary is None:
            raise ValueError(
                f"{preset.title} comes with no package: build it, and name its encoder "
                "with --binary (and its decoder with --decoder)"
            )
        if config is None or not config.is_file():
            papers = sorted(set(preset.run["paper_config"].values()))
            named = "was not named" if config is None else f"{config} is not there"
            raise ValueError(
                f"{preset.title} needs --config, which {named}: the papers' is "
                f"{' or '.join(papers)} of its folder cfg"
            )
        return ReferenceCoder(*common, binary, decoder, config)
    if binary or decoder or config:
        raise ValueError(
            f"{preset.codec} needs no --binary, --decoder or --config: {preset.title} "
            "comes with a Python package"
        )
    kinds = {"ffmpeg": FFmpegCoder, "pyav": PyAVCoder}
    return kinds[preset.tool](*common)
