"""The codecs that are measured: those of the suite's own configurations."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from experiments.cli.configs import shipped_configs
from experiments.profile.benchmark.figures import Figure, Settings
from lightning_modules.stages import Stage

if TYPE_CHECKING:
    from lightning_modules.codec import VideoCodec

REHEARSAL = "rehearsal"
"""Configuration that makes any codec tiny."""

OTHER_PRIOR = "{model: {init_args: {z_prior: scalar}}}"
"""A prior of our own, for machines without the package that the usual one is from."""


class LackingError(ValueError):
    """A codec needs a package that this machine lacks.

    Args:
        package: Its name.
    """

    def __init__(self, package: str) -> None:
        super().__init__(f"it needs the package {package}")


def base_configs() -> list[str]:
    """Return the names of the configurations of whole codecs, without ablations."""
    return [
        name
        for name, path in shipped_configs().items()
        if "/" not in name
        if "class_path" in (yaml.safe_load(path.read_text()).get("model") or {})
    ]


def layers(name: str, form: str) -> list[str]:
    """Return the configurations to layer: the paper's size in the full form.

    Where a package is missing that only one kind of prior needs, it is another one's.

    Raises:
        LackingError: The codec needs a package that this machine lacks.
    """
    usual = [name] if form == "full" else [name, REHEARSAL]
    if not (missing := _missing(tuple(usual))):
        return usual
    model = yaml.safe_load(shipped_configs()[name].read_text())["model"]
    other = [*usual, OTHER_PRIOR]
    if "z_prior" in model["init_args"] and not _missing(tuple(other)):
        return other
    raise LackingError(missing)


@cache
def _missing(config: tuple[str, ...]) -> str:
    """Return the package that a network cannot be built without; empty if none is."""
    import torch

    try:
        with torch.device("meta"):
            build(config)
    except (ModuleNotFoundError, ValueError) as error:
        # The parser makes another error of it.
        if found := re.search("No module named '([^'.]+)", str(error)):
            return found[1]
        if isinstance(error, ModuleNotFoundError):
            raise
    return ""


def rows(name: str) -> list[Stage]:
    """Return a configuration's rows, that with the most pixels in a step first."""
    text = shipped_configs()[name].read_text()
    stages = [Stage(**row) for row in yaml.safe_load(text)["stages"]]
    return sorted(stages, key=lambda s: -s.frames * s.crop**2 * s.batch_size)


def build(names: Sequence[str]) -> "VideoCodec":
    """Return the network of layered configurations, with random weights."""
    from experiments.profile.command import build_codec

    return build_codec(names)


def left_out(name: str, error: LackingError) -> Figure:
    """Return the row of a codec that cannot be built here, which is no failure."""
    return Figure(name, None, "", note=f"left out: {error}")


def named(name: str, config: Sequence[str]) -> str:
    """Return a codec's name in figures, which says so if its prior is another one."""
    return f"{name} (z_prior scalar)" if OTHER_PRIOR in config else name


def size_of(settings: Settings) -> tuple[int, int]:
    """Return height and width of the frames that are coded."""
    return (1080, 1920) if settings.form == "full" else (64, 96)


def described(codec: Any, height: int, width: int) -> str:
    """Say what is coded with what."""
    parameters = sum(p.numel() for p in codec.parameters()) / 1e6
    return f"{width}x{height}, {parameters:.1f} M parameters with random weights"
