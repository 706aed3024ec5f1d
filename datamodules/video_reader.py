"""One pass over a video's frames, whatever holds them."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from datamodules.sequences.standard_sets import parse_name

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class VideoError(ValueError):
    """A video cannot be read or written as asked."""


def name_frames(path: Path, frames: Iterator[T]) -> Generator[T]:
    """Give a video's frames on; an error in one names the file and the frame."""
    for number in count():
        try:
            frame = next(frames)
        except StopIteration:
            return
        except (ValueError, OSError) as error:
            raise VideoError(f"{path}: frame {number} (from 0): {error}") from error
        yield frame


def settle_rate(path: Path, fps: Fraction | None) -> Fraction:
    """Return a video's frames per second, of its name if the video knows none.

    Raises:
        VideoError: Neither says it.
    """
    fps = fps or parse_name(path.stem).fps
    if fps is None:
        name = f"name it like name_50fps{path.suffix}, or " * (path.suffix != "")
        raise VideoError(
            f"{path} does not say its frame rate: {name}give --fps where a command "
            "has it"
        )
    return fps


@dataclass
class VideoReader(AbstractContextManager["VideoReader"]):
    """One pass over the frames of a video; a context manager that closes the file.

    Attributes:
        path: What is read.
        width: Columns of every frame.
        height: Rows of every frame.
        fps: Frames per second; the average if the rate varies.
        frames: Number of frames that iterating is expected to give; ``None`` if only
            reading to the end can tell. Containers are sometimes wrong.
        close: Closes the file.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    frames: int | None
    _pictures: Iterator["Tensor"]
    close: Callable[[], None] = lambda: None

    @property
    def _hint(self) -> str:
        if not self.path.is_dir():
            return ""
        return "; pictures that are no video can be measured as stills=DIR"

    def __iter__(self) -> Iterator["Tensor"]:
        """Give frames (3, H, W), float32 RGB in [0, 1].

        Raises:
            VideoError: A frame is missing, damaged or of another size.
        """
        number = 0
        for picture in self._pictures:
            height, width = picture.shape[-2:]
            if (height, width) != (self.height, self.width):
                raise VideoError(
                    f"{self.path}: frame {number} (from 0) is {width}x{height}, but "
                    f"the first is {self.width}x{self.height}{self._hint}"
                )
            yield picture
            number += 1
        if number == 0:
            raise VideoError(f"{self.path} holds no frame")

    def __exit__(self, *_: object) -> None:
        self.close()
