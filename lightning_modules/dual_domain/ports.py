"""Where a frame's symbols go: into an estimate, into bytes, or out of bytes.

The network walks through its entropy model once, whatever the purpose, and hands each
target to a port, so that encoder, decoder and training cannot drift apart.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.dual_domain.design import Quantiser
from lightning_modules.dual_domain.entropy_model import TableChoice, choose_tables
from lightning_modules.entropy.estimates import (
    gaussian_bits,
    ste_round,
    training_bits,
    uniform_noise,
)
from lightning_modules.entropy.priors import Z_LIMIT, FactorisedPrior
from lightning_modules.entropy.symbols import SymbolDecoder, SymbolEncoder, to_symbols
from lightning_modules.entropy.tables import CdfTables

PARTS = ("motion", "hyper", "latent")
"""What bits are spent on."""


@dataclass(frozen=True)
class Doubt:
    """An element whose table another machine may choose differently.

    Attributes:
        place: Its number among all elements of the frame, in coding order.
        mean: The encoder's choice, in sixteenths.
        level: The encoder's choice.
    """

    place: int
    mean: int
    level: int


class EstimatePort:
    """Counts bits per sample; differentiable in training.

    Args:
        quantiser: Of the values.
        seeds: (B,) sample seeds, which make the noise of the rate estimate; ``None``
            estimates from the rounded values instead.
        stream: First of the noise streams, so that no two frames share noise.
        exact: Estimate values from the rounded ones all the same, for latents that
            do not train.

    Attributes:
        bits: By part, each (B,).
    """

    def __init__(
        self,
        quantiser: Quantiser,
        seeds: Tensor | None = None,
        stream: int = 0,
        exact: bool = False,
    ) -> None:
        self.quantiser = quantiser
        self.seeds = seeds
        self.stream = stream
        self.exact = exact
        self.bits: dict[str, Tensor] = {}

    def _noisy(self, target: Tensor) -> Tensor:
        assert self.seeds is not None
        self.stream += 1
        return target + uniform_noise(target, self.seeds, self.stream)

    def _add(self, part: str, bits: Tensor) -> None:
        spent = bits.flatten(1).sum(1)
        self.bits[part] = self.bits[part] + spent if part in self.bits else spent

    def z(
        self,
        target: Tensor | None,
        prior: FactorisedPrior,
        shape: tuple[int, ...],
        part: str,
    ) -> Tensor:
        """Round z (straight through) and add its bits."""
        assert target is not None
        target = target.float().clamp(-Z_LIMIT, Z_LIMIT)
        rounded = ste_round(target)
        row = torch.zeros(len(target), dtype=torch.int64, device=target.device)
        counted = rounded if self.seeds is None else self._noisy(target)
        self._add(part, prior.bits(counted, row))
        return rounded

    def values(
        self,
        target: Tensor | None,
        mean: Tensor,
        log_scale: Tensor,
        mask: Tensor,
        part: str,
    ) -> Tensor:
        """Round values (straight through) and add their bits."""
        assert target is not None
        target, scale = target.float(), log_scale.exp()
        # With the lattice, only what a value costs depends on the mean.
        origin = mean if self.quantiser == "mean_centred" else torch.zeros_like(mean)
        rounded = ste_round(target - origin)
        if self.seeds is None:
            spent = gaussian_bits(rounded + origin - mean, scale)
        else:
            value = rounded + origin if self.exact else self._noisy(target)
            spent = training_bits(value - mean, scale)
        self._add(part, spent * mask)
        return (rounded + origin) * mask


class EncodePort:
    """Writes one sample's symbols into an encoder.

    Args:
        quantiser: Of the values.
        tables: ``symbols`` and those of each hyper-latent, by part.
        estimate: Whether to add up the model's estimate in ``bits`` too.

    Attributes:
        doubts: Elements whose table the decoder must be told.
        bits: Estimate.
    """

    def __init__(
        self, quantiser: Quantiser, tables: dict[str, CdfTables], estimate: bool
    ) -> None:
        self.quantiser = quantiser
        self.tables = tables
        self.estimate = estimate
        self.encoder = SymbolEncoder()
        self.doubts: list[Doubt] = []
        self.bits = 0.0
        self._elements = 0

    def z(
        self,
        target: Tensor | None,
        prior: FactorisedPrior,
        shape: tuple[int, ...],
        part: str,
    ) -> Tensor:
        """Write z, channel-major."""
        assert target is not None
        rounded = target.round().clamp(-Z_LIMIT, Z_LIMIT)
        if self.estimate:
            row = torch.zeros(1, dtype=torch.int64, device=target.device)
            self.bits += float(prior.bits(rounded, row).sum())
        symbols = to_symbols(rounded.flatten())
        self.encoder.push(symbols, _z_rows(shape), self.tables[part])
        return rounded

    def values(
        self,
        target: Tensor | None,
        mean: Tensor,
        log_scale: Tensor,
        mask: Tensor,
        part: str,
    ) -> Tensor:
        """Write the selected values in raster order, channel-major."""
        assert target is not None
        mean, log_scale = mean[0][mask], log_scale[0][mask]
        target = target[0][mask].to(mean)
        centred = self.quantiser == "mean_centred"
        rounded = (target - mean if centred else target).round()
        if self.estimate:
            distance = rounded if centred else rounded - mean
            self.bits += float(gaussian_bits(distance, log_scale.exp()).sum())
        choice = choose_tables(mean * (not centred), log_scale)
        self._note(choice)
        symbols = to_symbols(rounded) - choice.shifts.cpu().numpy()
        self.encoder.push(symbols, choice.rows.cpu().numpy(), self.tables["symbols"])
        return _scatter(rounded + mean if centred else rounded, mask)

    def _note(self, choice: TableChoice) -> None:
        for place in choice.doubtful.nonzero().flatten().tolist():
            mean, level = int(choice.means[place]), int(choice.levels[place])
            self.doubts.append(Doubt(self._elements + place, mean, level))
        self._elements += len(choice.means)


class DecodePort:
    """Reads one sample's symbols from a decoder.

    Args:
        quantiser: Of the values.
        tables: As the encoder's.
        decoder: Gives the symbols.
        doubts: What it says of elements that were near an edge.
    """

    def __init__(
        self,
        quantiser: Quantiser,
        tables: dict[str, CdfTables],
        decoder: SymbolDecoder,
        doubts: list[Doubt],
    ) -> None:
        self.quantiser = quantiser
        self.tables = tables
        self.decoder = decoder
        self.doubts = doubts
        self._elements = 0

    def z(
        self,
        target: Tensor | None,
        prior: FactorisedPrior,
        shape: tuple[int, ...],
        part: str,
    ) -> Tensor:
        """Read z."""
        symbols = self.decoder.pull(_z_rows(shape), self.tables[part])
        return torch.from_numpy(symbols).to(prior.h).reshape(shape)

    def values(
        self,
        target: Tensor | None,
        mean: Tensor,
        log_scale: Tensor,
        mask: Tensor,
        part: str,
    ) -> Tensor:
        """Read the selected values."""
        mean, log_scale = mean[0][mask], log_scale[0][mask]
        centred = self.quantiser == "mean_centred"
        choice = choose_tables(mean * (not centred), log_scale)
        for doubt in self.doubts:
            place = doubt.place - self._elements
            if 0 <= place < len(mean):
                choice.means[place], choice.levels[place] = doubt.mean, doubt.level
        self._elements += len(mean)
        symbols = self.decoder.pull(choice.rows.cpu().numpy(), self.tables["symbols"])
        rounded = torch.from_numpy(symbols).to(mean) + choice.shifts.to(mean)
        return _scatter(rounded + mean if centred else rounded, mask)


class SilentPort:
    """Codes nothing: for counting and timing the network alone."""

    def z(
        self,
        target: Tensor | None,
        prior: FactorisedPrior,
        shape: tuple[int, ...],
        part: str,
    ) -> Tensor:
        """Return z as it is, or zeros."""
        return prior.h.new_zeros(shape) if target is None else target

    def values(
        self,
        target: Tensor | None,
        mean: Tensor,
        log_scale: Tensor,
        mask: Tensor,
        part: str,
    ) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(mean)


def _z_rows(shape: tuple[int, ...]) -> NDArray[np.int32]:
    _, channels, height, width = shape
    return np.repeat(np.arange(channels, dtype=np.int32), height * width)


def _scatter(values: Tensor, mask: Tensor) -> Tensor:
    whole = values.new_zeros(1, *mask.shape)
    whole[0][mask] = values
    return whole
