"""UI2C's layers in fixed point: exact whole numbers, close to what they stand for."""

import math
from decimal import localcontext

import pytest
import torch
from torch import nn

from lightning_modules.entropy.symbols import OverflowingError
from lightning_modules.packets import DesyncError
from lightning_modules.ui2c import integers
from lightning_modules.ui2c.blocks import WSiLU
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.ui2c.integers import (
    LARGEST,
    MOST_TERMS,
    TAP_LIMIT,
    IntegerConv,
    IntegerDepthwise,
    IntegerLinear,
    TabulatedSigmoid,
    TabulatedWSiLU,
)
from lightning_modules.ui2c.network import Y_LEVELS
from lightning_modules.ui2c.units import INTEGERS

pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture
def codec(lively_module):
    return lively_module("UI2C").codec.eval().requires_grad_(False)


def clip(frames, height=48, width=64):
    ramp = torch.linspace(0, 1, width).expand(3, height, width)
    return torch.stack([(ramp + t / 10) % 1.0 for t in range(frames)])


def close(found, wanted, share=1e-3):
    return float((found - wanted).abs().max()) < share * float(wanted.abs().max())


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(20, 14, 1),
        nn.Conv2d(24, 16, 1, bias=False),
        nn.Conv2d(8, 12, 2, stride=2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
    ],
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_layer_gives_what_it_stands_for(conv, channels_last):
    x = torch.randn(2, conv.in_channels, 6, 10)
    x[0, :, 0, 0] = 0.0
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    kind = IntegerConv if conv.groups == 1 else IntegerDepthwise
    assert close(kind(conv)(x), conv(x))


@pytest.mark.parametrize(
    ("tabulated", "real"),
    [(TabulatedWSiLU(), WSiLU()), (TabulatedSigmoid(), nn.Sigmoid())],
)
def test_a_table_gives_what_it_stands_for(tabulated, real):
    x = torch.linspace(-20, 20, 7 * 5 * 300).reshape(1, 7, 5, 300)
    assert (tabulated(x) - real(x)).abs().max() < 6e-4


def test_the_table_depends_on_no_setting_of_the_process(monkeypatch):
    before = TabulatedSigmoid().table
    integers._sigmoid_table.cache_clear()
    try:
        with localcontext() as context:
            context.prec = 3
            torch.set_default_dtype(torch.float64)
            after = TabulatedSigmoid().table
    finally:
        torch.set_default_dtype(torch.float32)
        integers._sigmoid_table.cache_clear()
    assert after.dtype == torch.float32 and torch.equal(after, before)


def product(x, linear):
    """Compute a linear layer's output with Python's integers and its float32 steps."""
    largest = x.abs().amax(1, keepdim=True)
    scaled = x * (63.5 / largest)
    high = scaled.round()
    low = ((scaled - high) * 128).round()
    inputs = linear.high.shape[1]
    w_low, w_high = (w.long().t() for w in linear.mixed.split(inputs, dim=1))
    high, low = (nn.functional.pad(d, (0, inputs - x.shape[1])) for d in (high, low))
    total = high.long() @ linear.high.long().t() * 128
    total = total + high.long() @ w_low + low.long() @ w_high
    scaled = total[:, : linear.outputs].float() * largest
    return scaled * linear.unit + linear.bias


@pytest.mark.parametrize("rows", [1, 17, integers.ROWS + 3])
@pytest.mark.parametrize("with_onednn", [True, False])
def test_a_product_is_that_of_whole_numbers_whoever_adds_up(
    rows, with_onednn, monkeypatch
):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", with_onednn)
    linear = IntegerLinear(torch.randn(21, 50), torch.randn(21))
    x = torch.randn(rows, 50)
    wanted = product(x, linear)
    assert torch.equal(linear(x), wanted)
    # In another order: of the terms, and of the rows.
    terms, order = torch.randperm(50), torch.randperm(rows)
    padded = torch.cat([terms, torch.arange(50, 56)])
    linear.high = linear.high[:, padded]
    linear.mixed = linear.mixed[:, torch.cat([padded, 56 + padded])]
    assert torch.equal(linear(x[order][:, terms]), wanted[order])


@pytest.mark.parametrize("with_onednn", [True, False])
def test_the_largest_sums_are_exact(with_onednn, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", with_onednn)
    digits = torch.full((17, 2 * MOST_TERMS), 64, dtype=torch.int8)
    digits[1::2] *= -1
    # Odd: half of such sums are not among the numbers of float32 above 2^24.
    digits[:, 0] = 63
    digits[:, 1] = 1
    weights = torch.full((2 * MOST_TERMS, 8), 64, dtype=torch.int8)
    weights[0], weights[1] = 63, 1
    wanted = digits.long() @ weights.long()
    assert torch.equal(integers._product(digits, weights).long(), wanted)
    # As a sum of both products, times 128 the one, it fits 32 bits.
    assert MOST_TERMS * 64 * 64 * (128 + 2) < 2**31
    assert LARGEST / 128 <= 64


def test_depthwise_sums_are_exact_and_so_the_same_tap_by_tap():
    conv = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    layer = IntegerDepthwise(conv)
    assert float(layer.taps.abs().sum((1, 2, 3)).max()) * TAP_LIMIT < 2**24
    whole = torch.randint(-TAP_LIMIT, TAP_LIMIT + 1, (2, 16, 9, 7)).float()
    wanted = nn.functional.conv2d(
        whole.double(), layer.taps.double(), padding=1, groups=16
    )
    assert torch.equal(layer._on_cpu(whole).double(), wanted)
    assert torch.equal(layer._tap_by_tap(whole).double(), wanted)


def test_no_float32_lies_where_logarithms_may_disagree_on_its_table():
    levels = torch.arange(Y_LEVELS.count - 1, dtype=torch.float64) + 0.5
    edges = torch.exp(math.log(Y_LEVELS.low) + Y_LEVELS.step * levels)
    nearest = edges.float()
    around = [
        nearest,
        *(torch.nextafter(nearest, e) for e in (0 * nearest, 9 + nearest)),
    ]
    places = (
        torch.stack(around).double().log() - math.log(Y_LEVELS.low)
    ) / Y_LEVELS.step
    # A hundred times what the last digits of float64 amount to.
    assert (places - places.floor() - 0.5).abs().min() > 100 * 128 * 2.0**-52


def test_what_is_not_finite_is_an_error_and_no_picture(codec):
    linear = IntegerLinear(torch.randn(4, 8), torch.randn(4))
    for bad in (math.nan, math.inf, -math.inf, 1e31):
        x = torch.ones(3, 8)
        x[1, 2] = bad
        with pytest.raises(OverflowingError, match="overflow"):
            linear(x)
    with pytest.raises(OverflowingError, match="damaged"):
        IntegerLinear(torch.full((4, 8), math.nan), None)
    codec.network.decoder[1].bias[0] = math.nan
    codec.configure(arithmetic="integer")
    with pytest.raises(OverflowingError, match="damaged"):
        list(codec.compress(clip(2), 21))


@pytest.mark.parametrize("arguments", [{}, {"frames_per_unit": 1, "divided": True}])
def test_decoders_need_not_be_told_and_float_streams_are_as_ever(
    lively_module, arguments
):
    codec = lively_module("UI2C", **arguments).codec.eval().requires_grad_(False)
    before = codec.fingerprint()
    codec.configure(refresh=2)
    floats = list(codec.compress(clip(4), 63, reconstruct=True))
    assert not codec.exact
    codec.configure(arithmetic="integer")
    assert codec.exact
    packets = list(codec.compress(clip(4), 63, reconstruct=True))
    estimate = codec(clip(4)[None], torch.tensor([63]))
    assert codec.fingerprint() == before
    assert all(packet.payload[1] & INTEGERS for packet in packets)
    codec.configure(arithmetic="float")
    again = list(codec.compress(clip(4), 63))
    assert [p.payload for p in again] == [p.payload for p in floats]
    assert not any(packet.payload[1] & INTEGERS for packet in floats)
    decoded = torch.stack(list(codec.decompress(packets, 48, 64)))
    coded = torch.cat([packet.x_hat for packet in packets])
    assert torch.equal(decoded, coded)
    # What is estimated is coded so, and it is the codec still.
    assert torch.equal(estimate.x_hat[0], coded)
    bits = sum(packet.estimated_bits for packet in packets)
    assert float(estimate.bits.sum()) == pytest.approx(bits, rel=1e-3)
    ours, theirs = (sum(len(p.payload) for p in side) for side in (packets, floats))
    assert ours == pytest.approx(theirs, rel=0.1)


def test_another_arithmetic_is_noticed(codec, monkeypatch):
    codec.configure(arithmetic="integer")
    packets = list(codec.compress(clip(4), 63))
    list(codec.decompress(packets, 48, 64))

    def in_floats(self):
        self.configure(arithmetic="float")
        return self

    monkeypatch.setattr(UI2CCodec, "in_integers", property(in_floats))
    with pytest.raises(DesyncError, match="this machine computes other probabilities"):
        list(codec.decompress(packets, 48, 64))


def test_training_on_drops_the_copy(codec):
    codec.configure(arithmetic="integer")
    before = list(codec.compress(clip(2), 21))
    codec.train()
    codec.network.decoder_up[0].weight.mul_(1.5)
    codec.network.spatial_prior[1].bias.add_(0.3)
    after = list(codec.eval().compress(clip(2), 21))
    assert [p.payload for p in after] != [p.payload for p in before]


def test_other_weights_than_float32_are_refused(codec):
    codec.configure(arithmetic="integer")
    codec.to(torch.float64)
    with pytest.raises(ValueError, match=r"torch\.float64: use float32"):
        list(codec.compress(clip(2), 21))
    packet = next(iter(codec.float().compress(clip(2), 21)))
    with pytest.raises(DesyncError, match="integer"):
        list(codec.to(torch.float64).decompress([packet], 48, 64))


@pytest.mark.gpu
def test_a_gpu_decodes_the_same_bits(codec):
    codec.configure(arithmetic="integer")
    packets = list(codec.compress(clip(6), 63, reconstruct=True))
    codec.cuda()
    decoded = torch.stack(list(codec.decompress(packets, 48, 64))).cpu()
    assert torch.equal(decoded, torch.cat([packet.x_hat for packet in packets]))
    again = list(codec.compress(clip(6), 63, reconstruct=True))
    codec.cpu()
    decoded = torch.stack(list(codec.decompress(again, 48, 64)))
    assert torch.equal(decoded, torch.cat([packet.x_hat.cpu() for packet in again]))
