"""DualDomain's quantiser steps, and the experts that choose them."""

import math

import pytest
import torch

from lightning_modules.dual_domain.codec import DualDomainCodec
from lightning_modules.dual_domain.design import SIZES, Options
from lightning_modules.dual_domain.experts import StepScale, regularisers
from lightning_modules.dual_domain.module import DualDomain
from lightning_modules.dual_domain.network import Coded
from lightning_modules.stages import Stage

TERMS = frozenset(DualDomainCodec.loss_terms)
OFFSETS = ("learned", "frame")
QUALITY = torch.tensor([0.4])


def make(step="moe", **options):
    torch.manual_seed(0)
    return StepScale(SIZES["tiny"], Options(step=step, **options))


def shaken(**options):
    """Experts that say something, as after some training."""
    scale = make(**options)
    for parameter in scale.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return scale


@pytest.mark.parametrize("kind", ["moe", "moe_hyper", "gain8", "single", "scalar"])
def test_scales_rise_with_quality_from_the_start(kind):
    scale = make(kind, step_offset="learned")
    content = 3 * torch.randn(1, 48, 3, 4)
    places = torch.linspace(0, 1, 17)
    steps = torch.stack([scale(content, q[None]) for q in places])
    ends = (steps[-1] - steps[0]).mean().item()
    assert ends == pytest.approx(0.5 * math.log(0.0483 / 0.0018), rel=0.1)
    assert (steps.diff(dim=0).mean(dim=(1, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize("offset", OFFSETS)
def test_experts_say_only_where_steps_differ(offset):
    scale = make(step_offset=offset)
    content = 3 * torch.randn(1, 48, 3, 4)
    before = scale(content, QUALITY)
    assert before.std(dim=(-2, -1)).mean() > 1e-3
    scale.experts.expert_out.bias.data += 5.0
    torch.testing.assert_close(scale(content, QUALITY), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"experts": 1}, {"top_k": 2}, {"step": "moe_hyper"}], ids=str
)
@torch.no_grad()
def test_a_step_depends_on_what_is_near_alone(options):
    content = torch.randn(1, 48, 9, 12)
    far = content.clone()
    far[..., 6:] += 3.0
    scale = shaken(step_offset="learned", **options)
    before, after = scale(content, QUALITY), scale(far, QUALITY)
    assert torch.equal(after[..., :5], before[..., :5])
    assert not torch.equal(after[..., 6:], before[..., 6:])
    # The test can fail: this is what the ablation does.
    scale = shaken(step_offset="frame", **options)
    moved = scale(far, QUALITY) - scale(content, QUALITY)
    assert moved[..., :5].abs().mean() > 0.03


@torch.no_grad()
def test_a_crop_has_the_steps_that_its_content_has_in_the_frame():
    content = torch.randn(1, 48, 20, 24) + torch.linspace(-2, 2, 24)
    inside = (..., slice(5, 11), slice(7, 13))
    differ = {}
    for offset in OFFSETS:
        scale = shaken(step_offset=offset)
        crop = scale(content[..., 4:12, 6:14], QUALITY)[..., 1:-1, 1:-1]
        whole = scale(content, QUALITY)[inside]
        change = (whole - scale.gain(QUALITY)).abs().mean()
        differ[offset] = float((crop - whole).abs().mean() / change)
    assert differ["learned"] < 1e-5 and differ["frame"] > 0.1


@torch.no_grad()
def test_content_that_is_alike_everywhere_has_a_step_of_its_own():
    one, other = torch.randn(2, 1, 48, 1, 1).expand(-1, -1, -1, 4, 6)
    moved = {}
    for offset in OFFSETS:
        scale = shaken(step_offset=offset)
        moved[offset] = (scale(one, QUALITY) - scale(other, QUALITY)).abs().mean()
    assert moved["learned"] > 0.1 and moved["frame"] < 1e-5


def test_training_does_not_drive_the_experts_into_saturation(scene):
    torch.manual_seed(0)
    module = DualDomain(size="tiny", step_offset="learned").train()
    row = Stage("image", 30, 1, lr=5e-3, options={"objective": "image"})
    module.start_stage(row, 0, 1, 0)
    optimizer = module.configure_optimizers()["optimizer"]
    clip = scene(2, 48, 48)[:, None]
    for number in range(row.steps):
        seeds = torch.tensor([2 * number, 2 * number + 1])
        draw = module.draw(clip, seeds, training=True)
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        optimizer.zero_grad()
        module.loss(module.terms(draw, out)).backward()
        torch.nn.utils.clip_grad_norm_(module.codec.parameters(), 1.0)
        optimizer.step()
    network = module.codec.network
    with torch.no_grad():
        y = network.transform(clip[:, 0])
        change = network.encoder_steps.experts(y, QUALITY) / math.log(2.0)
    # Without any offset it is on its way to 1, in all positions alike.
    assert change.mean(dim=(-2, -1)).abs().mean() < 0.15
    assert change.std(dim=(-2, -1)).mean() > 0.01


@torch.no_grad()
def test_only_the_experts_that_fit_best_count():
    content = 3 * torch.randn(1, 48, 5, 6)
    every = shaken().experts.shares(content, QUALITY)
    best = shaken(top_k=2).experts.shares(content, QUALITY)
    assert ((best > 0).sum(dim=1) == 2).all() and (every > 0).all()
    torch.testing.assert_close(best.sum(dim=1), torch.ones(1, 5, 6))
    kept = every * (best > 0)
    torch.testing.assert_close(best, kept / kept.sum(dim=1, keepdim=True))
    assert torch.equal(best.argmax(dim=1), every.argmax(dim=1))


def test_one_expert_has_no_router():
    alone, four = make(experts=1), make()
    assert not [name for name, _ in alone.named_parameters() if "router" in name]
    content = torch.randn(1, 48, 3, 4)
    assert (alone.experts.shares(content, QUALITY) == 1).all()
    assert regularisers([(alone, content)], QUALITY, TERMS).keys() == {"monotonicity"}
    assert four.experts.count == 4 and make(experts=6).experts.count == 6


def test_the_edge_of_a_frame_is_no_content():
    experts = make().experts
    flat = torch.randn(1, 48, 1, 1).expand(-1, -1, 4, 4)
    logits = experts.route(flat, torch.tensor([0.4]))
    torch.testing.assert_close(logits, logits[..., :1, :1].expand_as(logits))


def test_the_loss_of_a_scale_that_falls_is_seen():
    scale = make("single")
    content, quality = torch.randn(2, 48, 3, 4), torch.tensor([0.2, 0.9])
    assert regularisers([(scale, content)], quality, TERMS)["monotonicity"].item() == 0
    scale.gain.points.data = scale.gain.points.data.flip(0)
    terms = regularisers([(scale, content)], quality, TERMS)
    assert terms["monotonicity"].item() == pytest.approx(1.645 + 0.2, rel=1e-3)
    assert terms.keys() == {"monotonicity"}


def test_a_collapsed_router_costs_more_than_an_even_one():
    scale = make()
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
