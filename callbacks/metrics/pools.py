"""FID and KID of a validation: all pictures at a rate point, of all ranks together."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from callbacks.metrics.distribution import (
    SAMPLES,
    Inception,
    Moments,
    Samples,
    to_8_bit,
)
from callbacks.metrics.table import Metric
from lightning_modules.base import ValidationResult
from lightning_modules.perceptual import UnavailableMetricError
from lightning_modules.ranks import gather, several

SOURCE = ""
"""In place of a rate point: the source's pictures."""


class PooledValue(NamedTuple):
    """A metric at a rate point.

    Attributes:
        point: The rate point.
        name: The metric.
        value: ``None`` if it has none.
        reason: Why not.
        samples: Decoded pictures that it is of, of all ranks.
    """

    point: str
    name: str
    value: float | None
    reason: str
    samples: int


class Pools:
    """Collects pictures of a validation and compares the decoded with the source's.

    Each clip of a batch is expected at all rate points; its source is looked at once.

    Args:
        metrics: Pooled rows of the table, by the names that they are logged under.

    Raises:
        UnavailableMetricError: The network's weights are not on this machine.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = metrics
        self._functions = {name: metric.load() for name, metric in metrics.items()}
        self._inception = Inception()
        # Whole frames or squares, and their moments or all of them.
        self._forms = sorted({(m.pooled, m.moments) for m in metrics.values()})
        self._sets: dict[tuple[str, str, bool], Moments | Samples] = {}

    def clear(self) -> None:
        """Forget all pictures."""
        self._sets = {}

    def add(self, results: Iterable[ValidationResult]) -> dict[str, str]:
        """Add the clips of a batch at all rate points.

        Returns:
            Metrics that some of the clips have none of, and why.
        """
        left_out: dict[str, str] = {}
        seen: set[int] = set()
        for result in results:
            new = id(result.clip) not in seen
            seen.add(id(result.clip))
            for kind in dict.fromkeys(kind for kind, _ in self._forms):
                try:
                    if new:
                        self._collect(SOURCE, kind, result.clip)
                    self._collect(result.point, kind, result.x_hat)
                except UnavailableMetricError as error:
                    reason = f"{error}; clips like {result.name} are left out"
                    own = (n for n, m in self._metrics.items() if m.pooled == kind)
                    left_out |= dict.fromkeys(own, reason)
        return left_out

    def compute(self, device: torch.device) -> list[PooledValue]:
        """Compare what all ranks have collected; all ranks must call it.

        Rank 0 computes, because the roots of covariances take seconds on a CPU. The
        others learn the result from it.

        Args:
            device: Where the ranks' sums are added up.

        Returns:
            All metrics at all rate points, the same on all ranks.
        """
        keys = sorted(set().union(*gather(set(self._sets))))
        for key in keys:
            one = self._sets.setdefault(key, self._empty(key[2], device))
            if several():
                self._sets[key] = _on_rank_0(one)
        told: list[Any] = [None]
        if not several() or dist.get_rank() == 0:
            told = [
                [
                    self._compare(point, name)
                    for name, metric in self._metrics.items()
                    for point, *form in keys
                    if point != SOURCE and form == [metric.pooled, metric.moments]
                ]
            ]
        if several():
            dist.broadcast_object_list(told, src=0)
        values: list[PooledValue] = told[0]
        return values

    def _collect(self, point: str, kind: str, frames: Tensor) -> None:
        features = self._inception(SAMPLES[kind](to_8_bit(frames)))
        for form, moments in self._forms:
            if form == kind:
                key = (point, kind, moments)
                if key not in self._sets:
                    self._sets[key] = self._empty(moments, features.device)
                self._sets[key].add(features)

    def _empty(self, moments: bool, device: torch.device) -> Moments | Samples:
        return Moments(self._inception.size, device) if moments else Samples([])

    def _compare(self, point: str, name: str) -> PooledValue:
        metric = self._metrics[name]
        source, decoded = (
            self._sets[which, metric.pooled, metric.moments]
            for which in (SOURCE, point)
        )
        value, reason = None, ""
        try:
            value = self._functions[name](source, decoded)
        except UnavailableMetricError as error:
            reason = str(error)
        return PooledValue(point, name, value, reason, len(decoded))


def _on_rank_0(own: Moments | Samples) -> Moments | Samples:
    """Bring what all ranks have to rank 0: sums by a reduction, else all samples."""
    if isinstance(own, Moments):
        dist.reduce(own.products, dst=0)
        return own
    here = dist.get_rank() == 0
    ranks: list[Any] | None = [None] * dist.get_world_size() if here else None
    dist.gather_object(list(own.matrices), ranks, dst=0)
    return Samples([matrix for rank in ranks or () for matrix in rank])
