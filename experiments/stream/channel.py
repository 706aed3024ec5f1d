"""What goes over a channel, what it loses, and what an encoder does about that.

Frames are counted from 1, and so are scales, the coarsest first, as the paper does.

Source: arXiv 2410.02598, section 7.4 and the supplement on packet loss.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from random import Random
from typing import Literal

from lightning_modules.bitstream import Packet

LossMode = Literal["frame", "packet", "bytes"]


@dataclass(frozen=True)
class SentUnit:
    """What an encoder sent for a frame, or for frames that it codes together.

    Attributes:
        first: Number of its first frame, from 1.
        frames: How many they are.
        packets: One for each scale, coarsest first.
        resync: First scale coded anew because of an echo, 0 for none.
        intra: Whether the encoder began anew by itself; ``None`` if it does not say.
        digests: Of the encoder's own reconstruction of each frame.
    """

    first: int
    frames: int
    packets: tuple[Packet, ...]
    resync: int
    intra: bool | None
    digests: tuple[str, ...]


Log = deque[tuple[SentUnit, frozenset[int]]]
"""Units, each with the scales that were lost of it."""


@dataclass(frozen=True)
class Arrival:
    """What a receiver has of a unit: its packets, ``None`` for each that was lost."""

    frames: int
    packets: tuple[Packet | None, ...]


@dataclass(frozen=True)
class Losses:
    """What a channel loses: packets that are named, and packets that are drawn.

    What is drawn in a frame depends on the seed and the number of the frame, and with
    ``bytes`` on the sizes of its packets: two encoders meet the same bad luck.

    Attributes:
        given: Frame and scale of each packet that is lost.
        rate: Probability of a drawn loss.
        mode: ``frame``: each frame loses with this probability one of its packets, any
            alike; ``bytes``: the same, but a packet as likely as it has bytes;
            ``packet``: each packet alone is lost with this probability.
        first: First frame in which losses are drawn.
        last: Last frame in which losses are drawn.
        protected: Scales, coarsest first, whose packets are never lost.
        seed: Of what is drawn.
    """

    given: frozenset[tuple[int, int]] = frozenset()
    rate: float = 0.0
    mode: LossMode = "frame"
    first: int = 4
    last: int = 28
    protected: int = 1
    seed: int = 0

    def reaches(self, first: int, frames: int) -> bool:
        """Return whether losses are drawn in a unit: all of it must be in the range."""
        return self.first <= first and first + frames - 1 <= self.last

    def of_unit(self, first: int, frames: int, sizes: Sequence[int]) -> frozenset[int]:
        """Return the scales of a unit whose packets are lost.

        Args:
            first: Its first frame.
            frames: How many frames it is.
            sizes: Bytes of its packets, coarsest scale first.
        """
        can_be_lost = range(self.protected + 1, len(sizes) + 1)
        inside = range(first, first + frames)
        lost = {scale for frame, scale in self.given if frame in inside}
        if self.reaches(first, frames):
            lost |= self._draw(first, can_be_lost, sizes)
        return frozenset(lost.intersection(can_be_lost))

    def _draw(self, first: int, scales: range, sizes: Sequence[int]) -> set[int]:
        random = Random(f"{self.seed} {first}")
        if self.mode == "packet":
            return {scale for scale in scales if random.random() < self.rate}
        if not scales or random.random() >= self.rate:
            return set()
        if self.mode == "bytes":
            return set(random.choices(scales, [sizes[s - 1] for s in scales]))
        return {random.choice(scales)}


@dataclass(frozen=True)
class Parity:
    """Forward error correction of the first scales of a unit, and what it costs.

    Packets of parity are those of a maximum distance separable code, such as Reed and
    Solomon's, over the packets of these scales: each is as long as the longest of them,
    and whichever of all are lost, as many as there is parity can be made again.

    Attributes:
        protected: Scales, coarsest first.
        packets: Packets of parity for each unit.
    """

    protected: int = 0
    packets: int = 0

    def nbytes(self, sizes: Sequence[int]) -> int:
        """Return the bytes of a unit's parity.

        Args:
            sizes: Bytes of its packets, coarsest scale first.
        """
        return self.packets * max(sizes[: self.protected], default=0)

    def failure(self, rate: float) -> float:
        """Return how often a unit would lose more than this makes again.

        Args:
            rate: Probability with which each packet is lost, whatever the others.
        """
        sent = self.protected + self.packets
        return sum(
            comb(sent, lost) * rate**lost * (1 - rate) ** (sent - lost)
            for lost in range(self.packets + 1, sent + 1)
        )


class Echoes:
    """What a receiver told the encoder, until the encoder has acted on it.

    A loss in frame t leads to a frame t + ``delay`` whose scales, from the lost one on,
    refer to no earlier frame. None of them is coded anew for a loss that a frame since
    then has mended already; if that frame was hit itself, its own echo mends both.

    Args:
        delay: Frames between a loss and the frame that mends it, at least 1; ``None``
            if the encoder hears nothing.
    """

    def __init__(self, delay: int | None) -> None:
        self.delay = delay
        self._asked = 0
        self._due: dict[int, list[tuple[int, int]]] = {}
        self._anew: list[tuple[int, int]] = []

    def add(self, frame: int, scale: int) -> None:
        """Take an echo.

        Args:
            frame: In which a packet was lost.
            scale: The coarsest scale that was.
        """
        if self.delay is not None:
            due = frame + self.delay
            assert due > self._asked, f"the echo of frame {frame} came too late"
            self._due.setdefault(due, []).append((frame, scale))

    def first_scale(self, frame: int) -> int:
        """Return the first scale that a frame codes anew, 0 for none."""
        self._asked = frame
        due = self._due.pop(frame, [])
        return min(
            (scale for at, scale in due if not self._mended(at, scale)), default=0
        )

    def note(self, frame: int, scale: int) -> None:
        """Take note of the first scale that a frame did code anew, 0 for none."""
        if scale:
            self._anew.append((frame, scale))

    def _mended(self, frame: int, scale: int) -> bool:
        return any(at > frame and first <= scale for at, first in self._anew)
