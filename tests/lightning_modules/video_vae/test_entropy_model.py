"""VideoVAE's entropy model: what each of its steps may see."""

import pytest
import torch

from lightning_modules.entropy.ports import DecodePort, EncodePort, EstimatePort
from lightning_modules.entropy.steps import checkerboard
from lightning_modules.entropy.symbols import SymbolDecoder
from lightning_modules.video_vae.context import SpaceChannelContext, channel_groups


@pytest.mark.parametrize(
    ("channels", "groups"),
    [
        (16, (16,)),
        (64, (16, 16, 32)),
        (128, (16, 16, 32, 64)),
        (192, (16, 16, 32, 64, 64)),
        (320, (16, 16, 32, 64, 192)),
    ],
)
def test_channels_fall_into_elics_groups(channels, groups):
    assert channel_groups(channels) == groups


def small_context():
    torch.manual_seed(0)
    return SpaceChannelContext((2, 3), 6, (8, 4)).eval()


class Recorder:
    """Notes the means and keeps every value."""

    def __init__(self):
        self.steps = []

    def code(self, residual, of):
        self.steps.append((residual.clone(), of.like.clone(), of.keep))
        return of.mask(residual)


def scales_of(context, y, hyper):
    port = Recorder()
    with torch.inference_mode():
        context(y, hyper, port)
    return port.steps


def test_no_step_sees_itself_or_a_later_one():
    context = small_context()
    y, hyper = torch.randn(3, 5, 5, 7), torch.randn(3, 6, 5, 7)
    before = scales_of(context, y, hyper)
    board = checkerboard(5, 7, y.device)
    masks = [(part, colour) for part in (slice(0, 2), slice(2, 5)) for colour in board]
    for step, (channels, keep) in enumerate(masks):
        changed = y.clone()
        changed[:, channels] += keep
        after = scales_of(context, changed, hyper)
        for earlier in range(step + 1):
            assert torch.equal(before[earlier][1], after[earlier][1])
        for later in range(step + 1, 4):
            # The first colour of a group sees other groups only.
            own_group_done = later == step + 1 and step % 2 == 0
            seen = before[later][1] != after[later][1]
            assert seen[..., before[later][2]].any() or (
                own_group_done and not seen.any()
            )


def test_time_steps_do_not_see_each_other_in_the_context():
    context = small_context()
    y, hyper = torch.randn(3, 5, 4, 4), torch.randn(3, 6, 4, 4)
    changed = y.clone()
    changed[0] += 1
    for a, b in zip(
        scales_of(context, y, hyper), scales_of(context, changed, hyper), strict=True
    ):
        assert torch.equal(a[1][1:], b[1][1:])


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (4, 1), (3, 2)])
def test_odd_sizes_and_single_positions_come_back(codec, size):
    context, tables = small_context(), codec.tables
    y, hyper = 4 * torch.randn(3, 5, *size), torch.randn(3, 6, *size)
    with torch.inference_mode():
        port = EncodePort(tables, estimate=True)
        y_hat = context(y, hyper, port)
        again = DecodePort(SymbolDecoder(port.encoder.finish()), tables)
        assert torch.equal(context(None, hyper, again), y_hat)
        estimate = EstimatePort(None, samples=1)
        assert torch.equal(context(y, hyper, estimate), y_hat)
    # Of its mean, which is between.
    assert (y_hat - y).abs().max() <= 0.5 + 1e-5
    torch.testing.assert_close(float(estimate.bits), port.bits, rtol=1e-4, atol=0.1)
