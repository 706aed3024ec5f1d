"""DualDomain's quantiser steps, and the experts that choose them."""

import math

import pytest
import torch

from lightning_modules.dual_domain.codec import DualDomainCodec
from lightning_modules.dual_domain.design import SIZES
from lightning_modules.dual_domain.experts import StepScale, regularisers
from lightning_modules.dual_domain.network import Coded

TERMS = frozenset(DualDomainCodec.loss_terms)


@pytest.mark.parametrize("kind", ["moe", "moe_hyper", "gain8", "single", "scalar"])
def test_scales_rise_with_quality_from_the_start(kind):
    torch.manual_seed(0)
    scale = StepScale(SIZES["tiny"], kind)
    content = 3 * torch.randn(1, 48, 3, 4)
    places = torch.linspace(0, 1, 17)
    steps = torch.stack([scale(content, q[None]) for q in places])
    ends = (steps[-1] - steps[0]).mean().item()
    assert ends == pytest.approx(0.5 * math.log(0.0483 / 0.0018), rel=0.1)
    assert (steps.diff(dim=0).mean(dim=(1, 2, 3, 4)) > 0).all()


def test_experts_say_only_where_steps_differ():
    torch.manual_seed(0)
    scale = StepScale(SIZES["tiny"], "moe")
    content, quality = 3 * torch.randn(1, 48, 3, 4), torch.tensor([0.4])
    before = scale(content, quality)
    assert before.std(dim=(-2, -1)).mean() > 1e-3
    scale.experts.expert_out.bias.data += 5.0
    torch.testing.assert_close(scale(content, quality), before, rtol=0, atol=1e-5)


def test_the_edge_of_a_frame_is_no_content():
    torch.manual_seed(0)
    experts = StepScale(SIZES["tiny"], "moe").experts
    flat = torch.randn(1, 48, 1, 1).expand(-1, -1, 4, 4)
    logits = experts.route(flat, torch.tensor([0.4]))
    torch.testing.assert_close(logits, logits[..., :1, :1].expand_as(logits))


def test_the_loss_of_a_scale_that_falls_is_seen():
    scale = StepScale(SIZES["tiny"], "single")
    content, quality = torch.randn(2, 48, 3, 4), torch.tensor([0.2, 0.9])
    assert regularisers([(scale, content)], quality, TERMS)["monotonicity"].item() == 0
    scale.gain.points.data = scale.gain.points.data.flip(0)
    terms = regularisers([(scale, content)], quality, TERMS)
    assert terms["monotonicity"].item() == pytest.approx(1.645 + 0.2, rel=1e-3)
    assert terms.keys() == {"monotonicity"}


def test_a_collapsed_router_costs_more_than_an_even_one():
    torch.manual_seed(0)
    scale = StepScale(SIZES["tiny"], "moe")
    content, quality = torch.randn(2, 48, 4, 4), torch.tensor([0.2, 0.9])
    even = regularisers([(scale, content)], quality, TERMS)["load_balance"]
    scale.experts.router_out[-1].bias.data[0] += 50.0
    collapsed = regularisers([(scale, content)], quality, TERMS)["load_balance"]
    assert collapsed.item() == pytest.approx(0.01 * scale.experts.count, rel=1e-3)
    assert even < collapsed


def test_steps_by_the_hyper_latent_are_each_others_inverse(dual_domain):
    network = dual_domain.make(step="moe_hyper").network
    y, hyper = torch.randn(1, 48, 3, 4), torch.randn(1, 48, 3, 4)
    quality = torch.tensor([0.4])
    symbols = network.to_symbols(y, quality, hyper)
    torch.testing.assert_close(network.to_latent(Coded(symbols, hyper), quality), y)
