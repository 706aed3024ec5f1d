"""One pass over a video's frames, whatever holds them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from torch import Tensor


class VideoError(ValueError):
    """A video cannot be read or written as asked."""


@dataclass
class VideoReader:
    """One pass over the frames of a video; a context manager that closes the file.

    Attributes:
        path: What is read.
        width: Columns of every frame.
        height: Rows of every frame.
        fps: Frames per second; the average if the rate varies.
        frames: Number of frames that iterating is expected to give; ``None`` if only
            reading to the end can tell. Containers are sometimes wrong.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    frames: int | None
    _pictures: Iterator[Tensor]
    _close: Callable[[], None] = lambda: None
    _max_frames: int | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """Give frames (3, H, W), float32 RGB in [0, 1].

        Raises:
            VideoError: A frame is missing, damaged or of another size.
        """
        count = 0
        while self._max_frames is None or count < self._max_frames:
            try:
                picture = next(self._pictures, None)
            except (ValueError, OSError) as error:
                where = f"{self.path}: frame {count} (from 0)"
                raise VideoError(f"{where}: {error}") from error
            if picture is None:
                break
            height, width = picture.shape[-2:]
            if (height, width) != (self.height, self.width):
                raise VideoError(
                    f"{self.path}: frame {count} (from 0) is {width}x{height}, but "
                    f"the first is {self.width}x{self.height}"
                )
            yield picture
            count += 1
        if count == 0:
            raise VideoError(f"{self.path} holds no frame")

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
