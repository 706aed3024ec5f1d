"""Ports to and from a device that the entropy coder is not on.

They write and read what those of :mod:`~lightning_modules.entropy.ports` do. An encoder
waits for nothing: its symbols stay where they are until a whole unit departs, in one
copy. A decoder waits once for each latent, for the numbers of its tables.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.clock import uncounted
from lightning_modules.entropy.distributions import (
    Distributions,
    Factorised,
    Gaussians,
)
from lightning_modules.entropy.ports import DecodePort, EncodePort
from lightning_modules.entropy.symbols import (
    OverflowingError,
    SymbolDecoder,
    tally,
)
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.entropy.transfers import Download, leaves, narrowest, upload

LATENT_OVERFLOWS = (
    "the latent is not finite: the weights are untrained, damaged, or too large for "
    "this dtype"
)


def encode_port(
    tables: Mapping[str, CdfTables], estimate: bool, like: Tensor
) -> EncodePort:
    """Return what takes a unit's symbols; the arguments are those of ``EncodePort``.

    Args:
        tables: The codec's.
        estimate: Whether bits are estimated and symbols counted.
        like: A tensor of the networks.
    """
    return (DeviceEncodePort if leaves(like) else EncodePort)(tables, estimate)


def decode_port(
    decoder: SymbolDecoder, tables: Mapping[str, CdfTables], like: Tensor
) -> DecodePort:
    """Return what gives a unit's symbols to the networks that a tensor is of."""
    return (DeviceDecodePort if leaves(like) else DecodePort)(decoder, tables)


@dataclass(frozen=True)
class Coded:
    """A latent that is to be written.

    Attributes:
        part: What its bits are spent on.
        table: Name of its tables.
        values: (n,), whole numbers.
        rows: (n,), the table of each.
    """

    part: str
    table: str
    values: Tensor
    rows: Tensor


class DeviceEncodePort(EncodePort):
    """Writes symbols when they have arrived, in any thread.

    ``encoder``, ``bits`` and ``histograms`` have nothing before :meth:`arrive`.
    """

    def __init__(
        self, tables: Mapping[str, CdfTables], estimate: bool, decides: bool = False
    ) -> None:
        super().__init__(tables, estimate, decides)
        self._coded: list[Coded] = []
        self._estimates: list[Tensor] = []
        self._checks: list[tuple[Tensor, OverflowingError]] = []
        self._download: Download | None = None

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        """Take a latent; whether it is finite :meth:`arrive` tells."""
        assert x is not None and self._download is None
        taken = _taken(of)
        whole = _take(of.bound(x), of).round()
        if self.estimate:
            with uncounted(unless=self.decides):
                self._estimates.append(taken.bits(whole).sum())
        self.check(whole, OverflowingError(LATENT_OVERFLOWS))
        dtype = narrowest(*of.limits) if of.limits else torch.int32
        values = whole.flatten().to(dtype)
        rows = _rows(taken, self.tables[of.table])
        self._coded.append(Coded(of.part, of.table, values, rows))
        return _put(whole, of)

    def check(self, x: Tensor, error: OverflowingError) -> None:
        """Have :meth:`arrive` raise an error if a tensor is not finite."""
        self._checks.append((x.isfinite().all(), error))

    def depart(self) -> None:
        """Send all to the host; no more symbols will come.

        In the thread in which the device's work is queued.
        """
        tensors = [*(finite for finite, _ in self._checks), *self._estimates]
        for each in self._coded:
            tensors += [each.values, each.rows]
        self._download = Download(tensors)

    def arrive(self) -> None:
        """Wait for the symbols and write them, once.

        Raises:
            OverflowingError: What was checked is not finite.
        """
        if self._download is None:
            self.depart()
        assert self._download is not None
        numbers = iter(self._download.arrays())
        for _, error in self._checks:
            if not next(numbers):
                raise error
        for _ in self._estimates:
            self.bits += float(next(numbers))
        for each in self._coded:
            self._write(each, numbers)

    def _write(self, coded: Coded, numbers: Iterator[npt.NDArray[Any]]) -> None:
        values = next(numbers).astype(np.int32, copy=False)
        if self.estimate:
            with uncounted():
                self.histograms.setdefault(coded.part, Counter()).update(tally(values))
        self.encoder.push(values, next(numbers), self.tables[coded.table])


class DeviceDecodePort(DecodePort):
    """Reads symbols for a device."""

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        """Read a latent; see the base class."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        taken = _taken(of)
        tables = self.tables[of.table]
        (rows,) = Download([_rows(taken, tables)]).arrays()
        values = self.decoder.pull(rows, tables)
        self.expected[of.table] -= len(rows)
        self._check_expected()
        latent = upload(torch.from_numpy(values), of.like)
        return _put(latent.reshape(taken.like.shape), of)


def _rows(of: Distributions, tables: CdfTables) -> Tensor:
    """Return the table of each element, computed where the parameters are."""
    if isinstance(of, Factorised):
        _, channels, *sides = of.like.shape
        # On the host where the row is: then a decoder need not ask the device.
        device = torch.device("cpu") if of.row is None else of.row.device
        own = torch.arange(channels, dtype=torch.int32, device=device)
        if of.row is not None:
            own = own + channels * of.row[0].to(torch.int32)
        rows = own[:, None].expand(-1, prod(sides)).flatten()
    else:
        assert isinstance(of, Gaussians), "others choose their tables on the host"
        rows = of.levels.indices(of.like).flatten()
    return rows.to(narrowest(0, len(tables) - 1))


# As the distributions' own, by positions that are known: a mask has to be asked first
# how many there are.


def _take(x: Tensor, of: Distributions) -> Tensor:
    if of.keep is None or of.positions is None:
        return of.take(x)
    return x.flatten(-of.keep.ndim).index_select(-1, of.positions)


def _put(taken: Tensor, of: Distributions) -> Tensor:
    if of.keep is None or of.positions is None:
        return of.put(taken)
    latent = taken.new_zeros(of.like.shape)
    latent.view(*taken.shape[:-1], -1).index_copy_(-1, of.positions, taken)
    return latent


def _taken(of: Distributions) -> Distributions:
    if of.keep is None:
        return of
    taken = of.anew()
    taken.like, taken.keep, taken.positions = _take(of.like, of), None, None
    return taken
