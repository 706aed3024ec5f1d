import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules.numerics import KERNELS
from lightning_modules.ui2c.blocks import DepthConvBlock, WSiLU, four_wsilu_


@pytest.fixture(autouse=True)
def generation(monkeypatch):
    monkeypatch.setattr(KERNELS, "generation", 1)


def everything():
    """Return float32 numbers of all magnitudes, and both signs."""
    bits = torch.arange(0x0D000000, 0x7D000000, 9973, dtype=torch.int32)
    positive = bits.view(torch.float32)
    return torch.cat([positive, -positive, torch.zeros(1)])


def test_four_times_the_activation_is_exactly_that():
    x = everything()
    assert torch.equal(four_wsilu_(x.clone()) / 4, WSiLU()(x))


@pytest.mark.parametrize("groups", [1, 16])
def test_a_quarter_of_the_weights_takes_it_back_to_the_last_bit(groups):
    """Whatever kernel: each product and each sum is that of a power of 2 less."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 9, 11)
    conv = nn.Conv2d(16, 16, 3, padding=1, groups=groups)
    with torch.no_grad():
        plain = conv(WSiLU()(x))
        bias = conv.bias
        folded = F.conv2d(four_wsilu_(x), conv.weight / 4, bias, 1, 1, 1, groups)
    assert torch.equal(plain, folded)


def test_both_activations_are_one_function():
    x = torch.linspace(-9, 9, 999)
    newer = WSiLU()(x)
    KERNELS.generation = 0
    torch.testing.assert_close(WSiLU()(x), newer, rtol=1e-6, atol=1e-7)


def test_half_precision_does_not_overflow_before_its_limit():
    x = torch.tensor([-60000.0, 60000.0], dtype=torch.float16)
    assert WSiLU()(x).tolist() == [0.0, 60000.0]


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize(("inputs", "side"), [(32, 7), (24, 7), (32, 1)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_block_gives_the_same_with_and_without_gradients(
    shortcut, inputs, side, order
):
    torch.manual_seed(0)
    block = DepthConvBlock(inputs, 32, shortcut=shortcut)
    x = torch.randn(2, inputs, side, side).to(memory_format=order)
    kept = x.clone()
    trained = block(x)
    with torch.no_grad():
        coded = block(x)
        KERNELS.generation = 0
        before = block(x)
    torch.testing.assert_close(coded, trained, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(before, trained, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, kept)
