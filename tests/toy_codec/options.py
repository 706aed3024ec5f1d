"""What Toy can be told when it codes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CodingOptions:
    """How Toy codes.

    Attributes:
        effort: Toy: of zlib, 1 to 9 (default: 9); no frame changes.
    """

    effort: int = 9
