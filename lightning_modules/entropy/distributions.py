"""How the elements of a latent are distributed: what a walk tells a port.

Training asks what values would cost and real coding asks for integer tables; the same
object answers both.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.entropy.estimates import gaussian_bits, lower_bound
from lightning_modules.entropy.priors import Z_LIMITS, HyperPrior, ScaleLevels
from lightning_modules.entropy.scale_edges import BITS, FLOATS, flat
from lightning_modules.entropy.symbols import OverflowingError, to_symbols
from lightning_modules.entropy.tables import MAX_VALUE, Ints, out_of_range

ALL = np.zeros(0, dtype=np.int32), 0

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

    @cached_property
    def places(self) -> tuple[Ints, int]:
        """Places of coded elements in each plane, and the elements of a plane.

        0 elements if all are coded. As :mod:`~.elements` wants them, on a CPU.
        """
        if self.keep is None:
            return ALL
        from lightning_modules.entropy.elements import find_places

        # One more, which is written and never counted.
        at = np.empty(self.keep.numel() + 1, dtype=np.int32)
        count = find_places(self.keep.reshape(-1).numpy(), at)
        return at[:count], self.keep.numel()

    @property
    def count(self) -> int:
        """How many elements are coded."""
        if self.keep is None:
            return self.like.numel()
        at, plane = self.places
        return len(at) * (self.like.numel() // plane)

    def whole(self, x: Tensor) -> tuple[Ints, Tensor]:
        """Round a latent to what is coded.

        Returns:
            Values of the coded elements, (n,), in raster order, and the latent of x's
            shape and dtype with these, and 0 elsewhere.

        Raises:
            OverflowingError: An element is not finite.
            ValueError: One is too large to be coded.
        """
        if not (x.is_cpu and x.dtype in BITS):
            rounded = self.take(self.bound(x)).round()
            return to_symbols(rounded.flatten()), self.put(rounded)
        from lightning_modules.entropy.elements import round_elements

        at, plane = self.places
        source = flat(x)
        whole = (np.zeros_like if plane else np.empty_like)(source)
        values = np.empty(self.count, dtype=np.int32)
        low, high = self.limits or (-inf, inf)
        rounded_into = round_elements(FLOATS[x.dtype])
        if rounded_into(source, at, plane, low, high, values, whole):
            rounded = self.take(self.bound(x)).round()
            if bool(rounded.isfinite().all()):
                raise out_of_range("symbols", rounded, -MAX_VALUE, MAX_VALUE)
            to_symbols(rounded)
        return values, torch.from_numpy(whole).view(x.shape)

    def latent(self, values: Whole) -> Tensor:
        """Return the latent with values (n,) where elements are coded, 0 elsewhere."""
        if not (self.like.is_cpu and self.like.dtype in BITS):
            taken = torch.from_numpy(values).to(self.like)
            return self.put(taken.reshape(self.take(self.like).shape))
        from lightning_modules.entropy.elements import put_values

        at, plane = self.places
        # Zeros cost nothing where all of them are written over.
        number = FLOATS[self.like.dtype]
        whole = np.zeros(self.like.numel(), number)
        put_values(number)(values.astype(np.int32, copy=False), at, plane, whole)
        return torch.from_numpy(whole).view(self.like.shape)

    def anew(self) -> Self:
        """Return a copy whose places are found again, as tensors hold other numbers."""
        other = copy(self)
        other.__dict__.pop("places", None)
        return other

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
        """Return tables of coded elements, and what their symbols lack to their values.

        In raster order, channel-major.

        Raises:
            OverflowingError: A parameter is NaN.
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
        super().__init__(like, name, name, limits=Z_LIMITS)
        self.prior = prior
        self.row = row

    def bound(self, x: Tensor) -> Tensor:
        """Return z within the limits; gradients that pull it back pass."""
        low, high = Z_LIMITS
        return -lower_bound(-lower_bound(x, low), -high)

    def bits(self, values: Tensor) -> Tensor:
        """Estimate what values cost."""
        return self.prior.bits(values, self.row)

    def choose(self) -> tuple[Whole, Whole | int]:
        """Return the table of each element of one sample."""
        _, channels, *sides = self.like.shape
        first = 0 if self.row is None else int(self.row[0]) * channels
        tables = np.arange(first, first + channels, dtype=np.uint16)
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
        """Return the table of each coded element."""
        scales = self.like
        edges = self.levels.edges(scales.dtype) if scales.dtype in BITS else None
        if not scales.is_cpu or edges is None:
            indices = self.levels.indices(self.take(scales)).flatten()
            # A quarter of the bytes to copy; 15 bits hold all levels.
            narrow = indices if scales.is_cpu else indices.to(torch.int16)
            return narrow.cpu().numpy(), 0
        rows = edges.rows(scales, *self.places, self.count)
        if rows is None:
            raise OverflowingError(
                "a standard deviation is NaN: the weights are untrained, damaged, or "
                "too large for this dtype"
            )
        return rows, 0
