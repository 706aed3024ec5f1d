"""What networks of two or more codecs share: an upsampling, digits, fast products."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.numerics import KERNELS

MACS_OF_ONEDNN = 1 << 23
"""Of a product, from which oneDNN is the faster one on one thread of a processor with
AVX-512: 0.50 to 0.70 of MKL's time on AMD's. Below it, its start costs more.

Streams of generation 1 depend on it: another number would be another generation."""

HAS_ONEDNN = torch.backends.mkldnn.is_available()
"""A torch without it takes it for enabled all the same. Headers say that it was not
used, and decoders switch it off: neither may change what is chosen."""


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is in float64.

    Rounding and probabilities need more digits than half precision has. In float32
    nothing is on autocast's list, so what follows stays float32.
    """
    return x if x.dtype == torch.float64 else x.float()


def is_quick(x: Tensor) -> bool:
    """Say whether networks choose what is fastest on a CPU without gradients.

    A decoder chooses as its encoder did: it depends on what a stream's header says,
    and on what is the same on both sides.
    """
    return _has_newer_kernels(x) and not torch.is_grad_enabled()


def _has_newer_kernels(x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and KERNELS.generation > 0
        and HAS_ONEDNN
        and bool(torch.backends.mkldnn.enabled)
    )


def channels_last(x: Tensor) -> Tensor:
    """Return a copy of (B, C, H, W) with its channels last in memory, if quick.

    Always a copy: with one position or one channel several strides mean the same, and
    kernels are chosen by them.
    """
    if not is_quick(x):
        return x
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (B, C, H, W) by 1x1 with the fastest kernel that torch has.

    On one thread torch takes MKL's product for it. A dilation changes nothing about a
    kernel of one tap, but with it torch takes oneDNN.

    Args:
        x: Input.
        weight: (N, C, 1, 1).
        bias: (N,).
    """
    if not _has_newer_kernels(x):
        return F.conv2d(x, weight, bias)
    if x.numel() * len(weight) >= MACS_OF_ONEDNN:
        return F.conv2d(x, weight, bias, dilation=2)
    if x.is_contiguous():
        return F.conv2d(x, weight, bias)
    # Channels that are last stay there. As a matrix: with more dimensions the kernel
    # depends on whether weights want a gradient, which an encoder's may.
    batch, _, height, width = x.shape
    y = F.linear(x.permute(0, 2, 3, 1).flatten(0, 2), weight.flatten(1), bias)
    return y.view(batch, height, width, -1).permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, by :func:`pointwise`.

    Args:
        inputs: Channels that come in.
        channels: Channels that go out.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, channels, H, W)."""
        return pointwise(x, self.weight, self.bias)


class Dense(nn.Linear):
    """A linear layer; large ones by oneDNN, as :func:`pointwise` says."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if not _has_newer_kernels(x):
            return super().forward(x)
        if x.numel() * self.out_features < MACS_OF_ONEDNN:
            # As a matrix, for the reason that :func:`pointwise` has.
            y = F.linear(x.reshape(-1, self.in_features), self.weight, self.bias)
        else:
            rows = x.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
            y = F.conv2d(rows, self.weight[..., None, None], self.bias, dilation=2)
            y = y.permute(0, 2, 3, 1)
        return y.reshape(*x.shape[:-1], self.out_features)


class SubpelUp(nn.Sequential):
    """Double both sides: a convolution to 4 c channels, then a pixel shuffle."""

    def __init__(self, inputs: int, channels: int, kernel: int = 1) -> None:
        super().__init__(
            Pointwise(inputs, 4 * channels)
            if kernel == 1
            else nn.Conv2d(inputs, 4 * channels, kernel, padding=kernel // 2),
            nn.PixelShuffle(2),
        )
