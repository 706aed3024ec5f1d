import pytest
import torch
import torch.nn.functional as F

from lightning_modules import layers
from lightning_modules.layers import (
    MACS_OF_ONEDNN,
    Dense,
    Pointwise,
    channels_last,
    is_quick,
)
from lightning_modules.numerics import KERNELS, current, recreated

LARGE, SMALL = (1, 256, 16, 16), (2, 8, 5, 3)
NEAR = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def older(monkeypatch):
    monkeypatch.setattr(KERNELS, "generation", 0)


@pytest.mark.parametrize("shape", [LARGE, SMALL])
@pytest.mark.parametrize("last", [False, True])
def test_a_1x1_convolution_is_one_whatever_computes_it(shape, last):
    layer, x = Pointwise(shape[1], 128), torch.randn(shape)
    wanted = F.conv2d(x.double(), layer.weight.double(), layer.bias.double()).float()
    x = x.to(memory_format=torch.channels_last) if last else x
    x.requires_grad_()
    torch.testing.assert_close(layer(x), wanted, **NEAR)
    layer(x).sum().backward()
    expected = layer.weight.sum(0)[None].expand_as(x)
    torch.testing.assert_close(x.grad, expected.detach(), **NEAR)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), wanted, **NEAR)


@pytest.mark.parametrize("tokens", [(1, 2, 16, 16), (3,), ()])
def test_a_linear_layer_is_one_whatever_computes_it(tokens):
    layer, x = Dense(256, 128, bias=len(tokens) > 1), torch.randn(*tokens, 256)
    bias = None if layer.bias is None else layer.bias.double()
    wanted = F.linear(x.double(), layer.weight.double(), bias).float()
    assert layer(x).shape == (*tokens, 128)
    torch.testing.assert_close(layer(x), wanted, **NEAR)


@pytest.mark.parametrize("make", [lambda: Pointwise(32, 64), lambda: Dense(32, 64)])
def test_weights_that_want_a_gradient_are_computed_with_as_others(make):
    layer = make()
    # A part of a larger one, as what is cropped.
    x = torch.randn((1, 4, 4, 32))[:, :, :3]
    x = x if isinstance(layer, Dense) else x.permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanting = layer(x)
        layer.requires_grad_(False)
        assert torch.equal(layer(x), wanting)


def kernels_of(function):
    with torch.profiler.profile() as profile:
        function()
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("large", [True, False])
def test_large_products_are_onednns_on_one_thread_too(large, monkeypatch):
    shape = LARGE if large else SMALL
    layer, x = Pointwise(shape[1], 256), torch.randn(shape)
    assert (x.numel() * 256 >= MACS_OF_ONEDNN) == large
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = kernels_of(lambda: layer(x))
        monkeypatch.setattr(KERNELS, "generation", 0)
        before = kernels_of(lambda: layer(x))
    finally:
        torch.set_num_threads(threads)
    assert ("aten::mkldnn_convolution" in found) == large
    assert "aten::mkldnn_convolution" not in before


def test_the_order_in_memory_is_one_where_several_mean_the_same():
    decoded, encoded = (
        torch.rand(1, 8, 1, 1),
        torch.rand(1, 1, 1, 8).permute(0, 3, 1, 2),
    )
    assert decoded.stride() != encoded.stride()
    with torch.no_grad():
        found = [channels_last(x).stride() for x in (decoded, encoded)]
    assert found[0] == found[1]


def test_old_kernels_gradients_and_other_types_are_not_quick(older):
    x = torch.rand(1, 2, 3, 3)
    with torch.no_grad():
        assert not is_quick(x) and channels_last(x) is x
        KERNELS.generation = 1
        assert is_quick(x) and not is_quick(x.double())
    assert not is_quick(x)


def test_a_torch_without_onednn_codes_as_its_header_says(monkeypatch):
    """It takes its switch for on, but a decoder is told that it is off."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(layers, "HAS_ONEDNN", False)
    assert torch.backends.mkldnn.enabled
    layer, x = Pointwise(LARGE[1], 256), torch.randn(LARGE)
    with torch.no_grad():
        chosen = is_quick(x), channels_last(x).stride(), layer(x)
        with recreated(current()):
            assert not torch.backends.mkldnn.enabled
            again = is_quick(x), channels_last(x).stride(), layer(x)
    assert chosen[:2] == again[:2] and torch.equal(chosen[2], again[2])
