"""A network whose symbols are coded by integer tables made of its weights."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from lightning_modules.entropy.tables import CdfTables


class CodesByTables(nn.Module, ABC):
    """Builds its tables when they are asked for, and keeps them until it trains."""

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[str, CdfTables] | None = None

    @abstractmethod
    def build_tables(self) -> dict[str, CdfTables]:
        """Turn the entropy model's current weights into integer tables, by name."""

    @property
    def tables(self) -> dict[str, CdfTables]:
        """The integer tables that real bits are coded with; built once, then kept.

        They are no buffers: averaging weights must not touch them, and their sizes
        change. A checkpoint stores them beside the weights, because another machine
        may round the floats they come from differently.
        """
        if self._tables is None:
            self._tables = self.build_tables()
        return self._tables

    @tables.setter
    def tables(self, tables: dict[str, CdfTables] | None) -> None:
        self._tables = tables

    def take_tables(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take the integer tables of a checkpoint, after the weights.

        Args:
            saved: As ``CdfTables.to_tensors`` gave them, by the tables' name.

        Raises:
            ValueError: They are broken, or not those that this version codes with.
        """
        tables = {
            name: CdfTables.from_tensors(dict(own)) for name, own in saved.items()
        }
        wanted = {name: len(own) for name, own in self.build_tables().items()}
        found = {name: len(own) for name, own in tables.items()}
        if found != wanted:
            raise ValueError(f"it has the tables {found}, and {wanted} are needed")
        self.tables = tables

    def train(self, mode: bool = True) -> Self:
        """Switch mode; going back to training drops tables that will be stale."""
        if mode:
            self._tables = None
        return super().train(mode)
