"""How a store is made of videos: the options that its content follows from."""

from dataclasses import dataclass

from datamodules.prepared.cuts import THRESHOLD
from datamodules.prepared.formats import FORMATS, FormatName, FrameFormat
from datamodules.prepared.frames import scaled_size


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to each video.

    Attributes:
        format: How frames are stored.
        quality: Of JPEG, 1..100; 0 where frames are not lossy.
        height: The shorter side of stored frames in pixels; ``None`` for the source's.
        factor: Both sides are divided by it, where there is no ``height``.
        stride: Every so many frames of a shot are stored.
        threshold: Of a scene cut's score; 0 for no cuts.
        min_frames: A shot with fewer stored frames is left out.
        max_frames: Most that are stored of a video, ``None`` for all.
    """

    format: FormatName = "yuv420"
    quality: int = 0
    height: int | None = None
    factor: float = 1.0
    stride: int = 1
    threshold: float = THRESHOLD
    min_frames: int = 1
    max_frames: int | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the stored frames of a video."""
        return scaled_size(height, width, self.height, self.factor)

    def make_format(self, height: int, width: int) -> FrameFormat:
        """Return the format of stored frames of a size."""
        return FORMATS[self.format](height, width, self.quality)

    def decoded_frames(self, frames: int) -> int:
        """Return how many frames of a video are decoded, if it is one shot."""
        return min(frames, (self.max_frames or frames) * self.stride)

    def most_frames(self, frames: int) -> int:
        """Return how many frames of a video are stored, if it is one shot."""
        stored = -(-frames // self.stride)
        return min(stored, self.max_frames or stored)
