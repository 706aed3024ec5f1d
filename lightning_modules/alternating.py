"""A fair ratio of two ways to do one thing."""

import time
from collections.abc import Callable
from statistics import median


def alternating(
    candidate: Callable[[], object],
    baseline: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float, float]:
    """Time two ways to do one thing in turns, after one run of each that warms up.

    Args:
        candidate: The one way.
        baseline: The other.
        repeats: Timed runs of each.
        clock: Gives seconds; by default CPU seconds of this process and its threads,
            which other load on the machine disturbs least.

    Returns:
        Median seconds of the candidate and of the baseline, and median of the ratios
        candidate / baseline of neighbouring runs.
    """
    candidate()
    baseline()
    pairs = []
    for _ in range(repeats):
        begun = clock()
        candidate()
        between = clock()
        baseline()
        pairs.append((between - begun, clock() - between))
    ratios = [one / max(other, 1e-9) for one, other in pairs]
    ones, others = zip(*pairs, strict=True)
    return median(ones), median(others), median(ratios)
