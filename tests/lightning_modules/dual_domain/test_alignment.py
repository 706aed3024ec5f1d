"""DualDomain's flows, and how references are aligned for a prediction."""

import pytest
import torch

from lightning_modules.dual_domain.alignment import Alignment, sample
from lightning_modules.dual_domain.design import SIZES, Options
from lightning_modules.dual_domain.flow import compose, to_latent_scale, warp
from lightning_modules.dual_domain.network import Reference


def test_a_flow_says_where_content_lies_in_the_reference():
    x = torch.rand(1, 2, 9, 11)
    flow = torch.zeros(1, 2, 9, 11)
    flow[:, 0], flow[:, 1] = 3.0, -2.0
    moved = warp(x, flow)
    torch.testing.assert_close(moved[..., 2:, :8], x[..., :7, 3:])
    # Beyond the border its nearest pixel counts.
    torch.testing.assert_close(moved[..., 0, 10], x[..., 0, 10])


def test_flows_compose_and_shrink_with_the_latent():
    steps = [torch.full((1, 2, 32, 48), v) for v in (1.5, -4.0, 16.0)]
    total = [float(flow[0, 0, 8, 8]) for flow in compose(steps)]
    assert total == [1.5, -2.5, 13.5]
    # A zoom: what the second flow says where the first one ends.
    ramp = torch.arange(48.0).expand(1, 2, 32, 48) / 8
    _, both = compose([steps[0], ramp])
    assert float(both[0, 0, 5, 10]) == pytest.approx(1.5 + 11.5 / 8)
    small = to_latent_scale(torch.full((1, 2, 32, 48), 32.0))
    assert small.shape == (1, 2, 2, 3) and (small == 2.0).all()


def test_samples_are_bilinear_at_the_asked_places():
    generator = torch.Generator().manual_seed(4)
    heads, points, depth, height, width = 2, 3, 2, 5, 6
    features = torch.rand(1, 2 * heads * depth, height, width, generator=generator)
    places = 4 * torch.rand(1, heads, points, 2, height, width, generator=generator) - 2
    found = sample(features, places)
    assert found.shape == (1, heads, 2 * depth, points, height, width)

    def at(channel, right, down):
        right = min(max(right, 0.0), width - 1.0)
        down = min(max(down, 0.0), height - 1.0)
        left, top = int(right), int(down)
        value = 0.0
        for x, wx in ((left, 1 - right + left), (left + 1, right - left)):
            for y, wy in ((top, 1 - down + top), (top + 1, down - top)):
                if wx * wy:
                    value += wx * wy * float(features[0, channel, y, x])
        return value

    for head, point, y, x in ((0, 0, 2, 3), (1, 2, 0, 0), (1, 1, 4, 5), (0, 2, 1, 4)):
        right, down = (float(v) for v in places[0, head, point, :, y, x])
        for number in range(2 * depth):
            half, index = divmod(number, depth)
            channel = half * heads * depth + head * depth + index
            expected = at(channel, x + right, y + down)
            assert float(found[0, head, number, point, y, x]) == pytest.approx(
                expected, abs=1e-5
            )


def test_attention_sees_the_newest_reference_first_and_then_all():
    torch.manual_seed(3)
    alignment = Alignment(SIZES["tiny"], Options())
    coarse, known = torch.randn(1, 48, 3, 4), torch.randn(1, 3, 48, 3, 4)
    flows = torch.zeros(1, 3, 2, 3, 4)
    first, second = alignment.layers
    for layer, ages in ((first, 1), (second, 3)):
        assert layer.attention.bias.shape[0] == ages
    base = alignment(coarse, known, flows)
    for age in range(3):
        other = known.clone()
        other[:, age] = 0.0
        assert not torch.equal(alignment(coarse, other, flows), base)
    # Without the second layer, all but the newest are out of sight.
    second.attention.bias.data -= 1e6
    newest = alignment(coarse, known, flows)
    other = known.clone()
    other[:, 1:] = 0.0
    assert torch.equal(alignment(coarse, other, flows), newest)
    assert not torch.equal(alignment(coarse, 0 * known, flows), newest)
    # The null sample can outweigh all others.
    for layer in (first, second):
        layer.attention.bias.data -= 1e6
    assert torch.equal(
        alignment(coarse, known, flows), alignment(coarse, 0 * known, flows)
    )


def test_without_long_term_refinement_only_the_newest_is_seen():
    torch.manual_seed(3)
    alignment = Alignment(SIZES["tiny"], Options(ltmr=False, references=1))
    assert len(alignment.layers) == 1
    coarse, known = torch.randn(1, 48, 3, 4), torch.randn(1, 1, 48, 3, 4)
    flows = torch.zeros(1, 1, 2, 3, 4)
    seen = [alignment(coarse, scale * known, flows) for scale in (1, 0)]
    assert not torch.equal(*seen)


@torch.no_grad()
def test_the_coarse_prediction_is_the_warped_frame_transformed_anew(dual_domain, codec):
    network = codec.network
    x_hat = dual_domain.scene(1, 64, 192)
    reference = Reference(x_hat, network.transform(x_hat), torch.zeros(1, 2, 64, 192))
    quality, hyper = torch.tensor([0.5]), torch.zeros(1, 48, 4, 12)
    flow = torch.zeros(1, 2, 64, 192)
    _, still = network._predict((reference,), flow, quality, hyper)
    torch.testing.assert_close(
        still, network.to_symbols(reference.y_hat, quality, hyper)
    )
    flow[:, 0] = 16.0
    _, moved = network._predict((reference,), flow, quality, hyper)
    # One position of the latent; far from the border it does not matter.
    torch.testing.assert_close(
        moved[..., 5], still[..., 6], rtol=1e-3, atol=1e-3 * float(still.abs().max())
    )
    assert not torch.allclose(moved[..., 5], still[..., 5], atol=0.1)
