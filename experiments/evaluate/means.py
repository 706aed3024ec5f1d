"""What the sequences of a set have on the average, at each rate."""

import math
from collections import Counter

from experiments.results.result import Point, Result


def means_by_rate(result: Result) -> dict[tuple[str, str], dict[str, float]]:
    """Return what the sequences of a set have on the average, weighted by frames.

    Args:
        result: Of its points those with all scales count.

    Returns:
        ``rate``, ``bpp`` and each metric that all have, by set and by knob and rate,
        such as ``qp21``. Of pooled metrics the pool's own. A rate that not all
        sequences of a set have is left out: its mean would be of other videos.
    """
    unit = str(result.codec.get("rate_unit", "rate"))
    groups: dict[tuple[str, str], list[tuple[int, Point]]] = {}
    for sequence, point in result.all_points():
        if point.scales is None:
            at = f"{unit}{point.rate:g}"
            if point.target_bpp is not None:
                at = f"bpp{point.target_bpp:g}"
            own = groups.setdefault((sequence.set, at), [])
            own.append((sequence.frames, point))
    sizes = Counter(sequence.set for sequence in result.sequences)
    means = {}
    for key, members in groups.items():
        if len(members) < sizes[key[0]]:
            continue
        frames = sum(count for count, _ in members)
        values = {"rate": [p.rate for _, p in members]}
        values |= {"bpp": [p.bpp for _, p in members]}
        for name in result.metric_names():
            if all(name in p.metrics for _, p in members):
                values[name] = [p.metrics[name] for _, p in members]
        means[key] = {
            name: math.fsum(n * v for (n, _), v in zip(members, own, strict=True))
            / frames
            for name, own in values.items()
        }
    for pool in result.pools:
        at = f"{unit}{pool.rate:g}"
        if pool.scales is None and (pool.set, at) in means:
            means[pool.set, at] |= pool.metrics
    return means
