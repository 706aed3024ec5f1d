"""Where a latent's symbols go: into an estimate, into bytes, or out of bytes.

The network walks through its entropy model once, whatever the purpose, and hands
each residual to a port. Encoder, decoder and training cannot drift apart, because
there is no second copy of the walk.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.entropy.estimates import gaussian_bits, ste_round, uniform_noise
from lightning_modules.entropy.priors import Z_LIMIT, FactorisedPrior
from lightning_modules.entropy.symbols import SymbolDecoder, SymbolEncoder, to_symbols
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.ui2c.entropy_model import scale_indices

RESIDUAL_LOW, RESIDUAL_HIGH = -128.0, 127.0


class Port(Protocol):
    """What the entropy model's walk needs; residuals are ``None`` when decoding."""

    def z(self, z: Tensor | None, prior: FactorisedPrior, row: Tensor) -> Tensor:
        """Code the hyper-latent and return z_hat."""
        ...

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Code the residuals where ``keep`` holds; elsewhere the result is 0."""
        ...


class EstimatePort:
    """Counts bits per sample; differentiable in training.

    Args:
        seeds: (B,) sample seeds, which make the noise of the rate estimate; ``None``
            estimates from the rounded values instead.
        stream: First of the noise streams, so that no two units share noise.
    """

    def __init__(self, seeds: Tensor | None, stream: int = 0) -> None:
        self.seeds = seeds
        self.stream = stream
        self.bits: Tensor | float = 0.0

    def _noisy(self, value: Tensor, rounded: Tensor) -> Tensor:
        if self.seeds is None:
            return rounded
        self.stream += 1
        return value + uniform_noise(value, self.seeds, self.stream)

    def z(self, z: Tensor | None, prior: FactorisedPrior, row: Tensor) -> Tensor:
        """Round z (straight through) and add its bits."""
        assert z is not None
        z = z.clamp(-Z_LIMIT, Z_LIMIT)
        z_hat = ste_round(z)
        bits = prior.bits(self._noisy(z, z_hat), row)
        self.bits = self.bits + bits.flatten(1).sum(1)
        return z_hat

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Round the residual (straight through) and add its bits."""
        assert residual is not None
        residual = residual.clamp(RESIDUAL_LOW, RESIDUAL_HIGH)
        rounded = ste_round(residual)
        bits = gaussian_bits(self._noisy(residual, rounded), scale) * keep
        self.bits = self.bits + bits.flatten(1).sum(1)
        return rounded * keep


class EncodePort:
    """Writes one sample's symbols into an encoder.

    Args:
        encoder: Takes the symbols.
        y_tables: What :func:`scale_indices` points into.
        z_tables: Of the prior that :meth:`z` is called with.
        estimate: Whether to add up the model's estimate in ``bits`` too.
    """

    def __init__(
        self,
        encoder: SymbolEncoder,
        y_tables: CdfTables,
        z_tables: CdfTables,
        estimate: bool = False,
    ) -> None:
        self.encoder = encoder
        self.y_tables = y_tables
        self.z_tables = z_tables
        self.estimate = estimate
        self.bits = 0.0

    def z(self, z: Tensor | None, prior: FactorisedPrior, row: Tensor) -> Tensor:
        """Write z, channel-major."""
        assert z is not None
        z_hat = z.round().clamp(-Z_LIMIT, Z_LIMIT)
        indices = z_indices(z_hat.shape, row)
        if self.estimate:
            self.bits += float(prior.bits(z_hat, row).sum())
        self.encoder.push(to_symbols(z_hat.flatten()), indices, self.z_tables)
        return z_hat

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Write the kept residuals in raster order, channel-major."""
        assert residual is not None
        rounded = residual.clamp(RESIDUAL_LOW, RESIDUAL_HIGH).round() * keep
        indices = scale_indices(scale)[keep].cpu().numpy()
        if self.estimate:
            self.bits += float(gaussian_bits(rounded[keep], scale[keep]).sum())
        self.encoder.push(to_symbols(rounded[keep]), indices, self.y_tables)
        return rounded


class DecodePort:
    """Reads one sample's symbols from a decoder.

    Args:
        decoder: Gives the symbols.
        y_tables: As the encoder's.
        z_tables: As the encoder's.
        z_shape: (1, C, H, W) of z.
    """

    def __init__(
        self,
        decoder: SymbolDecoder,
        y_tables: CdfTables,
        z_tables: CdfTables,
        z_shape: tuple[int, ...],
    ) -> None:
        self.decoder = decoder
        self.y_tables = y_tables
        self.z_tables = z_tables
        self.z_shape = torch.Size(z_shape)

    def z(self, z: Tensor | None, prior: FactorisedPrior, row: Tensor) -> Tensor:
        """Read z."""
        symbols = self.decoder.pull(z_indices(self.z_shape, row), self.z_tables)
        return torch.from_numpy(symbols).to(prior.h).reshape(self.z_shape)

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Read the residuals that were kept."""
        indices = scale_indices(scale)[keep].cpu().numpy()
        symbols = self.decoder.pull(indices, self.y_tables)
        rounded = torch.zeros_like(scale)
        rounded[keep] = torch.from_numpy(symbols).to(scale)
        return rounded


def z_indices(shape: torch.Size, row: Tensor) -> NDArray[np.int32]:
    """Return the table of each element of z (1, C, H, W), channel-major."""
    _, channels, height, width = shape
    first = int(row[0]) * channels
    tables = np.arange(first, first + channels, dtype=np.int32)
    return np.repeat(tables, height * width)


class SilentPort:
    """Codes nothing: for counting and timing the network alone.

    Args:
        z_shape: (1, C, H, W) of z, for a pass that decodes.
    """

    def __init__(self, z_shape: tuple[int, ...]) -> None:
        self.z_shape = z_shape

    def z(self, z: Tensor | None, prior: FactorisedPrior, row: Tensor) -> Tensor:
        """Return z as it is, or zeros."""
        return prior.h.new_zeros(self.z_shape) if z is None else z

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(scale)
