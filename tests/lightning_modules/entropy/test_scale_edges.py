"""Comparisons choose the levels that torch's logarithm chooses, for all scales."""

import math

import numpy as np
import pytest
import torch

from lightning_modules.dhvc.entropy_model import SIGMA_LEVELS
from lightning_modules.entropy.distributions import Gaussians
from lightning_modules.entropy.priors import ScaleLevels
from lightning_modules.entropy.scale_edges import BITS, REACH, find_edges
from lightning_modules.ui2c.network import Y_LEVELS as UI2C_LEVELS
from lightning_modules.video_vae.context import Y_LEVELS as VAE_LEVELS

LEVELS = [UI2C_LEVELS, SIGMA_LEVELS, VAE_LEVELS, ScaleLevels(0.2, 0.3, 2)]
TYPES = list(BITS)


def rows(levels, scales):
    return Gaussians(scales, levels).choose()[0].tolist()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("levels", LEVELS)
def test_every_number_around_an_edge_has_the_logarithms_level(levels, dtype):
    edges = [levels.level(i + 0.5) for i in range(levels.count - 1)]
    bits = torch.tensor(edges, dtype=dtype).numpy().view(BITS[dtype])
    near = bits[:, None] + np.arange(-4 * REACH, 4 * REACH)
    scales = torch.from_numpy(near.astype(BITS[dtype])).view(dtype)
    assert levels.edges(dtype) is not None
    assert rows(levels, scales) == levels.indices(scales).flatten().tolist()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("levels", LEVELS)
def test_all_other_numbers_have_it_too(levels, dtype):
    info = torch.finfo(dtype)
    special = [0.0, info.smallest_normal, info.smallest_normal / 2, info.tiny, 1e-30]
    special += [info.max, math.inf, levels.low, levels.high, levels.level(1)]
    special += [math.nextafter(levels.low, 0), math.nextafter(levels.high, 1e9)]
    scales = torch.tensor(special + [-x for x in special], dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    drawn = 12 * torch.rand(50_000, generator=generator, dtype=dtype) - 4
    scales = torch.cat([scales, drawn.exp()])
    assert rows(levels, scales) == levels.indices(scales).tolist()


def test_where_a_rule_falls_comparisons_do_not_stand_in_for_it(monkeypatch):
    middles = [0.5, 1.5, 2.5]
    after_1 = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
    after_3_halves = float(np.nextafter(np.float32(1.5), np.float32(2.0)))

    def rule(scales):
        return scales.round().to(torch.int32)

    def falling(scales):
        level = rule(scales)
        return torch.where(scales == after_3_halves, 1, level)

    assert find_edges(rule, middles, torch.float32) is not None
    assert find_edges(falling, middles, torch.float32) is None
    # Nor where one level's edge is not far enough from the next.
    assert find_edges(lambda x: (x > 1).int(), [1.0, after_1], torch.float32) is None
    levels = UI2C_LEVELS
    monkeypatch.setattr(ScaleLevels, "edges", lambda *_: None)
    scales = torch.tensor([0.0, 0.3, 1e9])
    assert rows(levels, scales) == levels.indices(scales).tolist()
