"""Procedural pictures that are the same everywhere, down to the last bit.

Only arithmetic and square roots are used, which IEEE 754 defines exactly, and raw
random bits.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SIDE = 1152
LEAVES = 12000
RADII = (4.0, 250.0)


KEPT = 16
"""Pictures of 4 MB that a process keeps: all of a command, where it names a few."""


def paint_leaves(number: int) -> Floats:
    """Paint dead leaves: discs that hide each other, their sizes by a power law.

    Numbers of leaves of a size fall with its third power, which gives pictures the
    spectrum and the edges of photographs. Each leaf has a colour that runs across it.

    Args:
        number: Which picture.

    Returns:
        (1152, 1152, 3), RGB, whole numbers of 0..255.

    Source: Lee, Mumford, Huang, "Occlusion Models for Natural Images", IJCV 41, 2001.
    """
    return _painted(number).astype(np.float64)


@lru_cache(maxsize=KEPT)
def _painted(number: int) -> npt.NDArray[np.uint8]:
    """Return the codes of :func:`paint_leaves`, which takes a second."""
    draws = draw_uniform((number, 0), (LEAVES, 9))
    least, most = RADII
    radii = least / np.sqrt(1 - draws[:, 0] * (1 - (least / most) ** 2))
    centres = draws[:, 1:3] * SIDE
    # Mostly greys, as in photographs; 20 to 235 leaves room to get lighter.
    colours = 20 + 215 * (0.8 * draws[:, 3:4] + 0.2 * draws[:, 4:7])
    slopes = 40 * (draws[:, 7:9] - 0.5)
    picture = np.full((SIDE, SIDE, 3), 128.0)
    for radius, centre, colour, slope in zip(
        radii, centres, colours, slopes, strict=True
    ):
        (top, left), (bottom, right) = (
            np.clip(edge, 0, SIDE).astype(int)
            for edge in (centre - radius - 1, centre + radius + 2)
        )
        y = np.arange(top, bottom)[:, None] - centre[0]
        x = np.arange(left, right)[None] - centre[1]
        # Edges are smooth over a pixel.
        cover = np.clip(radius - np.sqrt(y * y + x * x) + 0.5, 0.0, 1.0)[..., None]
        shade = (slope[0] * y + slope[1] * x)[..., None] / radius
        under = picture[top:bottom, left:right]
        under += (colour + shade - under) * cover
    return np.rint(np.clip(picture, 0.0, 255.0)).astype(np.uint8)


def draw_uniform(key: tuple[int, int], shape: tuple[int, int]) -> Floats:
    """Draw numbers of [0, 1) from raw bits, which no version of numpy changes.

    Args:
        key: Of the generator; another one gives other numbers.
        shape: Of the result.
    """
    raw = np.random.Philox(key=np.array(key, np.uint64)).random_raw(math.prod(shape))
    return (raw >> 11).reshape(shape) * 2.0**-53
