"""What was found of a source's frames: found once, used at every rate.

Every rate compares its decoded frames with the same source: with its features of
LPIPS, and with its motion. They do not depend on the codec, and take a hundred
megabytes of one 1080p frame, so they are kept while there is room.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

T = TypeVar("T")

SMALL = 64
"""Bytes that a number takes, with its name."""


class SourceMemory:
    """Keeps values by name while there is room for them; nothing is ever dropped.

    Frames come in one order at every rate, so whichever is dropped is the one that is
    needed next: the first ones stay, and the others are found again.

    Args:
        room: Bytes that it holds at most.

    Attributes:
        nbytes: Bytes that it holds.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.nbytes = 0
        self._values: dict[tuple[int, str], Any] = {}

    def find(self, frame: int, name: str, find: Callable[[], T]) -> T:
        """Return a value that is kept, or else find it, and keep it if it fits.

        Args:
            frame: Number of the frame.
            name: Of the value: another one for each way to find it.
            find: Finds it; what it returns must not be changed by anybody.
        """
        key = (frame, name)
        if key in self._values:
            kept: T = self._values[key]
            return kept
        value = find()
        size = size_of(value)
        if size is not None and self.nbytes + size <= self.room:
            self._values[key] = value
            self.nbytes += size
        return value


def size_of(value: Any) -> int | None:
    """Return the bytes of a value in this machine's memory, ``None`` of a GPU's.

    Those of a GPU are not kept: it finds values faster than they could be moved.

    Args:
        value: Numbers, tensors and arrays, and mappings and sequences of them.
    """
    if isinstance(value, Tensor):
        return value.nbytes if value.device.type == "cpu" else None
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return size_of([*value.values()])
    if isinstance(value, Sequence):
        sizes = [size_of(each) for each in value]
        return None if None in sizes else SMALL + sum(filter(None, sizes))
    return SMALL


NOTHING_KEPT = SourceMemory(0)
"""Where each source is met once."""
