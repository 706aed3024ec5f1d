"""How the elements of a latent are distributed: what a walk tells a port.

Training asks what values would cost and real coding asks for integer tables; the same
object answers both.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_modules.entropy.estimates import gaussian_bits, lower_bound
from lightning_modules.entropy.priors import Z_LIMIT, HyperPrior, ScaleLevels

Whole = npt.NDArray[np.integer[Any]]
Bits = Callable[[Tensor, Tensor], Tensor]
"""Gives what values cost at standard deviations, element by element."""


@dataclass(eq=False)
class Distributions(ABC):
    """Of a latent's elements, which are coded as whole numbers.

    Attributes:
        like: Of the latent's shape, dtype and device.
        part: What the bits are spent on.
        table: Name of the integer tables.
        keep: Which elements are coded: bool, of the shape of the latent's last
            dimensions. The others are 0. ``None`` for all.
        limits: What values are clamped to.
        positions: Flat, int64, where ``keep`` holds, if it does not depend on symbols:
            see :mod:`~lightning_modules.entropy.steps`.
    """

    like: Tensor
    part: str
    table: str
    keep: Tensor | None = None
    limits: tuple[float, float] | None = None
    positions: Tensor | None = None

    def bound(self, x: Tensor) -> Tensor:
        """Return a latent within the limits."""
        return x if self.limits is None else x.clamp(*self.limits)

    def mask(self, x: Tensor) -> Tensor:
        """Return a latent with 0 where nothing is coded."""
        return x if self.keep is None else x * self.keep

    def take(self, x: Tensor) -> Tensor:
        """Return the elements that are coded, in raster order."""
        return x if self.keep is None else x[..., self.keep]

    def put(self, taken: Tensor) -> Tensor:
        """Return the latent that :meth:`take` took elements of, with 0 elsewhere."""
        if self.keep is None:
            return taken
        latent = taken.new_zeros(self.like.shape)
        latent[..., self.keep] = taken
        return latent

    def taken(self) -> "Distributions":
        """Return those of the elements that are coded, without the others."""
        assert self.keep is None, "who leaves elements out says what remains"
        return self

    @abstractmethod
    def bits(self, values: Tensor) -> Tensor:
        """Estimate what rounded values cost, in bits, element by element."""

    def noisy_bits(self, values: Tensor) -> Tensor:
        """Estimate the same from values with noise."""
        return self.bits(values)

    @abstractmethod
    def choose(self) -> tuple[Whole, Whole | int]:
        """Return the table of each element, and what its symbols lack to its values.

        In raster order, channel-major.
        """


class Factorised(Distributions):
    """Of a hyper-latent, by channel.

    Args:
        prior: The distributions.
        shape: Of the hyper-latent, (B, C, ...).
        name: Of the part and of the tables.
        row: (B,), the prior's row of each sample; 0 by default.
    """

    def __init__(
        self,
        prior: HyperPrior,
        shape: tuple[int, ...],
        name: str = "z",
        row: Tensor | None = None,
    ) -> None:
        like = prior.like.new_empty(shape)
        super().__init__(like, name, name, limits=(-Z_LIMIT, Z_LIMIT))
        self.prior = prior
        self.row = row

    def bound(self, x: Tensor) -> Tensor:
        """Return z within the limits; gradients that pull it back pass."""
        return -lower_bound(-lower_bound(x, -Z_LIMIT), -Z_LIMIT)

    def bits(self, values: Tensor) -> Tensor:
        """Estimate what values cost."""
        return self.prior.bits(values, self.row)

    def choose(self) -> tuple[Whole, Whole | int]:
        """Return the table of each element of one sample."""
        _, channels, *sides = self.like.shape
        first = 0 if self.row is None else int(self.row[0]) * channels
        tables = np.arange(first, first + channels, dtype=np.int32)
        return np.repeat(tables, prod(sides)), 0


class Gaussians(Distributions):
    """Of a latent less its mean.

    Args:
        scale: Standard deviations, (N, C, h, w), float32 at least.
        levels: Which of them have tables.
        keep: As above.
        limits: As above.
        table: As above.
        part: As above.
        rounded_bits: What rounded values cost at these scales.
        noisy_bits: What values with noise cost, as rounded ones by default.
        positions: As above.
    """

    def __init__(
        self,
        scale: Tensor,
        levels: ScaleLevels,
        keep: Tensor | None = None,
        *,
        limits: tuple[float, float] | None = None,
        table: str = "y",
        part: str = "y",
        rounded_bits: Bits = gaussian_bits,
        noisy_bits: Bits | None = None,
        positions: Tensor | None = None,
    ) -> None:
        super().__init__(scale, part, table, keep, limits, positions)
        self.levels = levels
        self._rounded_bits = rounded_bits
        self._noisy_bits = noisy_bits or rounded_bits

    def taken(self) -> Distributions:
        """Return those that are coded, without the others."""
        scale = self.take(self.like)
        return Gaussians(scale, self.levels, rounded_bits=self._rounded_bits)

    def bits(self, values: Tensor) -> Tensor:
        """Estimate what rounded values cost."""
        return self._rounded_bits(values, self.like)

    def noisy_bits(self, values: Tensor) -> Tensor:
        """Estimate what values with noise cost."""
        return self._noisy_bits(values, self.like)

    def choose(self) -> tuple[Whole, Whole | int]:
        """Return the table of each element."""
        return self.levels.indices(self.like).flatten().cpu().numpy(), 0
