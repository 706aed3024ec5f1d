"""The result file: what one codec cost and gave, under which protocol.

``evaluate`` and ``anchor`` write it, ``compare`` reads it. It is JSON::

    {"schema": "learned-video-codecs/result", "version": 1,
     "name":        label of the curve, unique in a comparison,
     "codec":       {"name": "UI2C" | "x265" | ..., "kind": "learned" | "anchor" |
                     "decoded" (frames and bytes that somebody else's decoder gave) |
                     "imported", and what defines it: fingerprint, architecture,
                     training, coding options, or the encoder's settings},
     "protocol":    everything that two files must share (see Protocol),
     "environment": what may differ: device, dtype, threads, isa, versions,
     "sequences": [{"set", "name", "width", "height", "fps", "frames",
                    "source": how its planes were made,
                    "pictures": {frame: PNG of the source},
                    "points": [{"rate", "nbytes", "bpp", "estimated_bpp", "kbps",
                                "metrics": {name: mean over frames},
                                "per_frame": {"bits": [...], name: [...]},
                                "scales": how many of the coarsest scales were
                                          decoded, null for all there are,
                                "unavailable": {name: why these frames have none},
                                "latents": {scale or part: {"values": [...],
                                            "counts": [...]}}, if asked for,
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
``seconds`` of a learned codec's encoder are without what it computes only to prove the
bitstream, its own reconstruction (a pipeline's workers do not tell that apart); where
it makes bytes beside the networks (``overlap``, on a GPU), ``encode`` is what both take
together, less than the sum of ``encode_network`` and ``encode_entropy``;
``peak_memory`` is with it.

Of a codec with scales, ``per_frame`` of a point with all of them also holds the parts
of ``bits``: ``bits_scale1`` (the coarsest), ``bits_scale2``, ... A point with some of
them counts only their bytes, and the headers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le

from callbacks.metrics.table import METRICS
from experiments.results.typed_json import (
    STRICT,
    FileKind,
    Holding,
    damaged,
    read_json,
    read_typed,
)
from experiments.results.typed_json import ResultError as ResultError

KIND = FileKind("result")

# Up to where a float holds every whole number; those that mean something are far below.
LARGEST = 2**53

Count = Annotated[int, Ge(0), Le(LARGEST)]


@dataclass(frozen=True)
class Protocol:
    """What must be equal for two curves to be comparable; ``None``: not stated.

    Attributes:
        colour: ``yuv420`` (8-bit planes in, 8-bit planes compared) or ``rgb``.
        max_frames: Frames of each sequence that are coded; ``None``: not stated,
            0: all.
        intra_period: Frames between starts without a reference, -1 for one start.
        rate: ``bitstream`` (bytes that another process decoded; of a codec of the kind
            ``decoded``: that its user says so) or ``estimate`` (entropy under the
            model).
        matrix: Between the codec's RGB and YUV.
        chroma_up: From 4:2:0 to the codec's RGB.
        chroma_down: From the codec's RGB to 4:2:0.
        crop: What is cut off the source; padding is always the codec's own and never
            counted.
        yuv_as: How raw 4:2:0 sources become RGB where ``colour`` is ``rgb``:
            ``full709`` (as ``matrix`` says; all files of older versions) or
            ``ffmpeg`` (FFmpeg's default: BT.601, limited range). Files of ``yuv420``
            leave it out.
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
    yuv_as: str | None = "full709"
    definitions: dict[str, str] = field(default_factory=dict)


PROTOCOL_FIELDS = [f.name for f in fields(Protocol) if f.name != "definitions"]
"""The conditions of a measurement, each of which is one value."""


@dataclass
class Histogram:
    """How often each whole number of a latent was coded, in all frames together.

    Attributes:
        values: Rising.
        counts: As many.
    """

    values: list[int]
    counts: list[Count]


@dataclass
class Point:
    """One sequence coded at one rate; the file's keys."""

    rate: float
    bpp: Annotated[float, Gt(0)]
    nbytes: Count | None = None
    estimated_bpp: Annotated[float, Ge(0)] | None = None
    kbps: float | None = None
    target_bpp: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    per_frame: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, Count] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    scales: Annotated[int, Ge(1)] | None = None
    unavailable: dict[str, str] = field(default_factory=dict)
    latents: dict[str, Histogram] = field(default_factory=dict)
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
    width: Count
    height: Count
    fps: Annotated[Fraction, Ge(0), Le(LARGEST)]
    frames: Count
    points: list[Point] = field(default_factory=list)
    source: str | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    boundaries: list[Count] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """Set and name: what sequences of two files are matched by."""
        return self.set, self.name


@dataclass
class Pool:
    """What several sequences of a set, coded at one rate, have together.

    Attributes:
        rate: Mean over the sequences.
        bpp: Mean over the sequences, weighted by their frames.
        target: What was asked for instead of a rate, for example ``bpp 0.05``.
        samples: How many pictures a metric compares with as many of the source.
    """

    set: str
    sequences: list[str]
    rate: float
    bpp: Annotated[float, Gt(0)]
    target: str | None = None
    scales: Annotated[int, Ge(1)] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Count] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, tuple[str, ...], float | str, int | None]:
        """What it is the pool of."""
        return self.set, tuple(self.sequences), self.target or self.rate, self.scales


@dataclass
class Result:
    """A whole result file; see the module."""

    __pydantic_config__: ClassVar = STRICT

    name: str
    codec: Annotated[
        dict[str, Any],
        Holding({"name": str, "kind": str}, {"architecture": dict[str, Any] | None}),
    ]
    protocol: Protocol
    environment: Annotated[
        dict[str, Any], Holding({}, {"unavailable": dict[str, str]})
    ] = field(default_factory=dict)
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

    def only(self, sets: Mapping[str, Sequence[str]]) -> "Result":
        """Return a copy with nothing but these sequences of each set."""
        keep = [s for s in self.sequences if s.name in sets.get(s.set, ())]
        # A FID cannot be taken apart: it is of just these sequences, or of no use.
        pools = [
            p for p in self.pools if sorted(p.sequences) == sorted(sets.get(p.set, ()))
        ]
        return replace(self, sequences=keep, pools=pools)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        KIND.save(self._values(), path)

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read and check a file.

        Raises:
            ResultError: It is no result of this version, or one of its values is
                missing, unknown or impossible.
        """
        return cls.from_json(read_json(path), path)

    @classmethod
    def from_json(cls, data: Any, path: Path) -> "Result":
        """Turn a file's parsed content into a result; see :meth:`load`."""
        values = KIND.values(data, path)
        match values:
            case {"codec": {"options": {"overlap": shared, **options}, **codec}}:
                # Written before an option had the same name everywhere.
                options["gop_overlap"] = shared
                values["codec"] = {**codec, "options": options}
        return cls._typed(values, path)

    @classmethod
    def imported(
        cls,
        path: Path,
        name: str,
        codec: dict[str, Any],
        sequences: list[SequenceResult],
        define: Callable[[str], str],
        **stated: Any,
    ) -> "Result":
        """Return what a file of another suite says; the rest stays unknown.

        Points are in any order, ``define`` says what a metric is, and ``stated`` is
        what the file states of the protocol.

        Raises:
            ResultError: A value is impossible.
        """
        path = path.absolute()
        protocol = Protocol(**{**dict.fromkeys(PROTOCOL_FIELDS), **stated})
        result = cls(name, {"kind": "imported", **codec}, protocol, sequences=sequences)
        for metric in result.metric_names():
            protocol.definitions[metric] = define(metric)
        result = cls._typed(result._values(), path)
        for sequence in result.sequences:
            sequence.points.sort(key=lambda point: point.bpp)
        return result

    def _values(self) -> dict[str, Any]:
        """Return the file's content, without what names the format."""
        values = {k: v for k, v in asdict(self).items() if k != "path"}
        if self.protocol.colour == "yuv420":
            # Nothing becomes RGB.
            del values["protocol"]["yuv_as"]
        for sequence in values["sequences"]:
            sequence["fps"] = str(sequence["fps"])
            for point in sequence["points"]:
                if not point["latents"]:
                    del point["latents"]
        return values

    @classmethod
    def _typed(cls, values: dict[str, Any], path: Path) -> "Result":
        result = read_typed(cls, {**values, "path": str(path.absolute())}, path)
        for number, pool in enumerate(result.pools):
            if unsaid := sorted(set(pool.metrics) - set(pool.samples)):
                places = ", ".join(f"pools[{number}].samples.{name}" for name in unsaid)
                raise damaged(path, f"{places} is missing: of how many pictures it is")
        return result

    def all_points(self) -> Iterator[tuple[SequenceResult, Point]]:
        """Give every point with its sequence."""
        for sequence in self.sequences:
            for point in sequence.points:
                yield sequence, point
