"""CompressAI's entropy models behind our ports, coder and integer tables.

Source: arXiv 1802.01436, section 6.1 (the bottleneck) and section 3.
"""

from functools import cache

import torch
from torch import Tensor
from torch.func import functional_call

from lightning_modules.compressai import EntropyBottleneck, GaussianConditional
from lightning_modules.entropy.lasting import lasting
from lightning_modules.entropy.priors import HyperPrior


class _Cumulative(EntropyBottleneck):  # type: ignore[misc]
    """The bottleneck's distribution, without what only its own coder needs.

    Its quantiles are no weights: nothing here asks for them, and a weight without a
    gradient stops training on several devices. Its tables are no part of a checkpoint:
    their sizes change.
    """

    def __init__(self, channels: int) -> None:
        # The bound on likelihoods is HyperPrior's.
        super().__init__(channels, likelihood_bound=0)
        quantiles = self.quantiles.detach()
        del self.quantiles
        self.register_buffer("quantiles", quantiles)
        for name, value in list(self.named_buffers()):
            self.register_buffer(name, value, persistent=False)
        # Its constructor overlooks what device a caller builds on.
        self.to(torch.get_default_device())

    def forward(self, x: Tensor) -> Tensor:
        """Return the cumulative distribution's logits at x (C, 1, n)."""
        logits: Tensor = self._logits_cumulative(x, stop_gradient=False)
        return logits


class BottleneckPrior(HyperPrior):
    """The distribution of CompressAI's ``EntropyBottleneck``, one per channel.

    Five layers with three units each between them. Parameters, their first values and
    the cumulative distribution are CompressAI's. The mass of a number is not: as a
    difference of sigmoids it is 0 in float32 some numbers away from the mode, and has
    no gradient there.

    Args:
        channels: Channels of z.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)
        self.bottleneck = _Cumulative(channels)

    @property
    def like(self) -> Tensor:
        """A parameter: says device and dtype."""
        matrix: Tensor = self.bottleneck.matrices[0]
        return matrix

    def logits(self, x: Tensor, row: Tensor) -> Tensor:
        """Return the logits of P(Z < x), of the shape of x (B, C, ...)."""
        weights = {
            name: weight.to(x.dtype)
            for name, weight in self.bottleneck.named_parameters()
        }
        by_channel = x.transpose(0, 1)
        flat = by_channel.reshape(self.channels, 1, -1)
        logits: Tensor = functional_call(self.bottleneck, weights, (flat,))
        return logits.reshape(by_channel.shape).transpose(0, 1)


class _Likelihood(GaussianConditional):  # type: ignore[misc]
    """The conditional's likelihoods of values that a port has rounded already."""

    def quantize(
        self, inputs: Tensor, mode: str, means: Tensor | None = None
    ) -> Tensor:
        """Return values as they are."""
        return inputs


@cache
@lasting()
def _likelihood(device: torch.device) -> _Likelihood:
    return _Likelihood(None).to(device)


def conditional_bits(values: Tensor, scales: Tensor) -> Tensor:
    """Estimate what zero-mean values cost, in bits, by CompressAI's conditional.

    Args:
        values: Any shape, what is coded (rounded or with noise) less its mean.
        scales: Of the same shape, standard deviations, used at 0.11 or more.

    Returns:
        float32, from 0 to 29.9, of the shape of ``values``; those of
        :func:`~lightning_modules.entropy.estimates.gaussian_bits` but for rounding.
    """
    # In float32 nothing here is on autocast's list, so it stays float32.
    _, likelihood = _likelihood(values.device)(values.float(), scales.float())
    return -torch.log2(likelihood)
