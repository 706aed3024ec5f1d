"""DHVC's entropy model: sigma, bits in training, tables, estimate against bytes."""

import math

import numpy as np
import pytest
import torch

from lightning_modules.dhvc.entropy_model import (
    SIGMA_LEVELS,
    sigma_tables,
    split_prior,
)
from lightning_modules.entropy.estimates import gaussian_bits, training_bits
from lightning_modules.entropy.symbols import SymbolDecoder, SymbolEncoder


def test_sigma_stays_within_the_tables_and_its_gradient_alive():
    raw = torch.tensor([-1e3, -5.0, 0.0, 3.0, 100.0]).view(1, 5, 1, 1)
    parameters = torch.cat([raw, raw], dim=1).requires_grad_()
    mean, sigma = split_prior(parameters)
    assert torch.equal(mean, raw)
    middle = math.exp(math.log(1 + math.exp(2.3)) - 2.3)
    assert sigma.flatten()[[0, 2, 4]].tolist() == pytest.approx(
        [SIGMA_LEVELS.low, middle, SIGMA_LEVELS.high], rel=1e-5
    )
    for sign in (1.0, -1.0):
        parameters.grad = None
        (sign * split_prior(parameters)[1]).sum().backward()
        slope = parameters.grad[0, 5:].flatten()
        # Descent lowers what is too large, and raises what is too small.
        assert bool(slope[-1] != 0) == (sign > 0)
        assert bool(slope[1] != 0) == (sign < 0)
        assert slope[2:4].all()
    assert split_prior(parameters.bfloat16())[1].dtype == torch.float32


def test_training_bits_are_those_of_the_mass_and_never_flat():
    values = torch.linspace(-6, 6, 49)
    sigma = torch.tensor([0.5, 1.0, 4.0])[:, None].expand(-1, 49)
    exact = gaussian_bits(values.expand(3, -1), sigma, min_mass=1e-30)
    found = training_bits(values.expand(3, -1), sigma)
    near = exact < 19
    torch.testing.assert_close(found[near], exact[near], rtol=1e-4, atol=1e-4)
    density = math.exp(-0.5 * 7.5**2) / (4.0 * math.sqrt(2 * math.pi))
    assert float(training_bits(torch.tensor(30.0), torch.tensor(4.0))) == pytest.approx(
        -math.log2(density), rel=1e-5
    )
    far = torch.tensor([30.0, 1e3, 1e4], requires_grad=True)
    training_bits(far, torch.ones(3)).sum().backward()
    assert far.grad.isfinite().all() and (far.grad > 1).all()
    flat = torch.tensor([30.0, 1e3, 1e4], requires_grad=True)
    gaussian_bits(flat, torch.ones(3)).sum().backward()
    assert not flat.grad[1:].any()


def test_the_tables_cost_what_is_estimated_at_every_sigma():
    generator = torch.Generator().manual_seed(1)
    for sigma in (0.11, 0.3, 1.0, 5.0, 19.0, 21.0, 80.0, 256.0):
        scales = torch.full((20000,), sigma)
        values = torch.randn(20000, generator=generator).mul(sigma).round()
        indices = SIGMA_LEVELS.indices(scales).numpy()
        encoder = SymbolEncoder()
        encoder.push(values.numpy().astype(np.int32), indices, sigma_tables())
        data = encoder.finish()
        estimate = float(gaussian_bits(values, scales).sum())
        assert 8 * len(data) == pytest.approx(estimate, rel=0.01, abs=64)
        decoded = SymbolDecoder(data).pull(indices, sigma_tables())
        assert np.array_equal(decoded, values.numpy())
    assert len(sigma_tables()) == SIGMA_LEVELS.count


def test_real_bytes_are_the_estimated_ones_and_a_few(dhvc):
    codec = dhvc.lively(gain=0.05, auxiliary=False)
    clip = dhvc.scene(2, 256, 256)
    groups, _ = dhvc.coded(codec, clip)
    with torch.inference_mode():
        out = codec(clip[None], torch.tensor([2048.0]))
    for number, name in enumerate(out.parts):
        for frame, group in enumerate(groups):
            packet = group[number]
            estimate = float(out.parts[name][0, frame])
            assert packet.estimated_bits == pytest.approx(estimate, rel=1e-3, abs=0.5)
            spent = 8 * len(packet.payload)
            # Head, lambda and what a coder rounds up to.
            assert abs(spent - estimate) < 0.01 * estimate + 80
    assert list(out.parts) == ["scale1", "scale2", "scale3", "scale4"]
    torch.testing.assert_close(sum(out.parts.values()), out.bits)
    assert 2000 < float(out.bits[0, 0])
