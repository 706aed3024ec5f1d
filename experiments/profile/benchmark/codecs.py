"""The codecs that are measured: those of the suite's own configurations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from experiments.cli.configs import shipped_configs
from experiments.profile.benchmark.figures import Figure, Settings
from lightning_modules.stages import Stage

if TYPE_CHECKING:
    from lightning_modules.codec import VideoCodec

REHEARSAL = "rehearsal"
"""Configuration that makes any codec tiny."""


def base_configs() -> list[str]:
    """Return the names of the configurations of whole codecs, without ablations."""
    return [
        name
        for name, path in shipped_configs().items()
        if "/" not in name
        if "class_path" in (yaml.safe_load(path.read_text()).get("model") or {})
    ]


def layers(name: str, settings: Settings) -> list[str]:
    """Return the configurations to layer: the paper's size in the full form."""
    return [name] if settings.form == "full" else [name, REHEARSAL]


def rows(name: str) -> list[Stage]:
    """Return a configuration's rows, that with the most pixels in a step first."""
    text = shipped_configs()[name].read_text()
    stages = [Stage(**row) for row in yaml.safe_load(text)["stages"]]
    return sorted(stages, key=lambda s: -s.frames * s.crop**2 * s.batch_size)


def build(names: Sequence[str]) -> "VideoCodec":
    """Return the network of layered configurations, with random weights.

    Raises:
        ModuleNotFoundError: It needs a package that is not here.
    """
    from experiments.profile.command import build_codec

    return build_codec(names)


def left_out(name: str, error: Exception) -> Figure | None:
    """Return the row of a codec that needs a package which this machine lacks."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    return Figure(name, None, "", note=f"left out: it needs the package {error.name}")


def size_of(settings: Settings) -> tuple[int, int]:
    """Return height and width of the frames that are coded."""
    return (1080, 1920) if settings.form == "full" else (64, 96)


def described(codec: Any, height: int, width: int) -> str:
    """Say what is coded with what."""
    parameters = sum(p.numel() for p in codec.parameters()) / 1e6
    return f"{width}x{height}, {parameters:.1f} M parameters with random weights"
