"""Bits that symbols would cost, and quantisers with useful gradients."""

from math import log, pi, prod, sqrt
from typing import Any

import torch
from torch import Tensor

MASK = (1 << 32) - 1
SMALL_MASS = 1e-6


def ste_round(x: Tensor) -> Tensor:
    """Round to whole numbers; the gradient passes as if nothing had happened."""
    return x + (x.round() - x).detach()


def uniform_noise(like: Tensor, seeds: Tensor, stream: int) -> Tensor:
    """Draw noise that depends on a sample's seed and on nothing else.

    It is a hash of seed, stream and position in the sample, so that batch, rank,
    device and resume change nothing.

    Args:
        like: (B, ...), gives shape and device.
        seeds: (B,), int64, one per sample.
        stream: Number from 0 to 2^32 - 1 that tells draws for one sample apart.

    Returns:
        Of the shape of ``like``, float32, in [-0.5, 0.5).

    Raises:
        ValueError: There is not one seed per sample, or the stream is out of range.
    """
    if seeds.shape != like.shape[:1] or not 0 <= stream <= MASK:
        raise ValueError(
            f"noise of shape {tuple(like.shape)} needs {like.shape[0]} seeds, got "
            f"{tuple(seeds.shape)}, and a stream from 0 to 2^32 - 1, got {stream}"
        )
    seeds = seeds.to(device=like.device, dtype=torch.int64)
    key = _mix(_mix(_mix(seeds & MASK) ^ (seeds >> 32 & MASK)) ^ stream)[:, None]
    # Spread over all bits: neighbours that differ in one bit would come out alike.
    position = torch.arange(prod(like.shape[1:]), device=like.device)
    position = position * 0x61C88647 & MASK
    # Two keys: with one, all samples would be shuffled parts of one sequence.
    hashed = _mix(position ^ key, _mix(key ^ 0x5BF03635))
    # 24 bits: what float32 holds exactly, or 0.5 itself could come out.
    return ((hashed >> 8).float() * 2.0**-24 - 0.5).view(like.shape)


def _mix(x: Tensor, key: Tensor | int = 0) -> Tensor:
    """Hash 32-bit numbers, held in int64 where no product overflows."""
    x = (x ^ (x >> 16)).mul_(0x7FEB352D).add_(key).bitwise_and_(MASK)
    x.bitwise_xor_(x >> 15).mul_(0x45D9F3B5).bitwise_and_(MASK)
    return x.bitwise_xor_(x >> 16)


class _LowerBound(torch.autograd.Function):
    """max(x, bound) that lets a gradient pass below the bound if it raises x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """Return max(x, bound), with a gradient wherever descent would raise x."""
    bounded: Tensor = _LowerBound.apply(x, bound)
    return bounded


def gaussian_bits(
    values: Tensor, scales: Tensor, min_scale: float = 0.11, min_mass: float = 1e-9
) -> Tensor:
    """Estimate what zero-mean values cost, in bits, element by element.

    Args:
        values: Any shape, what is coded (rounded or with noise) less its mean.
        scales: Of the same shape, standard deviations, used at ``min_scale`` or more.
        min_scale: Smallest standard deviation.
        min_mass: Smallest probability; no element costs more than its -log2.

    Returns:
        float32, >= 0, of the shape of ``values``.

    Source: the mass of [v - 1/2, v + 1/2], arXiv 1802.01436, section 3.
    """
    # In float32 nothing here is on autocast's list, so it stays float32.
    mass = _mass(values.float(), lower_bound(scales.float(), min_scale))
    return -torch.log2(lower_bound(mass, min_mass))


def _mass(values: Tensor, sigma: Tensor) -> Tensor:
    """Return the mass of [v - 1/2, v + 1/2] of zero-mean Gaussians."""
    spread = sigma * sqrt(2)
    # Both ends in the half where erfc is accurate: 1 - small would lose it.
    distance = values.abs()
    nearer = torch.erfc((distance - 0.5) / spread)
    farther = torch.erfc((distance + 0.5) / spread)
    return 0.5 * (nearer - farther)


def training_bits(values: Tensor, sigma: Tensor) -> Tensor:
    """Estimate what values with noise cost, in bits, element by element.

    The mass of [v - 1/2, v + 1/2]; below 1e-6 the density instead, whose gradient does
    not vanish however far a value lies from 0.

    Args:
        values: Any shape, less their mean.
        sigma: Of the same shape.

    Source: arXiv 2410.02598, equation 14; the switch to the density is QARV's.
    """
    mass = _mass(values, sigma)
    log_density = -0.5 * (values / sigma).square() - sigma.log() - 0.5 * log(2 * pi)
    log_mass = mass.clamp_min(SMALL_MASS).log()
    return torch.where(mass > SMALL_MASS, log_mass, log_density) / -log(2)
