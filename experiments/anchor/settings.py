"""The codecs' settings: the YAML files beside this module, read and filled in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.cli.configs import merged

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Knob:
    """What sets an encoder's rate.

    Attributes:
        low: Lowest value; by default none is.
        high: Highest value; by default none is.
        whole: Whether only whole numbers are values.
        options: What it adds to the encoder's options; ``{rate}`` is its value.
        per_bit: Added to the value for each bit of depth above 8, for encoders whose
            scale moves with it.
        usual: Values to take where the user names none; by default one must be named.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = True
    options: Mapping[str, Any] | None = None
    per_bit: int = 0
    usual: Sequence[float] = ()

    @property
    def bounded(self) -> bool:
        """Whether it is a scale of the encoder; else numbers only tell points apart."""
        return math.isfinite(self.high)


@dataclass(frozen=True)
class Preset:
    """One way to run one codec.

    Attributes:
        codec: Name of the codec: of its file.
        name: Name among the codec's presets.
        title: The encoder's full name.
        structure: ``low_delay`` (no frame waits for a later one), ``random_access``,
            ``all_intra`` (each frame is coded alone) or ``unknown``.
        note: What is special about it.
        source: Who uses it.
        tool: How it is run: a key of ``coders.TOOLS``.
        run: What that tool needs to know.
        knobs: What may set its rate, by name.
        pixel_formats: What it is given, by colour; none where that is RGB.
        options: Of the encoder; a mapping becomes ``key=value:key=value``. In texts,
            ``{keyint}`` is the intra period.
        endless: What the encoder calls an intra period without end.
        restarts: Whether each intra period is a stream of its own, one after another in
            the file, because the encoder has no refresh in this structure.
        intra_period: Of an encoder that has no other.
    """

    codec: str
    name: str
    title: str
    structure: str
    note: str
    source: str
    tool: str
    run: Mapping[str, Any]
    knobs: Mapping[str, Knob]
    pixel_formats: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    endless: str = "-1"
    restarts: bool = False
    intra_period: int | None = None

    def check_rate(self, knob: str, rate: float) -> float:
        """Return a rate that the encoder has.

        Raises:
            ValueError: The preset has no such knob, or the knob no such value.
        """
        if knob not in self.knobs:
            raise ValueError(
                f"preset {self.name!r} of {self.codec} is set by --"
                f"{' or --'.join(self.knobs)}, not by --{knob}"
            )
        limits = self.knobs[knob]
        wanted = "a whole number" if limits.whole else "a number"
        in_range = limits.low <= rate <= limits.high
        if not in_range or (limits.whole and rate != int(rate)):
            raise ValueError(
                f"--{knob} of preset {self.name!r} of {self.codec} is {wanted} from "
                f"{limits.low:g} to {limits.high:g}, not {rate:g}"
            )
        return rate

    def values(
        self, knob: str, rate: float | str, intra_period: int, depth: int
    ) -> dict[str, str]:
        """Return what the placeholders of the settings stand for."""
        if not isinstance(rate, str):
            rate = f"{rate + self.knobs[knob].per_bit * (depth - 8):g}"
        keyint = self.endless if intra_period == -1 else str(intra_period)
        return {"rate": rate, "keyint": keyint}

    def encoder_options(
        self, knob: str, rate: float | str, intra_period: int, depth: int
    ) -> dict[str, str]:
        """Return the encoder's options, complete.

        Args:
            knob: What sets the rate.
            rate: Its value, or a text to be put in its place.
            intra_period: Frames between intra frames, -1 for the first only.
            depth: Bits per sample that the encoder is given.
        """
        values = self.values(knob, rate, intra_period, depth)
        options = merged(self.options, self.knobs[knob].options or {})
        return {name: _fill(value, values) for name, value in options.items()}


def codec_names() -> list[str]:
    """Return the names of all codecs."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_presets(codec: str) -> dict[str, Preset]:
    """Read a codec's presets; the first is its default.

    Raises:
        ValueError: There is no such codec.
    """
    import yaml

    if codec not in codec_names():
        raise ValueError(
            f"there is no codec {codec!r}; there are {', '.join(codec_names())}"
        )
    shared = yaml.safe_load((FOLDER / f"{codec}.yaml").read_text())
    presets = {}
    for name, own in shared.pop("presets").items():
        values = merged(shared, own)
        # A preset that names knobs has no others.
        allowed = values.pop("only", list(values["knobs"]))
        values["knobs"] = {key: Knob(**values["knobs"][key] or {}) for key in allowed}
        presets[name] = Preset(codec=codec, name=name, **values)
    return presets


def load_preset(codec: str, name: str | None) -> Preset:
    """Return a preset by its name, or the codec's default.

    Raises:
        ValueError: There is no such codec or preset.
    """
    presets = load_presets(codec)
    if name is None:
        return next(iter(presets.values()))
    if name not in presets:
        raise ValueError(f"{codec} has no preset {name!r}; it has {', '.join(presets)}")
    return presets[name]


def _fill(value: Any, values: Mapping[str, str]) -> str:
    if isinstance(value, Mapping):
        return ":".join(f"{key}={_fill(item, values)}" for key, item in value.items())
    return str(value).format(**values)
