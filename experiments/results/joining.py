"""Results of one codec as one: parts of a file, or files of one curve."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.results.result import Result, SequenceResult


def join_results(results: Sequence[Result]) -> list[Result]:
    """Put files of one name together where they are one codec at other rates.

    A codec without a continuous rate has one checkpoint, and so one file, for each
    lambda. They are one codec if nothing but the weights and the value that its rate is
    called after differs; files of one name that are not are left as they are, for
    ``compare_results`` to refuse.

    Args:
        results: In any order; whatever comes first stays first.

    Raises:
        ValueError: Two files of one curve have the same point.
    """
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    joined: list[Result] = []
    for own in by_name.values():
        joined += [_join(own)] if len(own) > 1 and _are_one(own) else own
    return joined


def _are_one(results: Sequence[Result]) -> bool:
    first = results[0]
    fingerprints = {str(result.codec.get("fingerprint")) for result in results}
    return len(fingerprints) == len(results) and all(
        _without_rate(r.codec) == _without_rate(first.codec)
        and r.protocol == first.protocol
        for r in results
    )


def _without_rate(codec: dict[str, Any]) -> dict[str, Any]:
    """Return what defines a codec, without its weights and its only rate."""
    architecture = dict(codec.get("architecture") or {})
    unit = str(codec.get("rate_unit"))
    architecture.pop(unit, None)
    # A range whose ends are one rate is the rate.
    if len(set(architecture.get(f"{unit}_range") or ())) == 1:
        del architecture[f"{unit}_range"]
    return {**codec, "architecture": architecture, "fingerprint": None}


def _join(results: Sequence[Result]) -> Result:
    first = results[0]
    seen: dict[tuple[object, ...], Path | None] = {}
    for result in results:
        for sequence, point in result.all_points():
            key = (*sequence.key, *point.key)
            if key in seen:
                raise ValueError(
                    f"{seen[key]} and {result.path} are one curve, {result.name}, and "
                    f"both have {sequence.set}/{sequence.name} at rate {point.rate:g}: "
                    "give only one of them, or change the name in one"
                )
            seen[key] = result.path
    empty = Result(
        first.name,
        {
            **_without_rate(first.codec),
            "fingerprint": ", ".join(str(r.codec["fingerprint"]) for r in results),
        },
        first.protocol,
        path=first.path,
    )
    return merge(empty, [_with_whole_paths(result) for result in results])


def _with_whole_paths(result: Result) -> Result:
    """Return a result whose pictures are found from another file's folder too."""
    if result.path is None:
        return result
    folder = result.path.parent

    def whole(pictures: dict[str, str]) -> dict[str, str]:
        return {frame: str(folder / path) for frame, path in pictures.items()}

    sequences = [
        replace(
            sequence,
            pictures=whole(sequence.pictures),
            points=[
                replace(point, pictures=whole(point.pictures))
                for point in sequence.points
            ],
        )
        for sequence in result.sequences
    ]
    return replace(result, sequences=sequences)


def merge(empty: Result, results: Sequence[Result]) -> Result:
    """Put results of one codec and protocol together, points from few bits to many."""
    whole = replace(empty, sequences=[])
    definitions: dict[str, str] = {}
    sequences: dict[tuple[str, str], SequenceResult] = {}
    whole.pools = [pool for result in results for pool in result.pools]
    for result in results:
        definitions |= result.protocol.definitions
        whole.environment = _both(whole.environment, result.environment)
        for sequence in result.sequences:
            kept = sequences.setdefault(sequence.key, replace(sequence, points=[]))
            kept.pictures |= sequence.pictures
            known = [point.key for point in kept.points]
            kept.points += [p for p in sequence.points if p.key not in known]
    for sequence in sequences.values():
        sequence.points.sort(key=lambda point: point.bpp)
    whole.sequences = list(sequences.values())
    whole.protocol = replace(empty.protocol, definitions=definitions)
    return whole


def _both(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return environments as one; a value that differs becomes the list of both."""
    values: dict[str, Any] = {}
    for key in {**a, **b}:
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            values[key] = one | other
            continue
        found: list[Any] = []
        for value in (one, other):
            each = value if isinstance(value, list) else [value]
            found += [v for v in each if v is not None and v not in found]
        values[key] = found[0] if len(found) == 1 else sorted(found, key=str)
    return values
