"""What a cell of a table may hold, and where the measured files have it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from experiments.compare.comparison import Comparison
from experiments.compare.papers import PaperColumn
from experiments.results.result import Point, Result


@dataclass(frozen=True)
class Measured:
    """What is there of one row.

    Attributes:
        names: What its curves are called, in result files.
        results: Those curves.
        figures: By command, the content of its JSON file: of ``profile``,
            ``propagation`` and ``stream``.
        files: How many result files the first curve was read from.
    """

    names: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: int = 0

    @property
    def points(self) -> list[Point]:
        """All measured points, of all sequences."""
        return [p for r in self.results for s in r.sequences for p in s.points]


class NoValueError(Exception):
    """A cell has no value; the text says why."""


def value_of(
    column: PaperColumn, row: Measured, comparison: Comparison | None, one_set: str
) -> float | str:
    """Return what a row has in a column.

    Args:
        column: Its quantity is a key of ``QUANTITIES``, ``bd_rate``, ``mean`` (of a
            metric or of bpp), or ``COMMAND:KEY.KEY...``, a number in that command's
            JSON file.
        row: What is measured of it.
        comparison: Of all curves, if there is one.
        one_set: The set that stands for every set, in a rehearsal; else empty.

    Raises:
        NoValueError: There is none, and why.
    """
    name = column.quantity
    if name == "bd_rate":
        return _bd_rate(column, row, comparison, one_set)
    if name in QUANTITIES:
        value = QUANTITIES[name](row)
        if value is None:
            raise NoValueError(f"no {name} is measured")
        return value
    command, colon, keys = name.partition(":")
    if colon:
        return _leaf(row, command, keys)
    if name == "mean":
        return _mean(column, row, one_set)
    raise NoValueError(f"nothing measures {name}")


def _bd_rate(
    column: PaperColumn, row: Measured, comparison: Comparison | None, one_set: str
) -> float:
    if comparison is None:
        raise NoValueError("nothing is compared yet")
    wanted = column.metrics or (comparison.headline,)
    metric = next((m for m in wanted if m in comparison.metrics), None)
    if metric is None:
        raise NoValueError(f"no {' or '.join(wanted)} is measured")
    if comparison.anchor in row.names:
        return 0.0
    for name in row.names:
        set = one_set or column.set
        if set is None and len(comparison.sets) == 1:
            (set,) = comparison.sets
        if set is not None and set not in comparison.sets:
            raise NoValueError(f"{set} is not measured")
        found = comparison.headline_row(name, metric, set)
        if found is not None:
            if found.rate.value is None:
                raise NoValueError(found.caveats() or "no BD-rate can be computed")
            return found.rate.value
    raise NoValueError("not measured yet")


def _mean(column: PaperColumn, row: Measured, one_set: str) -> float:
    """Return the mean of bits or a metric over sequences, at the column's rate."""
    (name,) = column.metrics or ("bpp",)
    values = [
        {**point.metrics, "bpp": point.bpp}[name]
        for result in row.results
        for sequence in result.sequences
        if one_set or column.set in (None, sequence.set)
        for point in sequence.points
        if name in {**point.metrics, "bpp": 0} and column.rate in (None, point.rate)
    ]
    if not values:
        raise NoValueError(
            f"no {name} is measured"
            + (f" at rate {column.rate:g}" if column.rate is not None else "")
        )
    return fmean(values)


def values_at(metrics: Sequence[str], rate: float, row: Measured, like: str) -> str:
    """Return values of some metrics at one rate, written as a printed cell has them.

    Args:
        metrics: Metrics, or bpp.
        rate: The codec's own.
        row: What is measured.
        like: The printed cell, its values divided by ``/``.

    Raises:
        NoValueError: One of them is not measured.
    """
    printed = [*like.split("/"), *[""] * len(metrics)]
    return "/".join(
        shown(_mean(PaperColumn("mean", "", None, (metric,), rate), row, ""), own)
        for metric, own in zip(metrics, printed, strict=False)
    )


def _leaf(row: Measured, command: str, keys: str) -> float | str:
    value: Any = row.figures.get(command)
    if value is None:
        raise NoValueError("not measured yet")
    for key in keys.split("."):
        try:
            value = value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise NoValueError(f"the file of {command} has no {keys}") from None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise NoValueError(f"{keys} in the file of {command} is no number")
    return value


def _profiled(*keys: str, factor: float = 1.0) -> Callable[[Measured], float | None]:
    def read(row: Measured) -> float | None:
        value: Any = row.figures.get("profile")
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value) * factor

    return read


def _first(
    *reads: Callable[[Measured], float | None],
) -> Callable[[Measured], float | None]:
    def read(row: Measured) -> float | None:
        return next((v for v in (read(row) for read in reads) if v is not None), None)

    return read


def _timed(name: str) -> Callable[[Measured], float | None]:
    """Seconds per frame as ``evaluate`` or ``anchor`` measured them."""

    def read(row: Measured) -> float | None:
        found = [p.seconds[name] for p in row.points if p.seconds.get(name)]
        return fmean(found) if found else None

    return read


def _inverse(
    read: Callable[[Measured], float | None],
) -> Callable[[Measured], float | None]:
    def inverse(row: Measured) -> float | None:
        value = read(row)
        return 1 / value if value else None

    return inverse


def _models(row: Measured) -> float | None:
    return float(row.files) if row.files else None


def _memory(row: Measured) -> float | None:
    found = [value for p in row.points for value in p.peak_memory.values()]
    return max(found) / 1e9 if found else None


_encode = _first(_profiled("time", "encode_s_per_frame"), _timed("encode"))
_decode = _first(_profiled("time", "decode_s_per_frame"), _timed("decode"))

QUANTITIES: dict[str, Callable[[Measured], float | None]] = {
    "encode_seconds": _encode,
    "decode_seconds": _decode,
    "encode_fps": _inverse(_encode),
    "decode_fps": _inverse(_decode),
    "params_m": _profiled("parameters", factor=1e-6),
    # A frame coded and decoded, as the paper with such a column counts its codecs.
    "kmacs_per_pixel": _profiled("kmacs_per_pixel", "forward"),
    "encode_kmacs_per_pixel": _profiled("kmacs_per_pixel", "encode"),
    "decode_kmacs_per_pixel": _profiled("kmacs_per_pixel", "decode"),
    "latent_channels": _profiled("latents", "per_16x16"),
    "memory_gb": _first(_profiled("time", "peak_memory_bytes", factor=1e-9), _memory),
    "models": _models,
}
"""Numbers of whole rows, by the papers' quantities.

Seconds are those of ``profile --time``, where the row has that, else those of coding;
latent channels are numbers for each 16x16 pixels of a frame.
"""


def shown(value: float | str, like: str = "") -> str:
    """Write a value, with the decimals and the sign of percent of a printed cell."""
    if isinstance(value, str):
        return value
    percent = "%" if like.endswith("%") else ""
    number = like.removesuffix("%").lstrip("+-")
    whole, _, decimals = number.partition(".")
    if whole.isdigit() and (not decimals or decimals.isdigit()):
        return f"{value:.{len(decimals)}f}{percent}"
    return f"{value:.4g}"
