"""What UI2C can be told when it codes."""

from dataclasses import dataclass
from typing import Literal, get_args

Start = Literal["own", "blank"]
Arithmetic = Literal["float", "integer"]


@dataclass(frozen=True)
class CodingOptions:
    """How UI2C codes.

    Attributes:
        refresh: UI2C: frames between refreshes of the reference through the pixel
            domain when encoding, 0 for none (default: 0); decoders see it in the
            stream.
        start: UI2C: who codes a start without a reference: own, as trained (default),
            or blank, the inter model of divided models, from a blank reference;
            decoders see it in the stream.
        arithmetic: UI2C: what decoders compute in: float (default), the dtype, or
            integer, which decodes to the same bits on every machine; they see it in
            the stream.

    Raises:
        ValueError: There is no such value.
    """

    refresh: int = 0
    start: Start = "own"
    arithmetic: Arithmetic = "float"

    def __post_init__(self) -> None:
        choices = {"start": Start, "arithmetic": Arithmetic}
        for name, kind in choices.items():
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise ValueError(
                    f"{name} {value!r} is unknown: choose from {list(known)}"
                )
