"""Whether decoded frames are those that the encoder saw.

Checksums are of float32 values and not of 8 bits: ``evaluate`` measures both, and a
difference too small for 8 bits grows where later frames refer to it. They cover the
number and the size of frames too, which no coded symbol tells.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from experiments.bitstreams.coding_mode import frame_bytes
from lightning_modules.bitstream import Packet


class OtherPixelsError(ValueError):
    """A frame is not the encoder's, or nobody can tell."""


def checksum_of(frames: Iterable[Tensor]) -> int:
    """Return 16 bits of the frames (3, H, W) that a unit completes."""
    crc = 0
    for frame in frames:
        crc = _add(crc, frame)
    return crc & 0xFFFF


def _add(crc: int, frame: Tensor) -> int:
    size = "x".join(map(str, frame.shape)).encode()
    return zlib.crc32(frame_bytes(frame), zlib.crc32(size, crc))


class PixelChecks:
    """Compares the frames of a stream with the checksums of its units.

    Args:
        tell: Takes the number, from 0, of the first frame of the first unit that
            differs; ``None`` compares nothing.
        strict: Whether every unit must have a checksum.

    Attributes:
        compared: Frames compared so far.
        differs: Whether one was not the encoder's.
    """

    def __init__(
        self, tell: Callable[[int], None] | None, *, strict: bool = False
    ) -> None:
        self.compared = 0
        self.differs = False
        self._tell = tell
        self._strict = strict
        self._units: deque[Packet] = deque()
        self._frames = 0
        self._taken = 0
        self._crc = 0

    def note(self, units: Iterable[Packet]) -> Iterator[Packet]:
        """Pass units to a decoder.

        Raises:
            OtherPixelsError: One that has to have a checksum has none.
        """
        for unit in units:
            if self._strict and unit.frames and unit.pixels is None:
                raise OtherPixelsError(
                    "the stream has no checksums of its pixels (it was encoded with "
                    "--unchecked, or by an earlier version): leave out --strict"
                )
            if self._tell and unit.frames:
                self._units.append(unit)
            yield unit

    def take(self, frame: Tensor) -> None:
        """Take the next decoded frame."""
        if not self._tell:
            return
        self._frames += 1
        self._taken += 1
        if not self._units:
            return self._differ(self._frames - 1)
        unit = self._units[0]
        if unit.pixels is not None:
            self._crc = _add(self._crc, frame)
        if self._taken < unit.frames:
            return
        self._units.popleft()
        found, self._taken, self._crc = self._crc & 0xFFFF, 0, 0
        if unit.pixels is None:
            return
        self.compared += unit.frames
        if found != unit.pixels:
            self._differ(self._frames - unit.frames)

    def _differ(self, frame: int) -> None:
        """Tell of a frame, and compare no more."""
        tell, self._tell = self._tell, None
        self.differs = True
        assert tell, "nothing is compared after the first that differs"
        tell(frame)
