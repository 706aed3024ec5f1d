"""CompressAI's parts and ours: equal where both exist, ours where theirs fall short."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from lightning_modules.compressai import (
    EntropyBottleneck,
    GaussianConditional,
    subpel_conv3x3,
)
from lightning_modules.dual_domain.transforms import ResidualBlock, up
from lightning_modules.entropy.bottleneck import BottleneckPrior, conditional_bits
from lightning_modules.entropy.distributions import Factorised
from lightning_modules.entropy.estimates import gaussian_bits, lower_bound, ste_round
from lightning_modules.entropy.ports import DecodePort, EncodePort, EstimatePort
from lightning_modules.entropy.priors import FactorisedPrior
from lightning_modules.entropy.symbols import SymbolDecoder
from lightning_modules.entropy.z_prior import build_prior
from lightning_modules.layers import SubpelUp

CHANNELS = 4
FORMS = ("bottleneck", "scalar")


def shaken(prior):
    """Give a prior's channels other distributions, none of them symmetric."""
    generator = torch.Generator().manual_seed(7)
    for weight in prior.parameters():
        weight.data += 0.5 * torch.randn(weight.shape, generator=generator)
    return prior


def theirs(prior):
    """Return CompressAI's bottleneck of the same distribution."""
    if isinstance(prior, BottleneckPrior):
        found = EntropyBottleneck(CHANNELS)
        state = prior.bottleneck.state_dict()
    else:
        found = EntropyBottleneck(CHANNELS, filters=(1, 1, 1))
        named = {"matrices": prior.h, "biases": prior.b, "factors": prior.a}
        state = {
            f"{name}.{layer}": weight.detach()[0, :, None, None]
            for name, weights in named.items()
            for layer, weight in enumerate(weights)
        }
    lacking, unexpected = found.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [n for n in lacking if n.startswith(("matrices", "biases", "factors"))]
    return found.eval()


@pytest.fixture(params=FORMS)
def prior(request):
    return shaken(build_prior(request.param, CHANNELS))


@pytest.mark.parametrize("shape", [(2, CHANNELS, 3, 5), (2, CHANNELS, 3, 2, 5)])
def test_a_prior_is_compressais_with_the_same_weights(prior, shape):
    z = (2 * torch.randn(shape)).round()
    _, likelihood = theirs(prior)(z)
    bits = prior.bits(z)
    torch.testing.assert_close(torch.exp2(-bits), likelihood, rtol=0, atol=1e-6)
    likely = likelihood > 0.01
    assert likely.float().mean() > 0.4
    difference = (bits + torch.log2(likelihood))[likely]
    assert difference.abs().max() < 3e-5


def test_the_bits_are_those_of_float64(prior):
    """Theirs are not: a difference of float32 sigmoids keeps too few digits."""
    z = torch.arange(-127.0, 128.0).expand(1, CHANNELS, -1)
    row = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        ends = (prior.logits(z.double() + side, row) for side in (-0.5, 0.5))
        lower, upper = ends
        sign = torch.where(lower + upper > 0, -1.0, 1.0)
        mass = ((sign * upper).sigmoid() - (sign * lower).sigmoid()).abs()
        exact = -mass.clamp_min(1e-9).log2()
        torch.testing.assert_close(prior.bits(z).double(), exact, rtol=1e-5, atol=1e-4)


def test_the_same_symbols_are_coded_as_by_compressai(prior):
    z = (3 * torch.randn(1, CHANNELS, 40, 50)).clamp(-127, 127)
    port = EncodePort({"z": prior.tables()}, estimate=True)
    of = Factorised(prior, tuple(z.shape))
    with torch.no_grad():
        coded = port.code(z, of)
    stream = port.encoder.finish()
    decoded = DecodePort(SymbolDecoder(stream), port.tables).code(None, of)
    bottleneck = theirs(prior)
    bottleneck.update(force=True, update_quantiles=True)
    # Its symbols count from the median's whole number, ours from 0.
    bottleneck.quantiles.data.round_()
    bottleneck.update(force=True)
    strings = bottleneck.compress(z)
    assert torch.equal(bottleneck.decompress(strings, z.shape[2:]), decoded)
    assert torch.equal(coded, decoded) and torch.equal(coded, z.round())
    assert 8 * len(stream) == pytest.approx(port.bits, rel=0.01)
    assert len(stream) < 1.005 * len(strings[0])


def narrow(form):
    """Return a prior whose mass is within some numbers of 0, in its last row."""
    prior = FactorisedPrior(3, 1) if form == "rows" else build_prior(form, 1)
    if isinstance(prior, BottleneckPrior):
        prior.bottleneck.matrices[-1].data += 20.0
        prior.bottleneck.biases[-1].data.zero_()
    else:
        prior.h.data[-1, -1] += 12.0
    return prior, torch.tensor([prior.rows - 1])


@pytest.mark.parametrize("form", [*FORMS, "rows"])
@pytest.mark.parametrize("distance", [7.0, 20.0, 100.0, 1000.0])
def test_what_lies_far_out_is_pulled_back(form, distance):
    prior, row = narrow(form)
    for side in (-1, 1):
        z = torch.full((1, 1, 1, 1), side * distance, requires_grad=True)
        port = EstimatePort(torch.tensor([3]))
        port.code(z, Factorised(prior, (1, 1, 1, 1), row=row))
        assert 19.9 < port.bits.item() < 29.9
        wanted = [z, *prior.parameters()]
        found, *others = torch.autograd.grad(port.bits.sum(), wanted)
        assert side * float(found) > 1.0
        assert sum(float(g.abs().sum()) for g in others) > 1.0


def test_compressais_own_likelihood_does_not_pull_it_back():
    prior, _ = narrow("bottleneck")
    z = torch.full((1, 1, 1, 1), 20.0, requires_grad=True)
    theirs_ = EntropyBottleneck(1)
    theirs_.load_state_dict(prior.bottleneck.state_dict(), strict=False)
    _, likelihood = theirs_.eval()(z)
    likelihood.log2().sum().backward()
    assert float(z.grad) == 0.0


def test_a_hole_in_a_distribution_costs_a_finite_number_of_bits():
    prior = FactorisedPrior(1, 1)
    # A slope of 0 in the middle.
    prior.a.data[0], prior.b.data[0] = -60.0, 0.0
    prior.h.data[0] = -30.0
    z = torch.zeros(1, 1, 1, 1, requires_grad=True)
    bits = prior.bits(z).sum()
    bits.backward()
    assert 20 < bits.item() < 30 and z.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in prior.parameters())


def test_a_bottleneck_has_no_weight_that_does_not_train():
    prior = BottleneckPrior(CHANNELS)
    prior.bits(torch.randn(2, CHANNELS, 3, 3)).sum().backward()
    assert all(p.grad is not None for p in prior.parameters())
    assert sum(p.numel() for p in prior.parameters()) == 58 * CHANNELS
    names = {name.split(".")[1] for name in prior.state_dict()}
    assert names == {"matrices", "biases", "factors"}
    before = {name: p.clone() for name, p in prior.state_dict().items()}
    prior.tables()
    after = prior.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_bottleneck_is_built_where_the_rest_is():
    with torch.device("meta"):
        prior = BottleneckPrior(CHANNELS)
    assert {p.device.type for p in (*prior.parameters(), *prior.buffers())} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_prior_of_another_type_gives_bits_in_float32(prior, dtype):
    z = (2 * torch.randn(1, CHANNELS, 3, 5)).round()
    expected = prior.bits(z)
    found = prior.to(dtype).bits(z.to(dtype))
    assert found.dtype == torch.float32
    tolerance = 1e-4 if dtype == torch.float64 else 0.3
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_bits_are_the_same_under_autocast(prior):
    z = torch.randn(1, CHANNELS, 3, 5)
    expected = prior.bits(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prior.bits(z), expected)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="z_prior 'balle': it is one of"):
        build_prior("balle", 1)


def test_gaussian_bits_are_those_of_compressais_conditional():
    scale = torch.rand(4000) * 6 + 0.02
    values = torch.randn(4000) * 1.5 * scale

    def gradients(function):
        ends = [x.clone().requires_grad_() for x in (values, scale)]
        bits = function(*ends)
        return bits, *torch.autograd.grad(bits.sum(), ends)

    with torch.inference_mode():
        # Its bounds are made once, and must serve training too.
        conditional_bits(values, scale)
    for ours, found in zip(
        gradients(gaussian_bits), gradients(conditional_bits), strict=True
    ):
        torch.testing.assert_close(found, ours, rtol=1e-5, atol=1e-5)
    _, likelihood = GaussianConditional(None)(values.round(), scale, training=False)
    rounded = conditional_bits(values.round(), scale)
    assert torch.equal(rounded, -likelihood.log2())


def test_rounding_and_bounds_are_compressais():
    ops = pytest.importorskip("compressai.ops")
    x = 4 * torch.randn(1000)
    assert torch.equal(ops.quantize_ste(x), ste_round(x))
    weights = torch.randn(1000)

    def gradient(function):
        y = x.clone().requires_grad_()
        (function(y) * weights).sum().backward()
        return y.grad

    for ours, other in (
        (ste_round, ops.quantize_ste),
        (lambda y: lower_bound(y, 0.5), ops.LowerBound(0.5)),
    ):
        assert torch.equal(gradient(ours), gradient(other))
    assert torch.equal(ops.LowerBound(0.5)(x), lower_bound(x, 0.5))


def test_layers_are_compressais_by_copied_weights():
    x = torch.randn(2, 6, 5, 7)
    torch.manual_seed(1)
    ours = SubpelUp(6, 4, 3)
    torch.manual_seed(1)
    found = up(6, 4)
    assert isinstance(found, type(subpel_conv3x3(6, 4, 2)))
    assert ours.state_dict().keys() == found.state_dict().keys()
    assert torch.equal(ours(x), found(x))

    from compressai.models.sensetime import ResidualBottleneckBlock

    block, other = ResidualBlock(6), ResidualBottleneckBlock(6, 6)
    layers = [m for m in other.modules() if isinstance(m, nn.Conv2d)]
    for mine, layer in zip(block.body[::2], layers, strict=True):
        layer.load_state_dict(mine.state_dict())
    assert torch.equal(block(x), other(x))


def test_compressai_is_imported_by_who_builds_with_it():
    program = """
import sys, torch
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.dual_domain.codec import DualDomainCodec
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.video_vae.codec import VideoVAECodec
with torch.device("meta"):
    DHVCCodec("tiny"), UI2CCodec("tiny"), VideoVAECodec("tiny", z_prior="scalar")
    assert "compressai" not in sys.modules
    VideoVAECodec("tiny", z_prior="bottleneck")
assert "compressai" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", program],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
