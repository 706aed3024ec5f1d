"""What a comparison of result files says: the data behind table, report and plots.

``compare`` fills it, ``experiments.compare.report`` shows it; ``bd.json`` is its
``dataclasses.asdict``. Everything is plain numbers and text. Throughout, ``codec`` is a
result's name, ``metric`` a key of ``METRICS`` and ``set`` a test set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from callbacks.metrics.table import METRICS

Method = Literal["pchip", "akima", "cubic"]

RowKind = Literal[
    "sequence",
    "set_mean",
    "set_curve",
    "overall_mean",
    "overall_curve",
    "set_pool",
    "overall_pool",
]

ROW_KINDS: dict[RowKind, str] = {
    "sequence": "one sequence",
    "set_mean": "mean of the set's sequences (headline)",
    "set_curve": "of the set's mean curve",
    "overall_mean": "mean of the sets' means (headline)",
    "overall_curve": "mean over the sets of their mean curves' numbers",
    "set_pool": "of the set's sequences together (headline)",
    "overall_pool": "mean of the sets' numbers (headline)",
}
"""How the number of a row came about, by the row's kind.

Of FID and KID, which belong to a set's sequences together, there are the last two, of
every other metric the others.
"""


def headline_kind(metric: str, set: str | None) -> RowKind:
    """Return the kind of row that is a metric's headline, of all sets if ``None``."""
    if METRICS[metric].pooled:
        return "overall_pool" if set is None else "set_pool"
    return "overall_mean" if set is None else "set_mean"


FLAGS: dict[str, str] = {
    "not_computable": "there is no number, for the reason given below",
    "incomplete": "a mean that lacks sequences or sets without a number",
    "not_monotone": "quality does not rise with bits; dominated points are left out",
    "few_points": "a curve has no more points than the interpolation needs at least",
    "low_overlap": "the curves share less than 75 % of the axis they span together",
    "outlier": "far from the other sequences of its set",
    "noise": "smaller than 1 %: other points of the same codecs differ by as much",
    "package": "the interpolation package warned",
    "few_samples": "a FID of fewer than 2048 pictures, which is biased upwards",
}
"""Every kind of flag and what it means."""


@dataclass(frozen=True)
class Flag:
    """A caveat of one number.

    Attributes:
        kind: Key of :data:`FLAGS`.
        text: What is the case here, with its values; a clause without a full stop.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Curve:
    """Quality against rate of one codec, from few bits to many.

    Attributes:
        sequence: ``None`` for the set's mean curve: at each rate point the mean over
            its sequences of bpp and of quality, weighted by their frames.
        rates: The codec's knob at each point.
        bpp: Bits per pixel at each point, rising.
        quality: Values of the metric, in its own direction.
        left_out: Indices of points that BD numbers ignore, because another point has
            no more bits and no less quality.
        samples: Of FID and KID: the fewest pictures that a point compares.
    """

    codec: str
    metric: str
    set: str
    sequence: str | None
    rates: tuple[float, ...]
    bpp: tuple[float, ...]
    quality: tuple[float, ...]
    left_out: tuple[int, ...] = ()
    samples: int | None = None

    @property
    def kept(self) -> list[int]:
        """Indices of the points that BD numbers are made from."""
        return [i for i in range(len(self.bpp)) if i not in self.left_out]


@dataclass(frozen=True)
class Delta:
    """A Bjøntegaard delta with its error bar.

    Attributes:
        value: ``None`` where it cannot be computed (never 0 for that).
        low: Least value when one point of either curve is left out; for means the mean
            of their members' ends. ``None`` if a curve has no point to spare.
        high: Greatest value when one point is left out.
        overlap: Shared part of the axis that is integrated over, in % of what both
            curves span together (quality for BD-rate, log rate for BD-quality);
            for means the smallest of their members.
        interval: That shared part itself, from and to: of the metric for BD-rate, of
            bits per pixel for BD-quality; ``None`` for means.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    overlap: float | None = None
    interval: tuple[float, float] | None = None

    def numbers(self) -> list[float | None]:
        """Return every number but the interval."""
        return [self.value, self.low, self.high, self.overlap]


@dataclass(frozen=True)
class Row:
    """One codec against the anchor in one metric, over one sequence or a mean.

    Attributes:
        kind: Key of :data:`ROW_KINDS`.
        set: ``None`` for the means over all sets.
        sequence: Only of kind ``sequence``.
        rate: BD-rate in %, negative if the codec needs fewer bits than the anchor.
        quality: BD-quality in the metric's unit: the codec's value minus the anchor's
            at equal bits, in the metric's own direction (negative is better where
            lower is better).
    """

    codec: str
    metric: str
    kind: RowKind
    set: str | None
    sequence: str | None
    rate: Delta
    quality: Delta
    flags: tuple[Flag, ...] = ()

    def numbers(self) -> list[float | None]:
        """Return what :data:`BD_NUMBERS` names."""
        return [*self.rate.numbers(), *self.quality.numbers()]

    def caveats(self) -> str:
        """Return all flags as one text."""
        return "; ".join(f"{flag.kind}: {flag.text}" for flag in self.flags)


BD_NUMBERS = [
    f"bd_{what}_{part}"
    for what in ("rate", "quality")
    for part in ("value", "low", "high", "overlap")
]
"""Names of a row's numbers in tables for machines."""


@dataclass(frozen=True)
class QualityAt:
    """A set's mean curve at a fixed rate; ``None`` where it does not reach that."""

    codec: str
    metric: str
    set: str
    bpp: float
    value: float | None


@dataclass(frozen=True)
class Difference:
    """Something that two files must share and do not.

    Attributes:
        field: A field of ``Protocol``, ``definitions.<metric>``, or
            ``size``/``source``/``fps``/``frames`` of a sequence.
        files: The two results' names, the anchor first.
        values: Their values as text; ``not stated`` where a file does not say.
        where: ``<set>/<sequence>`` if it concerns one sequence, else empty.
    """

    field: str
    files: tuple[str, str]
    values: tuple[str, str]
    where: str = ""


@dataclass(frozen=True)
class PaperNumber:
    """A number that a paper printed for what a row measures.

    Attributes:
        codec: As the paper calls it.
        anchor: As the paper calls it.
        set: ``None`` for the paper's average.
        metric: ``None`` if the paper does not say.
        bd_rate: In %.
        source: ``arXiv 2510.14431, Table 1``.
        conditions: What the paper says about the measurement, by name.
        row: Codec, metric and set (``None``: overall) of the row it stands beside,
            with our names.
        differs: How its conditions differ from those of the row, as far as both are
            stated; one clause each.
    """

    codec: str
    anchor: str
    set: str | None
    metric: str | None
    bd_rate: float
    source: str
    conditions: dict[str, str]
    row: tuple[str, str, str | None]
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperRow:
    """A printed row of measured values, one cell for each rate, and ours beside them.

    Attributes:
        codec: Ours, which the row is of.
        row: As printed.
        source: ``arXiv 2510.14431, Table 1``.
        metrics: What each cell holds, in order.
        titles: Of the printed columns.
        printed: Their cells.
        ours: By column, at its rate, a value for each metric, mean over the sets of
            their mean curves: ``None`` where there is none.
        differs: As of :class:`PaperNumber`.
    """

    codec: str
    row: str
    source: str
    metrics: tuple[str, ...]
    titles: tuple[str, ...]
    printed: tuple[str, ...]
    ours: tuple[tuple[float | None, ...], ...]
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Everything that is known about a set of result files after comparing them.

    Attributes:
        anchor: Name of the result that the others are compared with.
        codecs: Names of the others, in the order of the files.
        method: Interpolation.
        metrics: Every metric compared, in the order of ``METRICS``.
        headline: The metric of the terminal table.
        sets: Sets in order, each with its compared sequences.
        curves: Of the anchor and the codecs, every metric, sequences and mean curves.
        rows: BD numbers, by metric, then codec; of each first the sequences, then the
            sets' means and mean curves, then the means over all sets.
        papers: Published numbers beside them.
        differences: What differs in the protocol and was allowed to; a report must
            show them before any number.
        notes: What the reader must know besides, as sentences.
        scales: How many of the coarsest scales were decoded; ``None`` for all.
        fixed: Quality at fixed rates, if asked for: by curve, then rate.
        paper_rows: Published rows of measured values, ours beside them.
    """

    anchor: str
    codecs: tuple[str, ...]
    method: Method
    metrics: tuple[str, ...]
    headline: str
    sets: dict[str, tuple[str, ...]]
    curves: tuple[Curve, ...]
    rows: tuple[Row, ...]
    papers: tuple[PaperNumber, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    scales: int | None = None
    fixed: tuple[QualityAt, ...] = ()
    paper_rows: tuple[PaperRow, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The anchor and the codecs, in the order of every table."""
        return self.anchor, *self.codecs

    def places(self) -> Iterator[tuple[str, str]]:
        """Give set and name of every compared sequence."""
        for name, sequences in self.sets.items():
            yield from ((name, sequence) for sequence in sequences)

    @cached_property
    def _rows(self) -> dict[tuple[str, str, str, str | None, str | None], Row]:
        return {(r.codec, r.metric, r.kind, r.set, r.sequence): r for r in self.rows}

    def row(
        self,
        codec: str,
        metric: str,
        kind: RowKind,
        set: str | None,
        sequence: str | None = None,
    ) -> Row | None:
        """Return the row with these keys, or ``None``."""
        return self._rows.get((codec, metric, kind, set, sequence))

    def headline_row(self, codec: str, metric: str, set: str | None) -> Row | None:
        """Return a metric's headline of a set, or of all sets if ``None``."""
        return self.row(codec, metric, headline_kind(metric, set), set)
