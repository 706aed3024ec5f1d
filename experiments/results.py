"""The result file: what one codec cost and gave, under which protocol.

``evaluate`` and ``anchor`` write it, ``compare`` reads it. It is JSON::

    {"schema": "learned-video-codecs/result", "version": 1,
     "name":        label of the curve, unique in a comparison,
     "codec":       {"name": "UI2C" | "x265" | ..., "kind": "learned" | "anchor" |
                     "imported", and what defines it: checkpoint, fingerprint,
                     architecture, or the encoder's settings},
     "protocol":    everything that two files must share (see Protocol),
     "environment": what may differ: device, dtype, threads, versions,
     "sequences": [{"set", "name", "width", "height", "fps", "frames",
                    "source": how its planes were made,
                    "pictures": {frame: PNG of the source},
                    "points": [{"rate", "nbytes", "bpp", "estimated_bpp", "kbps",
                                "metrics": {name: mean over frames},
                                "per_frame": {"bits": [...], name: [...]},
                                "scales": how many of the coarsest scales were
                                          decoded, null for all there are,
                                "seconds": {name: per frame},
                                "peak_memory": {name: bytes},
                                "pictures": {frame: PNG}}]}]}

Paths of pictures are relative to the file. Frames count from 0. A quality of a
sequence is the mean of its frames' qualities, never the quality of a mean error.
``bpp`` counts all bytes, headers too, over the frames' original pixels. ``seconds`` of
a learned codec's encoder include reconstructing each frame, which the proof of the
bitstream needs; ``profile --time`` gives encoding alone.

Of a codec with scales, ``per_frame`` of a point with all of them also holds the parts
of ``bits``: ``bits_scale1`` (the coarsest), ``bits_scale2``, ... A point with some of
them counts only their bytes, and the headers.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = "learned-video-codecs/result"
VERSION = 1


class ResultError(ValueError):
    """A file is no result that can be used."""


class Metric(NamedTuple):
    """How a metric is shown and compared.

    Attributes:
        label: Name in tables and plots.
        unit: Empty where there is none.
        higher_is_better: Direction.
        definition: What exactly is computed; files that differ are not compared.
    """

    label: str
    unit: str
    higher_is_better: bool
    definition: str


_PSNR = "PSNR per frame, at most 99.9 dB, peak 255, "
_YUV = " (of a source in RGB: BT.709 full range 4:4:4 of the R, G, B, not rounded)"
_ROUNDED = "output rounded to 8 bits"
_MS_SSIM = (
    "MS-SSIM per plane as the DCVC family: Gaussian window 11 sigma 1.5 within the "
    "plane, K 0.01 and 0.03, 5 scales (4 if a side < 176), 2x2 means with odd edges "
    f"repeated, negative means count 0, {_ROUNDED}, "
)
_RGB = "R, G, B (of 4:2:0: converted, then rounded to 8 bits)"


def _psnr_metrics() -> dict[str, Metric]:
    metrics = {}
    unrounded = "neither output nor conversions rounded, output clamped"
    for suffix, label, rounding in (
        ("", "", _ROUNDED),
        ("_unrounded", " (unrounded)", unrounded),
    ):
        rgb = _RGB if not suffix else "R, G, B (of 4:2:0: converted)"
        for name, shown, what in (
            ("psnr_y", "PSNR Y", f"Y plane{_YUV}"),
            ("psnr_u", "PSNR U", f"U plane{_YUV}"),
            ("psnr_v", "PSNR V", f"V plane{_YUV}"),
            ("psnr_yuv", "PSNR YUV 6:1:1", f"(6 Y + U + V) / 8 of the planes'{_YUV}"),
            ("psnr_rgb", "PSNR RGB", f"mean error of {rgb}"),
        ):
            definition = f"{_PSNR}{what}, {rounding}"
            metrics[name + suffix] = Metric(shown + label, "dB", True, definition)
    return metrics


METRICS: dict[str, Metric] = {
    **_psnr_metrics(),
    "ms_ssim_y": Metric("MS-SSIM Y", "", True, f"{_MS_SSIM}Y plane{_YUV}"),
    "ms_ssim_rgb": Metric("MS-SSIM RGB", "", True, f"{_MS_SSIM}mean of {_RGB}"),
    "ms_ssim_y_db": Metric(
        "MS-SSIM Y", "dB", True, "-10 log10(1 - ms_ssim_y) per frame, at most 99.9 dB"
    ),
    "ms_ssim_rgb_db": Metric(
        "MS-SSIM RGB", "dB", True, "-10 log10(1 - ms_ssim_rgb) per frame, at most 99.9"
    ),
    **{
        f"lpips_{net}": Metric(
            f"LPIPS ({net})",
            "",
            False,
            f"LPIPS 0.1, {net}, full size, in [-1, 1], {_RGB}, {_ROUNDED}",
        )
        for net in ("alex", "vgg", "squeeze")
    },
    "tof": Metric(
        "tOF",
        "",
        False,
        "length in pixels (L2) of the difference between the decoded and the source's "
        "optical flow, mean over all pixels, flow from each frame to the next by "
        "OpenCV 4 DIS, preset medium, of 8-bit BT.709 full-range luma",
    ),
    **{
        f"tlp_{net}": Metric(
            f"tLP ({net})",
            "",
            False,
            "difference between the decoded and the source's LPIPS from each frame to "
            f"the next, absolute, not x100, LPIPS as lpips_{net}",
        )
        for net in ("alex", "vgg", "squeeze")
    },
    "vmaf": Metric("VMAF", "", True, "libvmaf's default model, 8-bit 4:2:0"),
}
"""Every metric a result may hold, by name."""


@dataclass(frozen=True)
class Protocol:
    """What must be equal for two curves to be comparable; ``None``: not stated.

    Attributes:
        colour: ``yuv420`` (8-bit planes in, 8-bit planes compared) or ``rgb``.
        max_frames: Frames of each sequence that are coded; ``None``: not stated,
            0: all.
        intra_period: Frames between starts without a reference, -1 for one start.
        rate: ``bitstream`` (bytes that another process decoded) or ``estimate``
            (entropy under the model).
        matrix: Between RGB and YUV.
        chroma_up: From 4:2:0 to the codec's RGB.
        chroma_down: From the codec's RGB to 4:2:0.
        crop: What is cut off the source; padding is always the codec's own and never
            counted.
        definitions: What each metric is, by name.
    """

    colour: str | None
    max_frames: int | None
    intra_period: int | None
    rate: str | None
    matrix: str | None = "bt709_full"
    chroma_up: str | None = "nearest"
    chroma_down: str | None = "mean_2x2"
    crop: str | None = "none"
    definitions: dict[str, str] = field(default_factory=dict)


@dataclass
class Point:
    """One sequence coded at one rate; the file's keys."""

    rate: float
    bpp: float
    nbytes: int | None = None
    estimated_bpp: float | None = None
    kbps: float | None = None
    target_bpp: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    per_frame: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    scales: int | None = None

    @property
    def rate_key(self) -> tuple[float, float | None]:
        """Rate and target: which encoding of the sequence it is."""
        return self.rate, self.target_bpp

    @property
    def key(self) -> tuple[float, float | None, int | None]:
        """Encoding and scales: a sequence has one point of each."""
        return *self.rate_key, self.scales

    @property
    def scale_bits(self) -> list[list[float]]:
        """Bits of each frame by scale, coarsest first; empty where there are none."""
        names = takewhile(
            self.per_frame.__contains__, (f"bits_scale{n}" for n in count(1))
        )
        return [self.per_frame[name] for name in names]


@dataclass
class SequenceResult:
    """All points of one sequence, from few bits to many."""

    set: str
    name: str
    width: int
    height: int
    fps: Fraction
    frames: int
    points: list[Point] = field(default_factory=list)
    source: str | None = None
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Set and name: what sequences of two files are matched by."""
        return self.set, self.name


@dataclass
class Result:
    """A whole result file; see the module."""

    name: str
    codec: dict[str, Any]
    protocol: Protocol
    environment: dict[str, Any] = field(default_factory=dict)
    sequences: list[SequenceResult] = field(default_factory=list)
    path: Path | None = None

    def metric_names(self) -> list[str]:
        """Return the metrics that every point of every sequence has, in order."""
        points = [p.metrics for s in self.sequences for p in s.points]
        return [n for n in METRICS if points and all(n in m for m in points)]

    def with_scales(self, scales: int | None) -> "Result":
        """Return a copy with only the points of which so many scales were decoded.

        Args:
            scales: How many of the coarsest; None for the points with all of them.

        Raises:
            ValueError: It has no such point.
        """
        sequences = [
            replace(s, points=[p for p in s.points if p.scales == scales])
            for s in self.sequences
        ]
        if scales is not None:
            sequences = [s for s in sequences if s.points]
            if not sequences:
                raise ValueError(
                    f"{self.name} has no point of which {scales} of the scales were "
                    f"decoded: measure it with evaluate --scales {scales}"
                )
        return replace(self, sequences=sequences)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        from datamodules.writing import whole_or_nothing

        values = {k: v for k, v in asdict(self).items() if k != "path"}
        for sequence in values["sequences"]:
            sequence["fps"] = str(sequence["fps"])
        data = {"schema": SCHEMA, "version": VERSION, **values}
        # NaN and infinity are no JSON, and no result.
        text = json.dumps(data, indent=1, allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as temporary:
            temporary.write_text(text + "\n")

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read and check a file.

        Raises:
            ResultError: It is no result of this version, or one of its values is
                missing, unknown or impossible.
        """
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ResultError(f"{path} cannot be read as JSON: {error}") from error
        return cls.from_json(data, path)

    @classmethod
    def from_json(cls, data: Any, path: Path) -> "Result":
        """Turn a file's parsed content into a result; see :meth:`load`."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ResultError(f"{path} is no result file (its schema is not {SCHEMA})")
        if data.get("version") != VERSION:
            raise ResultError(
                f"{path} is version {data.get('version')} of the result file, "
                f"this suite reads version {VERSION}"
            )
        values = {k: v for k, v in data.items() if k not in ("schema", "version")}
        try:
            sequences = [
                SequenceResult(
                    **{
                        **entry,
                        "fps": Fraction(entry["fps"]),
                        "points": [_make(Point, point) for point in entry["points"]],
                    }
                )
                for entry in values.pop("sequences")
            ]
            protocol = _make(Protocol, values.pop("protocol"))
            result = cls(
                **values, protocol=protocol, sequences=sequences, path=path.absolute()
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ResultError(f"{path} is a damaged result file: {error}") from error
        for sequence, point in result.all_points():
            numbers = [point.bpp, *point.metrics.values()]
            if not all(math.isfinite(number) for number in numbers) or point.bpp <= 0:
                raise ResultError(
                    f"{path}: {sequence.name} at rate {point.rate:g} has a bpp or a "
                    "metric that is not a positive or finite number"
                )
        return result

    def all_points(self) -> Iterator[tuple[SequenceResult, Point]]:
        """Give every point with its sequence."""
        for sequence in self.sequences:
            for point in sequence.points:
                yield sequence, point


def _make(kind: type, values: dict[str, Any]) -> Any:
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    return kind(**values)
