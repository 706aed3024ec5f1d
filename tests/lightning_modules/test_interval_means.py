"""Means over the steps between two that are logged."""

import math

import pytest
import torch

from lightning_modules.interval_means import IntervalMeans


def test_every_step_since_the_last_logged_one_counts():
    means, reduced = IntervalMeans(), []
    for step in range(4):
        means.add("loss", torch.tensor(float(step), requires_grad=True))
        first = torch.tensor([[True, False]])
        means.add("first/bpp", torch.tensor([[step + 1.0, 100.0]]), first)
        means.add("never/bpp", torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool))

    def two_ranks(sums):
        reduced.append(sums)
        return 2 * sums

    assert means.take(two_ranks) == {"loss": 1.5, "first/bpp": 2.5}
    assert len(reduced) == 1 and not reduced[0].requires_grad
    means.add("loss", torch.tensor(7.0))
    assert means.take(lambda sums: sums) == {"loss": 7.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_skipped_step_does_not_hide_the_others(bad):
    means = IntervalMeans()
    for value in (1.0, bad, 3.0):
        means.add("loss", torch.tensor(value))
    means.add("rate", torch.tensor(bad))
    taken = means.take(lambda sums: sums)
    assert taken["loss"] == 2.0
    assert math.isnan(taken["rate"])
