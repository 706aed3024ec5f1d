"""Running with the encoder's instruction set: what must precede the import of torch."""

from contextlib import suppress
from pathlib import Path

from datamodules.pipes import as_input, is_pipe
from lightning_modules.bitstream import BitstreamError, BitstreamReader
from lightning_modules.numerics import PORTABLE, pin


def pin_as_encoded(path: Path) -> None:
    """Hold this process to the instruction set that a stream was encoded with.

    Whoever opens the stream again will say what is wrong with it.
    """
    path = as_input(path)
    if is_pipe(path):
        # It can be read once only, and most streams were encoded so.
        pin(PORTABLE)
        return
    with suppress(BitstreamError, OSError), path.open("rb") as file:
        numerics = BitstreamReader(file).header.numerics
        if numerics:
            pin(numerics.isa)
