"""What is measured: a codec with all its settings, learned or classical."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.results.result import Protocol

if TYPE_CHECKING:
    from datamodules.sequences.files import VideoSequence
    from datamodules.yuv import Codes, Colour, Planes


@dataclass
class Cost:
    """What coding one sequence took.

    Attributes:
        nbytes: All bytes of the bitstream.
        frame_bits: Bits of each frame; headers of the stream are in ``nbytes`` only.
        scale_bits: The parts of ``frame_bits`` by scale, coarsest first, of a codec
            that has scales.
        estimated_bits: Entropy under the model, for codecs that have one.
        seconds: Totals by name: ``encode``, ``encode_network``, ``encode_entropy``,
            ``decode``, ``decode_network``, ``decode_entropy``; those that are known.
        peak_memory: Bytes, of ``encode`` and ``decode``.
    """

    nbytes: int
    frame_bits: list[float]
    estimated_bits: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    scale_bits: list[list[float]] = field(default_factory=list)


class Coder(ABC):
    """A codec with all its settings; small and picklable, so that workers get it.

    Attributes:
        name: Label of its curve.
        metric_device: Where quality is measured.
        scales: How many of the coarsest scales are decoded alone, besides all of them:
            once for each number.
    """

    name: str
    metric_device: str = "cpu"
    scales: tuple[int, ...] = ()

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what defines the codec: the result's ``codec`` section."""

    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """Return what may differ between machines, such as device and versions."""

    @abstractmethod
    def code(
        self,
        sequence: "VideoSequence",
        codes: Callable[[], Iterator["Codes"]],
        colour: "Colour",
        rate: float,
        folder: Path,
        sink: Callable[["Planes"], None],
    ) -> Cost:
        """Code a sequence to bytes and decode them.

        Args:
            sequence: For its size and frame rate.
            codes: Starts a new pass over the source's frames.
            colour: Of the source and of what the sink takes.
            rate: In the codec's own unit.
            folder: An empty folder for the bitstream.
            sink: Takes each decoded frame, in order.
        """

    def boundaries(self, frames: int) -> list[int]:
        """Return where units that are coded apart meet; see ``VideoCodec.boundaries``.

        Args:
            frames: Length of the video.
        """
        return []

    def decode_scales(
        self,
        scales: int,
        whole: Cost,
        colour: "Colour",
        folder: Path,
        sink: Callable[["Planes"], None],
    ) -> Cost:
        """Decode only the coarsest scales of what :meth:`code` left in the folder.

        Args:
            scales: How many.
            whole: What :meth:`code` returned.
            colour: Of what the sink takes.
            folder: Where the bitstream is.
            sink: Takes each decoded frame, in order.

        Returns:
            What a bitstream costs that holds nothing else; without encoding.
        """
        raise NotImplementedError(f"{self.name} has no scales")

    def find_rate(
        self,
        sequence: "VideoSequence",
        codes: Callable[[], Iterator["Codes"]],
        colour: "Colour",
        target_bpp: float,
        folder: Path,
    ) -> float:
        """Return the rate that meets a target on a sequence."""
        raise NotImplementedError(f"{self.name} has no search for a target")


@dataclass(frozen=True)
class Settings:
    """How everything is coded and measured, whoever does it.

    Attributes:
        colour: In which colour frames are given and compared.
        max_frames: Of each sequence; None for all.
        intra_period: For the record; the coder knows it too.
        rate: ``bitstream`` or ``estimate``.
        metrics: Keys of ``METRICS`` that are measured.
        pictures: Numbers of the frames that are kept as PNG.
        threads: Of torch, in each process.
    """

    colour: "Colour"
    max_frames: int | None
    intra_period: int
    rate: str = "bitstream"
    metrics: tuple[str, ...] = ()
    pictures: tuple[int, ...] = ()
    threads: int = 1

    def protocol(self) -> Protocol:
        """Return the result's protocol, without the metrics' definitions."""
        return Protocol(self.colour, self.max_frames or 0, self.intra_period, self.rate)
