"""What UI2C can be told when it codes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CodingOptions:
    """How UI2C codes.

    Attributes:
        refresh: UI2C: frames between refreshes of the reference through the pixel
            domain when encoding, 0 for none (default: as trained).
    """

    refresh: int = 0
