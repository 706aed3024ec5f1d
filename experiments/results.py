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
                                "unavailable": {name: why these frames have none},
                                "seconds": {name: per frame},
                                "peak_memory": {name: bytes},
                                "pictures": {frame: PNG}}],
                    "boundaries": frames that begin a unit coded apart from the last}],
     "pools":     [{"set", "sequences", "rate", "target", "scales", "bpp",
                    "metrics": {name: of all frames of these sequences together},
                    "samples": {name: how many it is of},
                    "unavailable": {name: why there is none}}]}

Paths of pictures are relative to the file. Frames count from 0. A quality of a
sequence is the mean of its frames' qualities, never the quality of a mean error.
FID and KID are no mean over frames: they belong to a set's sequences together, one pool
for each rate. ``bpp`` counts all bytes, headers too, over the frames' original pixels.
``seconds`` of a learned codec's encoder include reconstructing each frame, which the
proof of the bitstream needs; ``profile --time`` gives encoding alone.

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
from typing import Any

from experiments.metric_table import METRICS as METRICS

SCHEMA = "learned-video-codecs/result"
VERSION = 1


class ResultError(ValueError):
    """A file is no result that can be used."""


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
    unavailable: dict[str, str] = field(default_factory=dict)
    # Only in the parts of an unfinished file: names of the files beside them with the
    # decoded and the source's features that a pool is made from, by the FID they serve.
    features: dict[str, list[str]] = field(default_factory=dict)

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
    boundaries: list[int] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """Set and name: what sequences of two files are matched by."""
        return self.set, self.name


@dataclass
class Pool:
    """What several sequences of a set, coded at one rate, have together.

    Attributes:
        set: Test set.
        sequences: Names of the sequences, in order.
        rate: The codec's knob, mean over the sequences.
        bpp: Mean over the sequences, weighted by their frames.
        target: What was asked for instead of a rate, for example ``bpp 0.05``.
        scales: How many of the coarsest were decoded; ``None`` for all.
        metrics: Values by name.
        samples: How many pictures a metric compares with as many of the source.
        unavailable: Why a metric has no value.
    """

    set: str
    sequences: list[str]
    rate: float
    bpp: float
    target: str | None = None
    scales: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, tuple[str, ...], float | str, int | None]:
        """What it is the pool of."""
        return self.set, tuple(self.sequences), self.target or self.rate, self.scales


@dataclass
class Result:
    """A whole result file; see the module."""

    name: str
    codec: dict[str, Any]
    protocol: Protocol
    environment: dict[str, Any] = field(default_factory=dict)
    sequences: list[SequenceResult] = field(default_factory=list)
    path: Path | None = None
    pools: list[Pool] = field(default_factory=list)

    def metric_names(self) -> list[str]:
        """Return the metrics of every point of every sequence, and of any pool."""
        points = [p.metrics for s in self.sequences for p in s.points]
        shared = {n for n in METRICS if points and all(n in m for m in points)}
        pooled = {n for pool in self.pools for n in pool.metrics}
        return [n for n in METRICS if n in shared | pooled]

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
        pools = [pool for pool in self.pools if pool.scales == scales]
        return replace(self, sequences=sequences, pools=pools)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        from datamodules.whole_files import whole_or_nothing

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
            pools = [_make(Pool, pool) for pool in values.pop("pools", [])]
            result = cls(
                **values,
                protocol=protocol,
                sequences=sequences,
                path=path.absolute(),
                pools=pools,
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ResultError(f"{path} is a damaged result file: {error}") from error
        points: list[tuple[str, Point | Pool]] = [
            *((sequence.name, point) for sequence, point in result.all_points()),
            *((pool.set, pool) for pool in result.pools),
        ]
        for name, point in points:
            numbers = [point.bpp, *point.metrics.values()]
            if not all(math.isfinite(number) for number in numbers) or point.bpp <= 0:
                raise ResultError(
                    f"{path}: {name} at rate {point.rate:g} has a bpp or a metric "
                    "that is not a positive or finite number"
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
