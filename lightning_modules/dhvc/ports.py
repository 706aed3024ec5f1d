"""Where a scale's symbols go: into an estimate, into bytes, or out of bytes.

The network walks through a scale once, whatever the purpose, and hands each residual
to a port, so that encoder, decoder and training cannot drift apart.
"""

from typing import Protocol

import torch
from torch import Tensor

from lightning_modules.dhvc.entropy_model import SIGMA_LEVELS
from lightning_modules.entropy.estimates import (
    gaussian_bits,
    ste_round,
    training_bits,
    uniform_noise,
)
from lightning_modules.entropy.symbols import SymbolDecoder, SymbolEncoder, to_symbols
from lightning_modules.entropy.tables import CdfTables


class Port(Protocol):
    """What a latent block needs; the residual is ``None`` when decoding."""

    def code(self, residual: Tensor | None, sigma: Tensor) -> Tensor:
        """Take mu - mean (float32) and return what is added to the mean."""
        ...


class EstimatePort:
    """Counts bits per sample; differentiable in training.

    Args:
        seeds: (B,) sample seeds, which make the noise of the rate; ``None`` estimates
            from the rounded values instead.
        stream: First of the noise streams of this scale.
    """

    def __init__(self, seeds: Tensor | None, stream: int = 0) -> None:
        self.seeds = seeds
        self.stream = stream
        self.bits: Tensor | float = 0.0

    def code(self, residual: Tensor | None, sigma: Tensor) -> Tensor:
        """Round the residual (straight through) and add its bits."""
        assert residual is not None
        rounded = ste_round(residual)
        if self.seeds is None:
            bits = gaussian_bits(rounded, sigma)
        else:
            noise = uniform_noise(residual, self.seeds, self.stream)
            bits = training_bits(residual + noise, sigma)
        self.stream += 1
        self.bits = self.bits + bits.flatten(1).sum(1)
        return rounded


class EncodePort:
    """Writes one sample's symbols into an encoder, in raster order, channel-major.

    Args:
        tables: Of ``SIGMA_LEVELS``.
        estimate: Whether to add up the model's estimate in ``bits`` too.
    """

    def __init__(self, tables: CdfTables, estimate: bool) -> None:
        self.encoder = SymbolEncoder()
        self.tables = tables
        self.estimate = estimate
        self.bits = 0.0

    def code(self, residual: Tensor | None, sigma: Tensor) -> Tensor:
        """Write the residual.

        Raises:
            OverflowingError: It is not finite.
        """
        assert residual is not None
        rounded = residual.round()
        if self.estimate:
            self.bits += float(gaussian_bits(rounded, sigma).sum())
        symbols = to_symbols(rounded.flatten())
        indices = SIGMA_LEVELS.indices(sigma).flatten().cpu().numpy()
        self.encoder.push(symbols, indices, self.tables)
        return rounded


class DecodePort:
    """Reads one sample's symbols from a decoder.

    Args:
        decoder: Gives the symbols.
        tables: As the encoder's.
    """

    def __init__(self, decoder: SymbolDecoder, tables: CdfTables) -> None:
        self.decoder = decoder
        self.tables = tables

    def code(self, residual: Tensor | None, sigma: Tensor) -> Tensor:
        """Read the residual."""
        indices = SIGMA_LEVELS.indices(sigma).flatten().cpu().numpy()
        symbols = torch.from_numpy(self.decoder.pull(indices, self.tables))
        return symbols.to(sigma).reshape(sigma.shape)


class SilentPort:
    """Codes nothing: the latent is the prior's mean.

    For scales that were lost or are left out, and for counting the network alone.
    """

    def code(self, residual: Tensor | None, sigma: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(sigma)
