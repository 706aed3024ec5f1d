"""One frame, scale by scale, and what it leaves to the next.

Training, encoder and decoder take the same walk with other ports, so that they cannot
drift apart.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from lightning_modules.dhvc.network import DHVCNetwork, Feature
from lightning_modules.entropy.ports import Port

R = TypeVar("R")


@dataclass(frozen=True)
class State:
    """What one frame leaves to the next: passed on, never kept in the module.

    Attributes:
        past: For each scale its features of the last frames, oldest first; as many as
            there were since the scale last began anew, up to ``reference_frames``.
        previous: The last reconstruction (B, 3, H, W), padded, in network range, for
            the auxiliary path; ``None`` without one, or at a start.
    """

    past: tuple[tuple[Feature, ...], ...]
    previous: Tensor | None = None

    def without(self, first: int) -> "State":
        """Return the state for a frame with spatial references only from ``first`` on.

        Both slots of these scales are emptied, so that the frame after it sees a
        constant and this frame: an old feature left in the older slot would keep a
        decoder that lacks it out of step for good.

        Args:
            first: A scale, from 1; 1 forgets everything.
        """
        past = (*self.past[: first - 1], *((),) * (len(self.past) - first + 1))
        return State(past, None if first == 1 else self.previous)


class FrameWalk:
    """Takes one frame through its scales, coarsest first.

    Args:
        network: Its transforms.
        state: What the frame refers to.
        embedding: (B, E), of lambda.
        shape: Batch, height and width of the padded frame.
        decode: Whether to follow the decoded path, for pixels or for later frames.
    """

    def __init__(
        self,
        network: DHVCNetwork,
        state: State,
        embedding: Tensor | None,
        shape: tuple[int, int, int],
        decode: bool = True,
    ) -> None:
        self.network = network
        self.embedding = embedding
        self.auxiliary = network.refer(state.previous, embedding)
        self.path = network.start(shape, decode)
        self.past = list(state.past)
        self.features: list[Feature] = []

    def step(self, observed: Tensor | None, port: Port, fresh: bool = False) -> None:
        """Code or decode the next scale.

        Args:
            observed: (B, C, h, w), the encoder's feature; ``None`` to decode.
            port: Takes or gives the symbols.
            fresh: Refer to no earlier frame at this scale.
        """
        number = len(self.features) + 1
        if fresh:
            self.past[number - 1] = ()
        self.path, feature = self.network.scale(number)(
            observed,
            self.path,
            self.past[number - 1],
            self.auxiliary[number - 1],
            self.embedding,
            port,
        )
        self.features.append(feature)

    def left(self, number: int) -> tuple[Feature, ...]:
        """Return what scale ``number``, which is done, leaves to the next frame."""
        slots = self.network.options.reference_frames
        return (*self.past[number - 1], self.features[number - 1])[-slots:]

    def finish(self, reconstruct: bool = True) -> tuple[Tensor | None, State]:
        """Return pixels (B, 3, H, W) in network range, if wanted, and the new state."""
        past = tuple(self.left(number) for number in range(1, len(self.past) + 1))
        if not reconstruct:
            return None, State(past)
        assert self.path.decoded is not None
        pixels: Tensor = self.network.tail(self.path.decoded, self.embedding)
        # What the auxiliary path sees is what anyone sees, in training too.
        options = self.network.options
        black = options.layout.black
        seen = pixels.clamp(black, 1.0) if options.auxiliary else None
        return pixels, State(past, seen)


Steps = Generator[FrameWalk, None, R]
"""A frame's work, which stops before each scale and again behind the last.

Where it stops, what the next scale refers to may still be put into the walk's ``past``.
"""


def complete(steps: Steps[R]) -> R:
    """Do all of a frame's work, when everything it refers to is there."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: R = end.value
            return result
