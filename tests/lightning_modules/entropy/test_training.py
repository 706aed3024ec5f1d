import math

import pytest
import torch

from lightning_modules.entropy.estimates import (
    gaussian_bits,
    lower_bound,
    ste_round,
    uniform_noise,
)


def test_rounding_is_exact_and_passes_gradients():
    x = torch.linspace(-300, 300, 9999, requires_grad=True)
    rounded = ste_round(x)
    assert torch.equal(rounded, x.detach().round())
    (rounded * torch.arange(9999.0)).sum().backward()
    assert torch.equal(x.grad, torch.arange(9999.0))


def test_noise_is_uniform_and_uncorrelated():
    like = torch.empty(16, 1 << 16)
    noise = uniform_noise(like, torch.arange(16), 0)
    assert noise.dtype == torch.float32
    assert -0.5 <= noise.min() and noise.max() < 0.5
    histogram = torch.histc(noise, 256, -0.5, 0.5)
    expected = noise.numel() / 256
    chi_square = ((histogram - expected) ** 2 / expected).sum()
    assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)

    other = uniform_noise(like, torch.arange(16), 1)
    pairs = [(noise[:, lag:], noise[:, :-lag]) for lag in (1, 2, 3, 16, 64, 256, 4096)]
    pairs += [(noise[1:], noise[:-1]), (noise, other), (noise[:, ::2], other[:, 1::2])]
    for a, b in pairs:
        correlation = 12 * (a * b).mean() * math.sqrt(a.numel())
        assert abs(correlation) < 4.5


def test_neighbours_share_nothing():
    # Millions of pairs: a hash that mixes less passes every test of correlation.
    noise = uniform_noise(torch.empty(4096, 1024), torch.arange(4096), 0)
    cells = ((noise + 0.5) * 64).long()
    for a, b in (
        *((cells[:, lag:], cells[:, :-lag]) for lag in (1, 2, 32)),
        (cells[1:], cells[:-1]),
    ):
        joint = torch.bincount((a * 64 + b).flatten(), minlength=4096)
        expected = joint.sum() / 4096
        chi_square = ((joint - expected) ** 2 / expected).sum()
        assert abs(chi_square - 4095) < 5 * math.sqrt(2 * 4095)


def test_every_bit_of_a_seed_and_a_stream_changes_half_of_the_bits():
    like = torch.empty(1, 4096)

    def bits(seed, stream):
        noise = uniform_noise(like, torch.tensor([seed]), stream)
        return ((noise + 0.5) * 2**24).long()

    reference = bits(0, 0)
    changed = [bits(1 << bit, 0) for bit in range(63)] + [bits(-1, 0)]
    changed += [bits(0, 1 << bit) for bit in range(32)]
    for other in changed:
        flips = reference ^ other
        share = sum((flips >> bit & 1).float().mean() for bit in range(24)) / 24
        assert abs(share - 0.5) < 0.01


def test_noise_depends_on_a_samples_own_seed_only():
    seeds = torch.tensor([7, -3, 2**62, 7])
    whole = uniform_noise(torch.empty(4, 3, 5, 7), seeds, 2)
    assert torch.equal(whole[0], whole[3])
    for index in range(4):
        alone = uniform_noise(torch.empty(1, 3, 5, 7), seeds[index : index + 1], 2)
        assert torch.equal(alone[0], whole[index])
    assert not torch.equal(whole[0], whole[1])
    assert torch.equal(
        uniform_noise(torch.empty(0, 3), seeds[:0], 0), torch.empty(0, 3)
    )


def test_noise_keeps_its_values():
    # A resumed run must draw what it would have drawn.
    noise = uniform_noise(torch.empty(1, 4), torch.tensor([1234567890123]), 3)
    assert (noise * 2**24).long().tolist() == [[-637347, 3824662, 1230835, -587688]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_noise_is_the_same_on_every_device():
    like, seeds = torch.empty(3, 50_000), torch.tensor([5, -1, 2**40])
    there = uniform_noise(like.cuda(), seeds, 9)
    assert torch.equal(there.cpu(), uniform_noise(like, seeds, 9))


def test_noise_without_its_seeds_is_refused():
    for seeds, stream in (
        (torch.zeros(2), 0),
        (torch.zeros(3, 1), 0),
        (torch.zeros(3), -1),
    ):
        with pytest.raises(ValueError, match="seeds"):
            uniform_noise(torch.empty(3, 8), seeds, stream)


def test_bits_are_those_of_the_tables():
    scales = torch.exp(
        torch.linspace(math.log(0.11), math.log(16), 128)
    ).repeat_interleave(17)
    values = torch.arange(-8.0, 9.0).repeat(128)
    bits = gaussian_bits(values, scales).double()
    root = math.sqrt(2)
    for value, scale, bit in zip(values, scales, bits, strict=True):
        near = math.erfc((abs(value) - 0.5) / scale / root)
        far = math.erfc((abs(value) + 0.5) / scale / root)
        expected = -math.log2(max(0.5 * (near - far), 1e-9))
        assert abs(bit - expected) < 1e-4 + 1e-4 * expected


def test_bits_are_never_negative_and_never_infinite():
    values = torch.tensor([0.0, -0.0, 0.3, 1e4, -1e9, 5.0]).requires_grad_()
    for scale in (0.0, -5.0, 1e-6, 0.11, 1e6):
        bits = gaussian_bits(values, torch.full((6,), scale))
        assert (bits >= 0).all() and (bits <= math.log2(1e9) + 1e-3).all()
        assert torch.isfinite(torch.autograd.grad(bits.sum(), values)[0]).all()


def test_bits_stay_in_float32_under_autocast():
    values = torch.randn(1000)
    scales = torch.rand(1000) + 0.1
    expected = gaussian_bits(values, scales)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gaussian_bits(values, scales), expected)
        assert gaussian_bits(values.bfloat16(), scales).dtype == torch.float32


def test_a_scale_below_its_bound_can_still_rise():
    scales = torch.full((2,), 0.05, requires_grad=True)
    gaussian_bits(torch.tensor([0.0, 1.0]), scales).sum().backward()
    # 0 would cost less with a smaller scale: no. 1 would with a larger one: yes.
    assert scales.grad[0] == 0
    assert scales.grad[1] < 0


def test_a_lower_bound_holds_and_lets_gradients_out_only_upwards():
    x = torch.tensor([-1.0, -1.0, 2.0, 2.0], requires_grad=True)
    y = lower_bound(x, 0.5)
    assert y.tolist() == [0.5, 0.5, 2.0, 2.0]
    y.backward(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    assert x.grad.tolist() == [0.0, -1.0, 1.0, -1.0]
