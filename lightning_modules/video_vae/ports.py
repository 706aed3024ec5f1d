"""Where a latent's symbols go: into an estimate, into bytes, or out of bytes.

The entropy model walks through a group of pictures once, whatever the purpose, and
hands each residual to a port, so that encoder, decoder and training cannot drift
apart.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.entropy.estimates import gaussian_bits, ste_round, uniform_noise
from lightning_modules.entropy.priors import Z_LIMIT, FactorisedPrior, ScaleLevels
from lightning_modules.entropy.symbols import SymbolDecoder, SymbolEncoder, to_symbols
from lightning_modules.entropy.tables import CdfTables

Y_LEVELS = ScaleLevels(0.11, 256.0, 64)
"""The field's usual 64 standard deviations (CompressAI's)."""


class Port(Protocol):
    """What the entropy model's walk needs; values are ``None`` when decoding.

    The latent is (B, C, t, h, w) as z, but (B t, C, h, w) as y.
    """

    def z(
        self, z: Tensor | None, prior: FactorisedPrior, shape: tuple[int, ...]
    ) -> Tensor:
        """Code the hyper-latent of a shape and return z_hat."""
        ...

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Code residuals (float32) where ``keep`` (h, w) holds; elsewhere give 0."""
        ...


class EstimatePort:
    """Counts bits per sample; differentiable in training.

    Args:
        no_bits: Zeros, (B,), on the latent's device.
        seeds: (B,), which make the noise of the rate estimate; ``None`` estimates
            from the rounded values instead.
        stream: First of the noise streams, so that no two groups share noise.

    Attributes:
        z_bits: (B,), of the hyper-latent.
        y_bits: (B,), of the latent.
    """

    def __init__(self, no_bits: Tensor, seeds: Tensor | None, stream: int = 0) -> None:
        self.batch = len(no_bits)
        self.seeds = seeds
        self.stream = stream
        self.z_bits = no_bits
        self.y_bits = no_bits

    def _noisy(self, value: Tensor, rounded: Tensor) -> Tensor:
        if self.seeds is None:
            return rounded
        self.stream += 1
        samples = value.reshape(self.batch, -1)
        noise = uniform_noise(samples, self.seeds, self.stream)
        return value + noise.reshape(value.shape)

    def z(
        self, z: Tensor | None, prior: FactorisedPrior, shape: tuple[int, ...]
    ) -> Tensor:
        """Round z (straight through) and add its bits."""
        assert z is not None
        z = z.float().clamp(-Z_LIMIT, Z_LIMIT)
        z_hat = ste_round(z)
        bits = _prior_bits(prior, self._noisy(z, z_hat))
        self.z_bits = self.z_bits + bits.reshape(self.batch, -1).sum(1)
        return z_hat

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Round the residuals (straight through) and add their bits."""
        assert residual is not None
        rounded = ste_round(residual)
        bits = gaussian_bits(self._noisy(residual, rounded), scale) * keep
        self.y_bits = self.y_bits + bits.reshape(self.batch, -1).sum(1)
        return rounded * keep


class EncodePort:
    """Writes the symbols of one group of pictures.

    Args:
        tables: The codec's, ``z`` and ``y``.
        estimate: Whether to add up the model's estimate in ``bits`` too.
    """

    def __init__(self, tables: dict[str, CdfTables], estimate: bool) -> None:
        self.encoder = SymbolEncoder()
        self.tables = tables
        self.estimate = estimate
        self.bits = 0.0

    def z(
        self, z: Tensor | None, prior: FactorisedPrior, shape: tuple[int, ...]
    ) -> Tensor:
        """Write z, channel-major."""
        assert z is not None
        z_hat = z.float().round().clamp(-Z_LIMIT, Z_LIMIT)
        if self.estimate:
            self.bits += float(_prior_bits(prior, z_hat).sum())
        symbols = to_symbols(z_hat.flatten())
        self.encoder.push(symbols, _z_indices(z_hat.shape), self.tables["z"])
        return z_hat

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Write the kept residuals in raster order, time first, then channels."""
        assert residual is not None
        chosen, scales = residual[..., keep].round(), scale[..., keep]
        if self.estimate:
            self.bits += float(gaussian_bits(chosen, scales).sum())
        indices = Y_LEVELS.indices(scales).flatten().cpu().numpy()
        self.encoder.push(to_symbols(chosen.flatten()), indices, self.tables["y"])
        rounded = torch.zeros_like(residual)
        rounded[..., keep] = chosen
        return rounded


class DecodePort:
    """Reads the symbols of one group of pictures.

    Args:
        decoder: Gives them.
        tables: As the encoder's.
    """

    def __init__(self, decoder: SymbolDecoder, tables: dict[str, CdfTables]) -> None:
        self.decoder = decoder
        self.tables = tables

    def z(
        self, z: Tensor | None, prior: FactorisedPrior, shape: tuple[int, ...]
    ) -> Tensor:
        """Read z."""
        symbols = self.decoder.pull(_z_indices(shape), self.tables["z"])
        device = prior.h.device
        return torch.from_numpy(symbols).to(device, torch.float32).reshape(shape)

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Read the residuals that were kept."""
        scales = scale[..., keep]
        indices = Y_LEVELS.indices(scales).flatten().cpu().numpy()
        symbols = torch.from_numpy(self.decoder.pull(indices, self.tables["y"]))
        rounded = torch.zeros_like(scale)
        rounded[..., keep] = symbols.to(scale).reshape(scales.shape)
        return rounded


class SilentPort:
    """Codes nothing: for counting and timing the network alone."""

    def z(
        self, z: Tensor | None, prior: FactorisedPrior, shape: tuple[int, ...]
    ) -> Tensor:
        """Return zeros."""
        return prior.h.new_zeros(shape, dtype=torch.float32)

    def y(self, residual: Tensor | None, scale: Tensor, keep: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(scale)


def _prior_bits(prior: FactorisedPrior, z: Tensor) -> Tensor:
    """Return what each element of z (B, C, t, h, w) costs, (B, C, t h, w)."""
    row = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    return prior.bits(z.flatten(2, 3), row)


def _z_indices(shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the table of each element of z (1, C, t, h, w), channel-major."""
    _, channels, *rest = shape
    tables = np.arange(channels, dtype=np.int32)
    return np.repeat(tables, int(np.prod(rest)))
