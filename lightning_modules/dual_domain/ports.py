"""What DualDomain's packets say of tables that another machine may choose differently.

A float64 that lies near the edge between two tables may fall on its other side where
sums are rounded in another order. The encoder notes such elements, and the decoder
takes its word.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_modules.dual_domain.entropy_model import MeanGaussians
from lightning_modules.entropy import ports
from lightning_modules.entropy.distributions import Distributions, Whole
from lightning_modules.entropy.symbols import SymbolDecoder
from lightning_modules.entropy.tables import CdfTables


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


class EncodePort(ports.EncodePort):
    """Writes one frame's symbols; ``doubts`` are what the decoder must be told."""

    def __init__(
        self, tables: Mapping[str, CdfTables], estimate: bool, decides: bool = False
    ) -> None:
        super().__init__(tables, estimate, decides)
        self.doubts: list[Doubt] = []
        self._elements = 0

    def choose(self, of: Distributions) -> tuple[Whole, Whole | int]:
        """Return what tables code elements, and note doubts."""
        if not isinstance(of, MeanGaussians):
            return of.choose()
        choice = of.choice()
        for place in choice.doubtful.nonzero().flatten().tolist():
            mean, level = int(choice.means[place]), int(choice.levels[place])
            self.doubts.append(Doubt(self._elements + place, mean, level))
        self._elements += len(choice.means)
        return choice.numbers()


class DecodePort(ports.DecodePort):
    """Reads one frame's symbols; ``doubts`` are what the encoder says of some."""

    def __init__(
        self,
        decoder: SymbolDecoder,
        tables: Mapping[str, CdfTables],
        doubts: list[Doubt],
    ) -> None:
        super().__init__(decoder, tables)
        self.doubts = doubts
        self._elements = 0

    def choose(self, of: Distributions) -> tuple[Whole, Whole | int]:
        """Return what tables code elements, the encoder's where it had doubts."""
        if not isinstance(of, MeanGaussians):
            return of.choose()
        choice = of.choice()
        for doubt in self.doubts:
            place = doubt.place - self._elements
            if 0 <= place < len(choice.means):
                choice.means[place], choice.levels[place] = doubt.mean, doubt.level
        self._elements += len(choice.means)
        return choice.numbers()
