"""Symbols per second of entropy coding, from scales and latents to bytes and back."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from experiments.profile.benchmark.figures import Figure, Settings
from lightning_modules.alternating import alternating
from lightning_modules.entropy import rans
from lightning_modules.entropy.distributions import Gaussians
from lightning_modules.entropy.ports import DecodePort, EncodePort
from lightning_modules.entropy.priors import ScaleLevels
from lightning_modules.entropy.steps import checkerboard
from lightning_modules.entropy.symbols import SymbolDecoder

LEVELS = ScaleLevels(0.11, 16.0, 128)
SPREAD = 0.8
"""Standard deviation of the logarithms of scales."""
CENTRES = {"low": 0.3, "wide": 1.5}
"""Median scales: about 0.8 and 2.7 bits a symbol."""
SHAPES = {
    "latent of a 1080p frame": (1, 64, 68, 120),
    "latent of a small frame": (1, 64, 32, 32),
    "coarse latent": (1, 10, 10, 10),
}
SYMBOLS_A_RUN = 100_000
"""At least, so that a clock of CPU seconds resolves it."""


@dataclass(frozen=True)
class Case:
    """One latent, coded again and again.

    Attributes:
        latent: (1, C, h, w).
        scale: Of the same shape.
        steps: Positions that each step codes, (h, w); ``None`` for all.
    """

    latent: Tensor
    scale: Tensor
    steps: Sequence[Tensor | None]

    @classmethod
    def draw(cls, shape: tuple[int, ...], centre: float, board: bool) -> "Case":
        """Draw scales around a median, and a latent of them.

        Args:
            shape: Of the latent.
            centre: The median.
            board: Whether the colours of a checkerboard are coded one after the other.
        """
        generator = torch.Generator().manual_seed(0)
        logarithm = SPREAD * torch.randn(shape, generator=generator)
        scale = (logarithm + math.log(centre)).exp()
        latent = scale * torch.randn(shape, generator=generator)
        colours = checkerboard(shape[2], shape[3], latent.device)
        return cls(latent, scale, list(colours) if board else [None])

    @cached_property
    def tables(self) -> dict[str, rans.CdfTables]:
        """The tables of all levels."""
        return {"y": LEVELS.tables()}

    def parts(self) -> list[Gaussians]:
        """Return the distributions of each step, which nobody has looked at yet."""
        return [Gaussians(self.scale, LEVELS, keep) for keep in self.steps]

    def encode(self) -> bytes:
        """Code the latent as a codec does, with its checksum."""
        port = EncodePort(self.tables, estimate=False)
        for part in self.parts():
            port.code(self.latent, part)
        assert port.encoder.checksum
        return port.encoder.finish()

    @cached_property
    def stream(self) -> bytes:
        """Its bytes."""
        return self.encode()

    @cached_property
    def symbols(self) -> list[tuple[rans.Ints, rans.Rows]]:
        """Values and tables of each step."""
        return [
            (part.whole(self.latent)[0], part.choose()[0].astype(np.uint16))
            for part in self.parts()
        ]

    def decode(self) -> list[Tensor]:
        """Decode the latent as a codec does, step by step."""
        decoder = SymbolDecoder(self.stream)
        port = DecodePort(decoder, self.tables)
        port.expect({"y": self.latent.numel()})
        steps = [port.code(None, part) for part in self.parts()]
        decoder.finish()
        assert decoder.checksum
        return steps

    def encode_symbols(self) -> bytes:
        """Code symbols whose tables are known: the bare coder."""
        tables = self.tables["y"]
        blocks = [rans.block_of(*each, tables)[0] for each in self.symbols]
        return rans.encode(blocks)

    def decode_symbols(self) -> None:
        """Decode symbols whose tables are known: the bare coder."""
        reader = rans.Reader(self.stream)
        for _, rows in self.symbols:
            reader.read(rows, self.tables["y"])
        reader.finish()


def measure(settings: Settings) -> list[Figure]:
    """Measure all shapes and statistics on one thread.

    Raises:
        RuntimeError: A latent does not come back as it was coded.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _measured(settings)
    finally:
        torch.set_num_threads(threads)


def _measured(settings: Settings) -> list[Figure]:
    full = settings.form == "full"
    shapes = list(SHAPES.items())
    figures: list[Figure] = []
    for name, shape in shapes:
        for statistics, centre in CENTRES.items():
            figures += _figures(f"{name}, {statistics}", shape, centre, full)
    name, shape = shapes[0]
    title = f"{name}, low, in two steps"
    return figures + _figures(title, shape, CENTRES["low"], full, board=True)


def _figures(
    name: str, shape: tuple[int, ...], centre: float, full: bool, board: bool = False
) -> list[Figure]:
    case = Case.draw(shape, centre, board)
    decoded = torch.stack(case.decode()).sum(0)
    if not torch.equal(decoded, case.latent.round()):
        raise RuntimeError(f"{name}: the decoded latent is not the coded one")
    count = case.latent.numel()
    inner = -(-SYMBOLS_A_RUN // count)
    repeats = 30 if full else 5
    note = f"{count:,} symbols of {8 * len(case.stream) / count:.2f} bits, one thread"
    goal = "at least 150" if shape == next(iter(SHAPES.values())) else ""
    figures = []
    for verb, whole, bare in (
        ("encode", case.encode, case.encode_symbols),
        ("decode", case.decode, case.decode_symbols),
    ):
        seconds, _, ratio = alternating(
            _repeated(whole, inner), _repeated(bare, inner), repeats, time.process_time
        )
        speed = count * inner / seconds / 1e6
        bare_note = f"{note}; the coder alone {speed * ratio:.0f}"
        figures.append(Figure(f"{verb}: {name}", speed, "M/CPU s", goal, bare_note))
    return figures


def _repeated(function: Callable[[], object], times: int) -> Callable[[], object]:
    def run() -> Sequence[object]:
        return [function() for _ in range(times)]

    return run
