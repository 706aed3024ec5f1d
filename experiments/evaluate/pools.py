"""FID and KID of a set's sequences together, once the jobs are done."""

import math
from collections.abc import Sequence
from operator import mul
from pathlib import Path

import numpy as np

from callbacks.metrics.distribution import SAMPLES, Samples
from callbacks.metrics.table import METRICS, pooled_names
from experiments.evaluate.job import Found, Job, Rate
from experiments.results.result import Pool, Result
from lightning_modules.perceptual import UnavailableMetricError


def make_pools(result: Result, jobs: Sequence[Job], folder: Path) -> list[Pool]:
    """Return a result's pools: those it has, and those of what jobs left.

    Sequences are pooled in the order of their names, so values do not depend on who did
    which job, or when.

    Args:
        result: Has the points of every job.
        jobs: All jobs of the command.
        folder: Of the parts, with the features that points name.

    Raises:
        FileNotFoundError: Features are no longer there.
    """
    pools = {pool.key: pool for pool in result.pools}
    groups: dict[tuple[str, Rate, int | None], list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.sequence.name):
        for scales in (None, *job.scales):
            groups.setdefault((job.sequence.set, job.rate, scales), []).append(job)
    of_sources: dict[tuple[Path, ...], Samples] = {}
    for (_, rate, scales), members in groups.items():
        found = [job.points_in(result)[scales] for job in members]
        points = [point for _, point in found]
        empty = Pool(
            members[0].sequence.set,
            list(members[0].pool),
            _mean(found, [p.rate for p in points]),
            _mean(found, [p.bpp for p in points]),
            rate.target,
            scales,
        )
        pool = pools.setdefault(empty.key, empty)
        for names in map(pooled_names, SAMPLES):
            pairs = [p.features[names[0]] for p in points if names[0] in p.features]
            # Otherwise another process has pooled some of them with the rest.
            whole = all(names[0] in {**p.features, **p.unavailable} for p in points)
            if pairs and whole:
                decoded, source = (
                    tuple(folder / name for name in own)
                    for own in zip(*pairs, strict=True)
                )
                _add_metrics(pool, names, decoded, source, of_sources)
            for name in names:
                reasons = [p.unavailable[name] for p in points if name in p.unavailable]
                if reasons and not pairs:
                    pool.unavailable[name] = reasons[0]
    filled = [pool for pool in pools.values() if pool.metrics or pool.unavailable]
    return sorted(filled, key=lambda pool: (pool.set, pool.sequences, pool.bpp))


def _mean(found: Sequence[Found], values: Sequence[float]) -> float:
    """Average over sequences, weighted by frames."""
    frames = [sequence.frames for sequence, _ in found]
    return math.fsum(map(mul, frames, values)) / sum(frames)


def _add_metrics(
    pool: Pool,
    names: Sequence[str],
    decoded: tuple[Path, ...],
    source: tuple[Path, ...],
    of_sources: dict[tuple[Path, ...], Samples],
) -> None:
    """Add metrics of the same files of features to a pool, or why it has none.

    All rates share the samples of a source, which ``of_sources`` keeps.
    """
    if source not in of_sources:
        of_sources[source] = _open(source)
    samples = _open(decoded)
    for name in names:
        try:
            pool.metrics[name] = METRICS[name].load()(of_sources[source], samples)
        except UnavailableMetricError as error:
            pool.unavailable[name] = str(error)
            continue
        pool.samples[name] = len(samples)


def _open(paths: Sequence[Path]) -> Samples:
    return Samples([np.load(path, mmap_mode="r") for path in paths])
