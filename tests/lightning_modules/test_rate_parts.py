"""Training's figures by rate: shares of the knob's range, and of the loss."""

import pytest
import torch

from lightning_modules import DHVC, UI2C
from lightning_modules.rate_parts import loss_of_frames, nearest_points
from lightning_modules.stages import Stage


def test_a_clip_counts_for_the_nearest_point_of_the_logarithm():
    drawn = torch.tensor([256.0, 361.0, 363.0, 1000.0, 2048.0])
    parts = nearest_points(["a", "b", "c"], torch.tensor([256, 512, 2048]), drawn, 2)
    assert {name: mask[:, 0].tolist() for name, mask in parts.items()} == {
        "a": [True, True, False, False, False],
        "b": [False, False, True, True, False],
        "c": [False, False, False, False, True],
    }
    assert all(mask.shape == (5, 2) for mask in parts.values())
    assert nearest_points(["a"], torch.tensor([256]), drawn, 2) == {}


@pytest.mark.parametrize("codec", [UI2C, DHVC])
def test_the_frames_shares_of_the_loss_have_it_as_their_mean(codec):
    torch.manual_seed(0)
    module = codec(size="tiny").train()
    weights = {"rate": 0.5, "lpips": 0.0, "psnr": 0.0}
    stage = Stage("row", 1, 3, weights={"rate": weights["rate"]})
    module.start_stage(stage, 0, 1, 0)
    draw = module.draw(torch.rand(3, 3, 3, 64, 64), torch.arange(3), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    terms = module.terms(draw, out)
    shares = loss_of_frames(module._frame_terms, terms, module.term_weights)
    assert shares.shape == out.bits.shape
    torch.testing.assert_close(shares.mean(), module.loss(terms))
    # Each clip is of one point, and the points' clips together are the batch.
    module._note(draw, out, terms)
    parts = {n: s for n, s in module._figures._sums.items() if n[:2] in ("qp", "lm")}
    names = [f"{p}/{n}" for p in module.rate_points() for n in ("loss", "bpp", "psnr")]
    assert sorted(parts) == sorted(names)
    losses = torch.stack([s for n, s in parts.items() if n.endswith("/loss")]).sum(0)
    assert losses[2] == out.bits.numel()
    torch.testing.assert_close(
        losses[0] / losses[2], module.loss(terms).detach().double(), rtol=1e-6, atol=0
    )


def test_a_term_of_a_whole_batch_counts_alike_for_each_frame():
    frames = {"rate": torch.tensor([[1.0, 3.0]])}
    terms = {"rate": torch.tensor(2.0), "balance": torch.tensor(5.0)}
    loss = loss_of_frames(frames, terms, {"rate": 1.0, "balance": 0.1})
    assert loss.tolist() == [[1.5, 3.5]]
