"""What DHVC can be told when it codes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecodingOptions:
    """How DHVC codes, and decodes.

    Attributes:
        pipeline: DHVC without its auxiliary path: work on so many frames at once, on
            as many GPUs as there are (default: 1); not one bit changes. On a CPU
            encode with the threads of its cores over this; decoders follow.

    Raises:
        ValueError: The number is below 1.
    """

    pipeline: int = 1

    def __post_init__(self) -> None:
        if self.pipeline < 1:
            raise ValueError(f"pipeline is {self.pipeline}: it must be >= 1")


@dataclass(frozen=True)
class CodingOptions(DecodingOptions):
    """How DHVC codes: nothing is the encoder's alone."""
