"""What Toy can be told when it codes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CodingOptions:
    """How Toy codes.

    Attributes:
        dead_zone: Toy: coordinates up to this become 0 (default: 0.5); bits saved.
    """

    dead_zone: float = 0.5
