"""What UI2C can be told when it codes."""

from dataclasses import dataclass
from typing import Literal, get_args

Start = Literal["own", "blank"]


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

    Raises:
        ValueError: There is no such start.
    """

    refresh: int = 0
    start: Start = "own"

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(
                f"start {self.start!r} is unknown: choose from {list(get_args(Start))}"
            )
