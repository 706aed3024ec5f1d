"""What the coders of all anchors share."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datamodules.yuv import Codes, Planes
from experiments.anchor.pictures import (
    PIXEL_FORMATS,
    PixelFormat,
    from_samples,
    to_samples,
)
from experiments.anchor.settings import Preset
from experiments.evaluate.coder import Coder, Cost, Task
from lightning_modules.clock import CodingClock


@dataclass(frozen=True)
class EncoderTask(Task):
    """One sequence to code at one rate, as an encoder sees it.

    Attributes:
        label: For messages.
        path: The bitstream file to write, then to read.
        pixel_format: Of the pictures that the encoder is given.
        height: Coded rows, padding included.
        width: Coded columns, padding included.
        options: Of the encoder, complete.
    """

    label: str
    path: Path
    pixel_format: PixelFormat
    height: int
    width: int
    options: dict[str, str]

    def error(self, reason: object) -> ValueError:
        """Return an error that says what was being coded."""
        return ValueError(f"{self.label}: {reason}")


@dataclass(frozen=True)
class Coded:
    """What an encoder wrote.

    Attributes:
        frame_bits: Bits of each frame, in order of display.
        intra_frames: Numbers of the frames that decoding can start at; None if the
            encoder does not say.
    """

    frame_bits: list[float]
    intra_frames: list[int] | None


@dataclass
class Anchor(Coder):
    """A codec that is run as one of its presets says.

    Attributes:
        name: Label of the curve.
        preset: How the codec is run.
        knob: What sets the rate.
        intra_period: Frames from one intra frame to the next, -1 for the first only.

    Raises:
        ValueError: The codec is not there.
    """

    name: str
    preset: Preset
    knob: str
    intra_period: int

    def describe(self) -> dict[str, Any]:
        """Return the preset and where it is from."""
        preset = self.preset
        return {
            "name": preset.codec,
            "kind": "anchor",
            "encoder": preset.title,
            "preset": preset.name,
            "structure": preset.structure,
            "source": preset.source,
            "rate_unit": self.knob,
        }

    def remarks(self) -> list[str]:
        """Return what a user should know before hours of work."""
        if self.preset.structure != "random_access":
            return []
        return [
            f"{self.preset.name} refers to later frames, which a low-delay codec "
            "cannot; --list names low-delay presets"
        ]


@dataclass
class AnchorCoder(Anchor):
    """Codes with a classical encoder, and decodes the file that it wrote.

    Encoders run on one thread: their bytes do not depend on the machine.
    """

    @abstractmethod
    def write(
        self, task: EncoderTask, pictures: Iterable[Codes], clock: CodingClock
    ) -> Coded:
        """Write the bitstream of pictures to ``task.path``.

        Args:
            task: What to code, and how.
            pictures: Of the task's pixel format.
            clock: Runs while the encoder works.

        Raises:
            ValueError: The encoder fails.
        """

    @abstractmethod
    def read(self, task: EncoderTask) -> Iterator[tuple[Codes, PixelFormat]]:
        """Give the pictures of ``task.path``, in order, and how they are held.

        Raises:
            ValueError: The decoder fails.
        """

    def describe(self) -> dict[str, Any]:
        """Return the preset with all its options and where it is from."""
        preset = self.preset
        return {
            **super().describe(),
            "pixel_formats": dict(preset.pixel_formats),
            "rate_offset_per_bit_above_8": preset.knobs[self.knob].per_bit,
            "options": self._options("{rate}", depth=8),
            "restarts": preset.restarts,
            "padding": "right and bottom, repeated edge, 4:2:0 to even sides",
        }

    def encode(self, task: Task) -> Cost:
        """Write a file, and count all of its bytes; see :class:`Coder`.

        Seconds are those of the encoder, without the conversion of colours.

        Raises:
            ValueError: The encoder fails, or does not do what was asked: other intra
                frames, another number of frames.
        """
        own = self._encoder_task(task)
        given = 0

        def pictures() -> Iterator[Codes]:
            nonlocal given
            for frame in task.codes():
                yield to_samples(frame, task.colour, own.pixel_format)
                given += 1

        clock = CodingClock(torch.device("cpu"))
        coded = self.write(own, pictures(), clock)
        if not given or given != len(coded.frame_bits):
            raise own.error(
                f"the encoder was given {given} frames and coded "
                f"{len(coded.frame_bits)}"
            )
        step = given if self.intra_period == -1 else self.intra_period
        wanted = list(range(0, given, step))
        if coded.intra_frames not in (None, wanted):
            raise own.error(
                f"intra frames are {coded.intra_frames}, but intra period "
                f"{self.intra_period} asks for {wanted}"
            )
        nbytes = own.path.stat().st_size
        # Decoders conceal a last frame that lost its end.
        if 8 * nbytes < sum(coded.frame_bits):
            raise own.error(
                f"the file has {nbytes} bytes, fewer than the frames that were encoded"
            )
        return Cost(nbytes, coded.frame_bits, seconds={"encode": clock.seconds})

    def decode(
        self, task: Task, cost: Cost, scales: int | None = None
    ) -> Iterator[Planes]:
        """Decode the file; seconds are without the conversion of colours.

        Raises:
            ValueError: The decoder fails, or gives another number of frames.
        """
        own = self._encoder_task(task)
        size = task.sequence.height, task.sequence.width
        clock = CodingClock(torch.device("cpu"))
        frames = 0
        for samples, held_as in clock.watch(self.read(own)):
            yield from_samples(samples, task.colour, held_as, *size)
            frames += 1
        given = len(cost.frame_bits)
        if frames != given:
            raise own.error(f"{given} frames were encoded and {frames} decoded")
        cost.seconds["decode"] = clock.seconds

    def _options(self, rate: float | str, depth: int) -> dict[str, str]:
        return self.preset.encoder_options(self.knob, rate, self.intra_period, depth)

    def _encoder_task(self, task: Task) -> EncoderTask:
        sequence, rate = task.sequence, task.rate
        pixel_format = PIXEL_FORMATS[self.preset.pixel_formats[task.colour]]
        height, width = pixel_format.size(sequence.height, sequence.width)
        return EncoderTask(
            **vars(task),
            label=f"{self.preset.title} on {sequence.name} at {self.knob} {rate:g}",
            path=task.folder / f"stream{self.preset.run['suffix']}",
            pixel_format=pixel_format,
            height=height,
            width=width,
            options=self._options(rate, pixel_format.depth),
        )
