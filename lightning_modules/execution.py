"""How the work of any codec is arranged: not one bit depends on it.

No torch is imported here, so that commands can list these options.
"""

from dataclasses import dataclass, fields
from typing import Literal, get_args

Overlap = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class DecodingExecution:
    """How encoders and decoders arrange their work.

    Attributes:
        graphs: UI2C, ScaleSpaceFlow and VideoVAE's latent codec on a GPU: record the
            kernels of a unit once for each size and replay them as CUDA graphs, which
            saves the time of launching them (default: off); not one bit changes, which
            is compared when they are recorded.
    """

    graphs: bool = False


@dataclass(frozen=True)
class Execution(DecodingExecution):
    """How encoders arrange their work.

    Attributes:
        overlap: Make the bytes of a unit in a thread while the networks work on the
            next ones: on, off, or auto (default), which is on where networks run on a
            GPU; not one bit changes, and up to three units are in memory.

    Raises:
        ValueError: There is no such value.
    """

    overlap: Overlap = "auto"

    def __post_init__(self) -> None:
        if self.overlap not in get_args(Overlap):
            raise ValueError(
                f"overlap {self.overlap!r} is unknown: choose from "
                f"{list(get_args(Overlap))}"
            )


EXECUTION = frozenset(each.name for each in fields(Execution))
"""Names of what every codec can be told."""
