"""Means of training's figures over the steps between two that are logged."""

from collections.abc import Callable

import torch
from torch import Tensor


class IntervalMeans:
    """Sums of named figures since their means were last taken.

    A value that is not finite counts only where a figure has no other: one step that
    training skips must not hide those around it. Adding never waits for the device.
    """

    def __init__(self) -> None:
        # By name: the sum of finite values, their number, and the number of all.
        self._sums: dict[str, Tensor] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._sums = {}

    @torch.no_grad()
    def add(self, name: str, values: Tensor, chosen: Tensor | None = None) -> None:
        """Add values to a figure.

        Args:
            name: The figure's; every rank must add to the same ones.
            values: Of any shape.
            chosen: Bool, of the same shape: which of them count; all without it.
        """
        values = values.detach().double()
        if chosen is None:
            chosen = torch.ones_like(values, dtype=torch.bool)
        # No indexing by a mask: how many it picks would have to be known here.
        finite = chosen & values.isfinite()
        total = values.where(finite, 0.0).sum()
        sums = torch.stack([total, finite.sum().double(), chosen.sum().double()])
        earlier = self._sums.get(name)
        self._sums[name] = sums if earlier is None else earlier + sums

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the mean of each figure that has values, and begin anew.

        Args:
            reduce: Adds a tensor up over all ranks; called once.
        """
        sums = reduce(torch.stack([*self._sums.values()])).tolist()
        names = list(self._sums)
        self.clear()
        return {
            name: total / finite if finite else float("nan")
            for name, (total, finite, number) in zip(names, sums, strict=True)
            if number
        }
