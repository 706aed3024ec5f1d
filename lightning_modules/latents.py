"""How many numbers a codec has for the pixels that they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Latents:
    """The numbers that a decoder makes pixels of, counted for one block of a video.

    Hyper-latents and motion do not count: they say how likely the numbers are, or where
    to look in frames before.

    Attributes:
        block: Frames, rows and columns of the smallest block of which all levels have
            whole numbers.
        levels: Numbers of each level for a block, by the level's name.
        note: Says of the counting what a reader should know; may be empty.

    Raises:
        ValueError: A side of the block or a level's count is below 1.
    """

    block: tuple[int, int, int]
    levels: Mapping[str, int]
    note: str = ""

    def __post_init__(self) -> None:
        if min(self.block) < 1 or not self.levels or min(self.levels.values()) < 1:
            raise ValueError(
                f"a block of {self.block} with latents {dict(self.levels)}: sides and "
                "counts must be at least 1"
            )

    @property
    def numbers(self) -> int:
        """All numbers of a block."""
        return sum(self.levels.values())

    @property
    def per_pixel(self) -> float:
        """Numbers for each pixel of a frame, which has three of its own."""
        return self.numbers / prod(self.block)
