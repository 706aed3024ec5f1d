"""Where a latent's symbols go: into an estimate, into bytes, or out of bytes.

A network walks through its entropy model once, whatever the purpose, and hands each
latent to a port. Encoder, decoder and training cannot drift apart, because there is no
second copy of the walk.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_modules.clock import uncounted
from lightning_modules.entropy.distributions import Distributions, Factorised, Whole
from lightning_modules.entropy.estimates import ste_round, uniform_noise
from lightning_modules.entropy.symbols import SymbolDecoder, SymbolEncoder, tally
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.float32 import widened


def _shifted(values: Whole, shifts: Whole | int, sign: int) -> Whole:
    """Return values plus or minus shifts: mostly without shifts, and as they are."""
    return values + sign * shifts if np.ndim(shifts) or shifts else values


class Port(Protocol):
    """What a walk needs."""

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        """Code a latent and return it in whole numbers.

        Args:
            x: (N, C, ...), not yet rounded; ``None`` to decode.
            of: How its elements are distributed, and which of them are coded.
        """
        ...


class EstimatePort:
    """Counts bits per sample; differentiable in training.

    Args:
        seeds: (B,) sample seeds, which make the noise of the rate estimate; ``None``
            estimates from the rounded values instead.
        stream: The number before the first noise stream, so that no two units share
            noise.
        samples: B, where N counts more than one item of each, as frames.
        exact: Estimate all but hyper-latents from the rounded values all the same, for
            latents that do not train.

    Attributes:
        bits: (B,), of all parts; 0 at first.
        parts: The same by part.
    """

    def __init__(
        self,
        seeds: Tensor | None,
        stream: int = 0,
        *,
        samples: int | None = None,
        exact: bool = False,
    ) -> None:
        self.seeds = seeds
        self.stream = stream
        self.samples = samples
        self.exact = exact
        self.bits: Tensor | float = 0.0
        self.parts: dict[str, Tensor] = {}

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        """Round a latent (straight through) and add its bits."""
        assert x is not None
        given = x.dtype
        x = of.bound(widened(x))
        rounded = ste_round(x)
        if self.seeds is None:
            bits = of.bits(rounded)
        elif self.exact and not isinstance(of, Factorised):
            bits = of.noisy_bits(rounded)
        else:
            bits = of.noisy_bits(x + self._noise(x, self.seeds))
        spent = of.mask(bits).reshape(self.samples or len(x), -1).sum(1)
        self.bits = self.bits + spent
        earlier = self.parts.get(of.part)
        self.parts[of.part] = spent if earlier is None else earlier + spent
        return of.mask(rounded).to(given)

    def _noise(self, x: Tensor, seeds: Tensor) -> Tensor:
        self.stream += 1
        like = x.new_empty(len(seeds), x.numel() // len(seeds))
        return uniform_noise(like, seeds, self.stream).reshape(x.shape)


class EncodePort:
    """Writes one sample's symbols in raster order, channel-major.

    Args:
        tables: The codec's.
        estimate: Whether to add up the model's estimate in ``bits`` too, and count in
            ``histograms`` how often each value of each part is written.
        decides: Whether the encoder decides by it, so that it takes of its time.
    """

    def __init__(
        self, tables: Mapping[str, CdfTables], estimate: bool, decides: bool = False
    ) -> None:
        self.encoder = SymbolEncoder()
        self.tables = tables
        self.estimate = estimate
        self.decides = decides
        self.bits = 0.0
        self.histograms: dict[str, Counter[int]] = {}

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        """Write a latent.

        Raises:
            OverflowingError: An element is not finite.
        """
        assert x is not None
        values, whole = of.whole(x)
        if self.estimate:
            with uncounted(unless=self.decides):
                # As x lies in memory: the last digits of a sum depend on it.
                rounded = torch.empty_like(x).copy_(whole)
                self.bits += float(of.taken().bits(of.take(rounded)).sum())
        rows, shifts = self.choose(of)
        if self.estimate:
            with uncounted():
                self.histograms.setdefault(of.part, Counter()).update(tally(values))
        symbols = _shifted(values, shifts, -1)
        own = symbols is values
        self.encoder.push(symbols, rows, self.tables[of.table], own=own)
        return whole

    def choose(self, of: Distributions) -> tuple[Whole, Whole | int]:
        """Return what tables code elements; a codec may want to note it."""
        return of.choose()


class DecodePort:
    """Reads one sample's symbols.

    Args:
        decoder: Gives them.
        tables: As the encoder's.

    Attributes:
        expected: How many symbols are to come, by table, as far as is known.
    """

    def __init__(self, decoder: SymbolDecoder, tables: Mapping[str, CdfTables]) -> None:
        self.decoder = decoder
        self.tables = tables
        self.expected: Counter[str] = Counter()
        self._ahead: Tensor | None = None

    def expect(self, counts: Mapping[str, int]) -> None:
        """Say how many symbols are to come, for which the bytes may be too few.

        They are counted at once, and again after each latent, before networks run on
        it. What those take follows from the size that a file claims, so a file must
        have the bytes that its symbols take if each is the most probable one.

        Args:
            counts: By the name of their tables, no more than there will be.

        Raises:
            ValueError: The bytes are too few.
        """
        self.expected.update(counts)
        self._check_expected()

    def read_ahead(self, of: Distributions) -> None:
        """Read the next latent now, before networks run that do not need it.

        :meth:`code` returns it when the walk comes to it.

        Raises:
            ValueError: As there.
        """
        self._ahead = self.code(None, of)

    def _check_expected(self) -> None:
        rest = {name: count for name, count in self.expected.items() if count > 0}
        bits = sum(n * self.tables[name].least_bits for name, n in rest.items())
        self.decoder.check_left(sum(rest.values()), bits)

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        """Read a latent.

        Raises:
            ValueError: It is not there, or the bytes after it are too few.
        """
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        rows, shifts = self.choose(of)
        values = self.decoder.pull(rows, self.tables[of.table])
        self.expected[of.table] -= len(rows)
        self._check_expected()
        return of.latent(_shifted(values, shifts, 1))

    def choose(self, of: Distributions) -> tuple[Whole, Whole | int]:
        """Return what tables code elements; a codec may know better."""
        return of.choose()


class SilentPort:
    """Codes nothing: for what was lost, and for counting and timing networks alone."""

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        """Return the latent as it is, or zeros."""
        return torch.zeros_like(of.like) if x is None else x
