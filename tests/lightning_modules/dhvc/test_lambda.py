"""DHVC's lambda: its embedding, its draw, every block that follows it."""

import math
from itertools import pairwise

import pytest
import torch

from lightning_modules import DHVC
from lightning_modules.dhvc.blocks import LambdaEmbedding, ResBlock
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.stages import Stage


def test_every_residual_block_follows_lambda(full):
    blocks = {n: m for n, m in full.named_modules() if isinstance(m, ResBlock)}
    # 9 of the encoder, 20 of the scales, 2 of the tail, 5 of the auxiliary path; D
    # has one less at the first scale.
    assert len(blocks) == 9 + 20 - 1 + 2 + 5
    embedding = full.network.embed(torch.tensor([256.0, 2048.0]))
    for name, block in blocks.items():
        channels = len(block.gain)
        x = torch.randn(1, channels, 4, 4).expand(2, -1, -1, -1)
        with torch.inference_mode():
            low, high = block(x, embedding)
        assert not torch.equal(low, high), name


def test_each_sample_of_a_batch_has_its_own_lambda(dhvc, full):
    clip = dhvc.scene(2)[None].expand(3, -1, -1, -1, -1)
    rates = torch.tensor([256.0, 2048.0, 256.0])
    with torch.inference_mode():
        together = full(clip, rates)
        alone = full(clip[:1], rates[1:2])
    torch.testing.assert_close(together.x_hat[1:2], alone.x_hat, rtol=1e-3, atol=1e-3)
    assert not torch.equal(together.x_hat[0], together.x_hat[1])
    assert not torch.equal(together.bits[0], together.bits[1])
    assert torch.equal(together.x_hat[0], together.x_hat[2])


def test_the_embedding_is_the_documented_one():
    embedding = LambdaEmbedding(256)
    seen = []
    embedding.layers.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    assert embedding(torch.tensor([512.0])).shape == (1, 256)
    position = 64 * math.log(512) / math.log(8192)
    angles = [position * 64 ** (-i / 127) for i in range(128)]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    torch.testing.assert_close(seen[0][0], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_a_model_of_fixed_rate_has_one_point_and_no_embedding():
    codec = DHVCCodec("tiny", (512, 512), variable_rate=False)
    assert codec.rate_knob.points == (512,)
    assert not [n for n, _ in codec.named_parameters() if "embedding" in n]
    assert not [n for n, _ in codec.named_parameters() if "modulation" in n]
    with pytest.raises(ValueError, match="one lambda"):
        DHVCCodec("tiny", variable_rate=False)


@pytest.mark.parametrize(
    ("arguments", "points"),
    [
        ({}, (256, 512, 1024, 2048)),
        ({"lmbda_range": (4, 32), "distortion": "ms_ssim"}, (4, 8, 16, 32)),
    ],
)
def test_lambdas_are_drawn_log_uniformly_within_the_range(arguments, points):
    module = DHVC(size="tiny", **arguments)
    assert module.codec.rate_knob.points == points
    clip = torch.rand(1, 1, 3, 8, 8).expand(4000, -1, -1, -1, -1)
    draw = module.draw(clip, torch.arange(4000), training=True)
    assert torch.equal(draw.lmbda, draw.rate)
    assert points[0] <= draw.rate.min() and draw.rate.max() <= points[-1]
    # Three octaves: a third of the samples in each.
    for low, high in pairwise(points):
        share = ((draw.rate >= low) & (draw.rate < high)).float().mean()
        assert 0.30 < share < 0.37
    cubic = DHVC(size="tiny", **arguments, lmbda_sampling="cube_root")
    more = cubic.draw(clip, torch.arange(4000), training=True).rate
    middle = ((points[0] ** (1 / 3) + points[-1] ** (1 / 3)) / 2) ** 3
    assert 0.47 < (more < middle).float().mean() < 0.53


def test_lambda_starts_loud_in_the_embedding_and_silent_in_the_blocks():
    network = DHVC(size="tiny").codec.network
    embedded = network.embed(torch.tensor([256.0, 512.0, 1024.0, 2048.0]))
    # Torch's own start gives 0.03 to 0.08.
    assert embedded.std(dim=0).mean() > 0.15
    modulated = [m for m in network.modules() if isinstance(m, ResBlock) and m.adaptive]
    assert modulated
    for block in modulated:
        assert block.modulation(embedded).abs().max() < 0.05


def test_a_small_size_can_begin_as_the_papers_does():
    def begun(recipe):
        torch.manual_seed(0)
        return DHVC(size="tiny", recipe=recipe)

    own, paper = begun("size"), begun("paper")
    pairs = zip(own.codec.named_parameters(), paper.codec.parameters(), strict=True)
    for (name, ours), theirs in pairs:
        if name.endswith(".gain"):
            assert (ours == 1).all() and (theirs == 1e-6).all()
        elif name.endswith("posterior.1.weight"):
            assert torch.equal(ours, 8 * theirs)
        else:
            assert torch.equal(ours, theirs), name
    assert own.codec.architecture == paper.codec.architecture
    paper.stage = Stage("one", 1, 1, lr=0.5)
    groups = paper.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == [0.5, 0.5]


def test_what_every_block_pulls_at_learns_slower_where_rates_are_large():
    for size, factor in (("tiny", 0.01), ("paper", 1.0)):
        with torch.device("meta"):
            module = DHVC(size=size)
        module.stage = Stage("one", 1, 1, lr=0.5)
        optimizer = module.configure_optimizers()["optimizer"]
        others, embedding = optimizer.param_groups
        assert others["lr"] == 0.5
        assert embedding["lr"] == 0.5 * factor
        slower = {id(p) for p in module.codec.network.embedding.parameters()}
        assert {id(p) for p in embedding["params"]} == slower
        everything = {id(p) for p in module.codec.parameters()}
        assert {id(p) for p in others["params"]} == everything - slower
