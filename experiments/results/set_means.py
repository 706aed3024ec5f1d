"""The mean over a test set, where a file of another suite has nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import fmean
from typing import TypeVar

from datamodules.sequences.standard_sets import STANDARD_SETS
from experiments.results.result import Point, Result, SequenceResult

MEAN = "mean"
"""Name of a sequence that is all of a set, each of its sequences counting alike."""

T = TypeVar("T")


def add_set_means(results: Sequence[Result]) -> list[Result]:
    """Give results the means that imported ones have alone, instead of the sequences.

    Raises:
        ValueError: A result has sequences of such a set, but no mean of it.
    """
    wanted = set()
    for result in results:
        if result.codec["kind"] == "imported":
            own = result.sequences
            rest = {s.set for s in own if s.name != MEAN}
            wanted |= {s.set for s in own if s.name == MEAN} - rest
    return [_with_means(result, wanted) for result in results]


def _with_means(result: Result, sets: Iterable[str]) -> Result:
    for name in sorted(sets):
        own = [s for s in result.sequences if s.set == name]
        if own and all(s.name != MEAN for s in own):
            rest = [s for s in result.sequences if s.set != name]
            note = f"{name}/{MEAN} is the mean of {len(own)} sequences, each alike"
            if "note" in result.codec:
                note = f"{result.codec['note']}; {note}"
            result = replace(
                result,
                sequences=[*rest, _mean(result.name, own)],
                codec={**result.codec, "note": note},
            )
    return result


def _mean(result: str, sequences: Sequence[SequenceResult]) -> SequenceResult:
    first = sequences[0]
    needed = {entry.name for entry in STANDARD_SETS.get(first.set, ())}
    if missing := sorted(needed - {s.name for s in sequences}):
        raise ValueError(
            f"{result} lacks {', '.join(missing)} of {first.set}, of which another "
            "file has the mean only: measure the whole set"
        )
    rows = points_by_rate(sequences)
    if rows is None:
        raise ValueError(
            f"{result} has other rates for each sequence of {first.set}, so that they "
            "have no mean as another file has: measure all at the same rates"
        )
    return SequenceResult(
        first.set,
        MEAN,
        _shared((s.width for s in sequences), 0),
        _shared((s.height for s in sequences), 0),
        _shared((s.fps for s in sequences), Fraction(0)),
        _shared((s.frames for s in sequences), 0),
        [_mean_point(points) for points in rows],
        _shared((s.source for s in sequences), None),
    )


def points_by_rate(sequences: Sequence[SequenceResult]) -> list[list[Point]] | None:
    """Return the points of all sequences at each rate that they were coded at.

    Returns:
        For each rate a point of each sequence; ``None`` if they have different rates.
    """
    # Equal targets, where there are some; equal knobs.
    tables = [
        {(p.target_bpp, p.target_bpp or p.rate, p.scales): p for p in s.points}
        for s in sequences
    ]
    same = all(table.keys() == tables[0].keys() for table in tables)
    if not same or any(len(s.points) != len(tables[0]) for s in sequences):
        return None
    return [[table[key] for table in tables] for key in tables[0]]


def _shared(values: Iterable[T], otherwise: T) -> T:
    """Return the one value that all have."""
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else otherwise


def _mean_point(points: Sequence[Point]) -> Point:
    names = [n for n in points[0].metrics if all(n in p.metrics for p in points)]
    return Point(
        rate=points[0].rate,
        bpp=fmean(p.bpp for p in points),
        scales=points[0].scales,
        target_bpp=points[0].target_bpp,
        metrics={name: fmean(p.metrics[name] for p in points) for name in names},
    )
