"""How a camera moves over a still picture, and a patch of another one before it.

Lengths are in pixels of the frames that are made, times in frames. The ranges are
choices, not of a paper: a codec's motion search meets each size of motion as often.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from datamodules.sources.source import Rng

Numbers: TypeAlias = npt.NDArray[np.float64]

STILL = 0.15
"""Share of cameras that stand: much of video does."""
SLOWEST, FASTEST = 1 / 16, 8.0
"""Pixels a frame that a camera pans, each octave between them as often."""
ACCELERATION = 0.05
"""Of the velocity per frame, standard deviation."""
ZOOMING, ZOOM = 0.6, 0.006
"""Share of moving cameras that zoom, and standard deviation of the rate per frame."""
TURNING, TURN = 0.4, 0.006
"""Share of moving cameras that turn, and standard deviation in radians per frame."""
SHRINK, TRIES = 0.8, 20
"""A path beyond the picture is made smaller by this factor, this often, then stands."""


@dataclass(frozen=True)
class Motion:
    """A smooth path of a view, all arrays (T,).

    Attributes:
        x: Its centre, to the right.
        y: Its centre, downward.
        zoom: Logarithm of its scale.
        angle: In radians, clockwise.
    """

    x: Numbers
    y: Numbers
    zoom: Numbers
    angle: Numbers

    def times(self, factor: float) -> "Motion":
        """Return the same path, all of it smaller by a factor."""
        return Motion(*(factor * part for part in self._parts))

    def plus(self, other: "Motion") -> "Motion":
        """Return the sum of two paths."""
        pairs = zip(self._parts, other._parts, strict=True)
        return Motion(*(one + another for one, another in pairs))

    @property
    def scale(self) -> Numbers:
        """Size of the view, (T,): 1 in the closest frame, else above."""
        scale: Numbers = np.exp(self.zoom - self.zoom.min())
        return scale

    @property
    def turns(self) -> bool:
        """Whether any view is not upright."""
        return bool(self.angle.any())

    @property
    def _parts(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        return self.x, self.y, self.zoom, self.angle

    def bounds(self, rows: int, columns: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of all that views of a size see."""
        cos, sin = np.abs(np.cos(self.angle)), np.abs(np.sin(self.angle))
        half_width = self.scale * (columns * cos + rows * sin) / 2
        half_height = self.scale * (columns * sin + rows * cos) / 2
        return (
            float((self.x - half_width).min()),
            float((self.y - half_height).min()),
            float((self.x + half_width).max()),
            float((self.y + half_height).max()),
        )


def draw_motion(rng: Rng, times: Numbers) -> Motion:
    """Draw how a camera moves.

    Args:
        rng: Draws; as often whatever comes out.
        times: Of the frames, (T,), around 0.
    """
    still, zooms, turns = rng.random(3) < (STILL, ZOOMING, TURNING)
    speed = SLOWEST * (FASTEST / SLOWEST) ** rng.random()
    heading = rng.uniform(0, 2 * np.pi)
    faster, sideways, zoom, turn = rng.standard_normal(4)
    along = times + ACCELERATION * faster * times**2 / 2
    across = ACCELERATION * sideways * times**2 / 2
    cos, sin = np.cos(heading), np.sin(heading)
    moved = Motion(
        x=speed * (along * cos - across * sin),
        y=speed * (along * sin + across * cos),
        zoom=zooms * ZOOM * zoom * times,
        angle=turns * TURN * turn * times,
    )
    return moved.times(0.0) if still else moved


def fit(motion: Motion, rows: int, columns: int, height: int, width: int) -> Motion:
    """Make a path smaller until views of a size stay within a picture.

    Args:
        motion: The path.
        rows: Of a frame; at most ``height``.
        columns: Of a frame; at most ``width``.
        height: Of the picture.
        width: Of the picture.
    """
    for _ in range(TRIES):
        left, top, right, bottom = motion.bounds(rows, columns)
        if right - left <= width and bottom - top <= height:
            return motion
        motion = motion.times(SHRINK)
    return motion.times(0.0)
