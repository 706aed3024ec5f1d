"""The source that is being coded, read once for all of its rates.

A sequence's rates are coded one after the other. What they share is kept meanwhile, as
far as there is room: frames that had to be computed or decoded, what metrics found of
them, and which pictures of them are written.
"""

from collections.abc import Iterator

from callbacks.metrics.source_memory import SourceMemory
from datamodules.sequences.files import (
    STORED_PLANES,
    VideoSequence,
    frames_to_read,
    read_codes,
    source_kind,
)
from datamodules.yuv import Codes
from experiments.evaluate.options import JobOptions

ROOM = 2**29
"""Bytes that all processes of a command keep of their sources together."""


class Source:
    """One sequence, as a command's options have it read.

    Args:
        sequence: What is coded.
        options: How it is read.
        room: Bytes that are kept of it.

    Attributes:
        kind: See :func:`source_kind`.
        memory: What metrics found of its frames.
        pictures: Path of each frame that is written as a picture, by its number.
    """

    def __init__(self, sequence: VideoSequence, options: JobOptions, room: int) -> None:
        self.kind = source_kind(sequence)
        self.memory = SourceMemory(room)
        self.pictures: dict[str, str] = {}
        self._sequence = sequence
        self._options = options
        self._frames: list[Codes] | None = None
        count = frames_to_read(sequence, options.max_frames)
        size = 3 * sequence.width * sequence.height * (count or 0)
        # A part of them would save nothing: files are decoded from their beginning.
        # Stored planes are read as fast as memory.
        self._keeps = 0 < size <= room // 2 and self.kind != STORED_PLANES

    def codes(self) -> Iterator[Codes]:
        """Start a pass over the frames; see :func:`read_codes`."""
        if self._frames is not None:
            return iter(self._frames)
        options = self._options
        codes = read_codes(
            self._sequence, options.colour, options.max_frames, options.yuv_as
        )
        return self._kept(codes) if self._keeps else codes

    def _kept(self, codes: Iterator[Codes]) -> Iterator[Codes]:
        """Pass frames on, and keep them if the pass comes to its end."""
        frames = []
        for frame in codes:
            for plane in frame:
                plane.setflags(write=False)
            frames.append(frame)
            yield frame
        if self._frames is None:
            self._frames = frames
            self.memory.nbytes += self.nbytes_of_frames

    @property
    def nbytes_of_frames(self) -> int:
        """Bytes of the frames that are kept."""
        return sum(plane.nbytes for frame in self._frames or () for plane in frame)


class Sources:
    """Gives each job its source: the one of the job before, if that is the same."""

    def __init__(self) -> None:
        self._room = ROOM
        self._last: tuple[VideoSequence, JobOptions, Source] | None = None

    def share(self, workers: int) -> None:
        """Take a part of the room only: so many processes share it."""
        self._room = ROOM // workers

    def of(self, sequence: VideoSequence, options: JobOptions) -> Source:
        """Return a sequence's source; what was kept of another one is dropped.

        Raises:
            ValueError: It cannot be read.
        """
        if self._last is None or self._last[:2] != (sequence, options):
            # Before the next one takes as much.
            self._last = None
            self._last = sequence, options, Source(sequence, options, self._room)
        return self._last[2]
