"""What codes: a codec with all its settings, learned or classical."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.sequences.files import VideoSequence
from datamodules.yuv import Codes, Colour, Planes, YuvAs
from experiments.results.result import Result


@dataclass(frozen=True)
class Task:
    """One sequence to code at one rate.

    Attributes:
        sequence: For its name, size and frame rate.
        codes: Starts a new pass over the source's frames.
        colour: Of these frames, and of those that are decoded.
        rate: In the codec's own unit.
        folder: Where the bitstream is; empty at first.
        yuv_as: How raw 4:2:0 became these frames, where they are RGB.
    """

    sequence: VideoSequence
    codes: Callable[[], Iterator[Codes]]
    colour: Colour
    rate: float
    folder: Path
    yuv_as: YuvAs = field(default="full709", kw_only=True)


@dataclass
class Cost:
    """What coding one sequence took.

    Attributes:
        nbytes: All bytes of the bitstream.
        frame_bits: Bits of each frame; headers of the stream are in ``nbytes`` only.
        scale_bits: The parts of ``frame_bits`` by scale, coarsest first, of a codec
            that has scales.
        estimated_bits: Entropy under the model, for codecs that have one.
        latents: How often each whole number was coded, by scale or part of the latent.
        seconds: Totals by name: ``encode``, ``encode_network``, ``encode_entropy``,
            ``decode``, ``decode_network``, ``decode_entropy``; those that are known.
            The parts add up to more than ``encode`` where they overlap.
        peak_memory: Bytes, of ``encode`` and ``decode``.
        digest: SHA-256 of the frames that the encoder expects to be decoded, if it
            knows.
    """

    nbytes: int = 0
    frame_bits: list[float] = field(default_factory=list)
    scale_bits: list[list[float]] = field(default_factory=list)
    estimated_bits: float | None = None
    latents: dict[str, dict[int, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    digest: str | None = None

    def of_scales(self, scales: int) -> "Cost":
        """Return what a bitstream costs that holds the coarsest scales and no others.

        Args:
            scales: How many.
        """
        frame_bits = map(sum, zip(*self.scale_bits[:scales], strict=True))
        unsent = sum(map(sum, self.scale_bits[scales:]))
        return Cost(self.nbytes - round(unsent / 8), list(frame_bits))


class Coder(ABC):
    """A codec with all its settings; small and picklable, so that workers get it.

    Attributes:
        name: Label of its curve.
        metric_device: Where decoded frames are compared with the source's.
        scales: How many of the coarsest scales are decoded alone, besides all of them:
            once for each number.
        latents: Whether points keep how often each value of the latents was coded.
    """

    name: str
    metric_device: str = "cpu"
    scales: tuple[int, ...] = ()
    latents: bool = False

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what defines the codec: the result's ``codec`` section."""

    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """Return what may differ between machines, such as device and versions."""

    def check(  # noqa: B027
        self, sequences: Sequence[VideoSequence], max_frames: int | None, done: Result
    ) -> None:
        """Refuse, before any work, what would fail or not go with what there is.

        Args:
            sequences: All that are to be coded.
            max_frames: Of each.
            done: The points that there are.

        Raises:
            ValueError: Something is missing, wrong or has changed.
        """

    @abstractmethod
    def encode(self, task: Task) -> Cost:
        """Write the bitstream of a sequence into the task's folder."""

    @abstractmethod
    def decode(
        self, task: Task, cost: Cost, scales: int | None = None
    ) -> Iterator[Planes]:
        """Give the frames of what :meth:`encode` wrote, in order.

        Args:
            task: As :meth:`encode` took it.
            cost: What it returned, or the part of these scales; takes what decoding
                costs, after the last frame.
            scales: Decode only so many of the coarsest; all by default.
        """

    def boundaries(self, frames: int) -> list[int]:
        """Return where units that are coded apart meet; see ``VideoCodec.boundaries``.

        Args:
            frames: Length of the video.
        """
        return []

    def find_rate(self, task: Task, target_bpp: float) -> float:
        """Return the rate at which a task's sequence costs as much as the target."""
        raise NotImplementedError(f"{self.name} has no search for a target")
