"""Which coder runs which preset."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.anchor.base import Anchor
from experiments.anchor.decoded import make_decoded_coder
from experiments.anchor.ffmpeg import FFmpegCoder
from experiments.anchor.networks import make_network_coder
from experiments.anchor.pyav import PyAVCoder
from experiments.anchor.reference import ReferenceCoder
from experiments.anchor.settings import Preset
from experiments.anchor.stills import StillCoder


class Tool(NamedTuple):
    """One way to run codecs.

    Attributes:
        make: Makes the coder, of name, preset, knob and intra period.
        takes: Names of what else it is told.
    """

    make: Callable[..., Anchor]
    takes: tuple[str, ...] = ()


def _make_reference(
    name: str,
    preset: Preset,
    knob: str,
    intra_period: int,
    *,
    binary: Path | None = None,
    decoder: Path | None = None,
    config: Path | None = None,
) -> ReferenceCoder:
    if binary is None:
        raise ValueError(
            f"{preset.title} comes with no package: build it, and name its encoder "
            "with --binary (and its decoder with --decoder)"
        )
    if config is None or not config.is_file():
        papers = sorted(set(preset.run["paper_config"].values()))
        named = "was not named" if config is None else f"is not at {config}"
        raise ValueError(
            f"{preset.title} needs --config, whose file {named}: the papers' is "
            f"{' or '.join(papers)} of its folder cfg"
        )
    return ReferenceCoder(name, preset, knob, intra_period, binary, decoder, config)


TOOLS = {
    "pyav": Tool(PyAVCoder),
    "ffmpeg": Tool(FFmpegCoder),
    "pillow": Tool(StillCoder),
    "reference": Tool(_make_reference, ("binary", "decoder", "config")),
    "compressai": Tool(make_network_coder, ("rates", "device", "threads")),
    "decoded": Tool(make_decoded_coder, ("rates", "bytes")),
}


def make_coder(
    preset: Preset,
    knob: str,
    intra_period: int,
    *,
    name: str,
    rates: Mapping[float, str | None] | None = None,
    threads: int = 1,
    **told: Any,
) -> Anchor:
    """Return the coder that runs a preset.

    Args:
        preset: How the codec is run.
        knob: What sets the rate.
        intra_period: Frames from one intra frame to the next, -1 for the first only.
        name: Label of the curve.
        rates: All, each with what was given for it, where that matters.
        threads: Of networks.
        told: What else was given, by the names of the command's options.

    Raises:
        ValueError: The codec is not there, or something is named that it has no use
            for, or something that it needs is not.
    """
    tool = TOOLS[preset.tool]
    given = {key: value for key, value in told.items() if value}
    if unused := [f"--{key}" for key in given if key not in tool.takes]:
        options = " or ".join(unused)
        raise ValueError(f"{preset.codec} needs no {options}: leave it out")
    every = {"rates": rates or {}, "threads": threads, **told}
    own = {key: every[key] for key in tool.takes if key in every}
    return tool.make(name, preset, knob, intra_period, **own)
