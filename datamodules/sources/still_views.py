"""Views of still pictures: scaled down without aliasing, placed between pixels.

A view is cut out of its picture in one step where the camera does not turn: Pillow's
``resize`` filters as wide as the view is scaled down, and takes corners between pixels.
Where the camera turns, the part that it sees is scaled down first, and interpolated.
"""

from collections.abc import Iterator, Sequence
from math import ceil, cos, floor, sin
from typing import TypeAlias

import numpy as np
from PIL import Image

from datamodules.sources.source import Frames, Rng
from datamodules.sources.still_motion import Motion, Numbers

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
AFFINE = Image.Transform.AFFINE

MOST_SMALLER = 2.5
"""A picture is scaled down by 1 to this, as far as there is room.

Coding noise of JPEG goes, and a photograph's edges become as sharp as a frame's."""
SMALLEST_PATCH, LARGEST_PATCH = 0.25, 0.7
"""Side of a patch over the shorter one of the frame."""
SOFT_EDGE = 2.0
"""Pixels over which a patch fades, as a lens would have it."""

Point: TypeAlias = tuple[float, float]


def views(
    picture: Frames,
    camera: Motion,
    rng: Rng,
    size: tuple[int, int],
    place: Numbers | None,
) -> list[Image.Image]:
    """Return the frames of a camera's path over a picture.

    Args:
        picture: (H, W, 3), RGB, 0..255.
        camera: A path that fits it (see :func:`~still_motion.fit`).
        rng: Draws how much smaller the picture is made.
        size: Rows and columns of a frame.
        place: Of the path in the picture, right and down, each 0 to 1; ``None`` is the
            middle.
    """
    rows, columns = size
    height, width = picture.shape[:2]
    left, top, right, bottom = camera.bounds(rows, columns)
    room = min(width / (right - left), height / (bottom - top), MOST_SMALLER)
    smaller = rng.uniform(1.0, max(1.0, room))
    across, down = (0.5, 0.5) if place is None else place
    offset_x = across * max(0.0, width - smaller * (right - left))
    offset_y = down * max(0.0, height - smaller * (bottom - top))
    step = smaller * camera.scale
    # What the views see, and around it what a filter of the widest one reads.
    margin = ceil(2 * step.max()) + 1
    first_x, first_y = (
        max(0, floor(offset_x) - margin),
        max(0, floor(offset_y) - margin),
    )
    last_x = ceil(offset_x + smaller * (right - left)) + margin
    last_y = ceil(offset_y + smaller * (bottom - top)) + margin
    part = Image.fromarray(
        np.ascontiguousarray(picture[first_y:last_y, first_x:last_x])
    )
    x = smaller * (camera.x - left) + offset_x - first_x
    y = smaller * (camera.y - top) + offset_y - first_y
    pixel_x = pixel_y = 1.0
    if camera.turns:
        # The widest view is one pixel of this for one of the frame.
        seen = ceil(part.width / step.max()), ceil(part.height / step.max())
        pixel_x, pixel_y = part.width / seen[0], part.height / seen[1]
        part = part.resize(seen, BICUBIC)
    images: list[Image.Image] = []
    before: tuple[float, ...] = ()
    for view in zip(x, y, step, camera.angle, strict=True):
        if view == before:
            images.append(images[-1])
        elif camera.turns:
            matrix = _matrix(*view, size, (pixel_x, pixel_y))
            images.append(part.transform((columns, rows), AFFINE, matrix, BICUBIC))
        else:
            images.append(part.resize((columns, rows), BICUBIC, _box(part, view, size)))
        before = view
    return images


def _box(
    part: Image.Image, view: tuple[float, ...], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of an upright view."""
    x, y, step, _ = view
    half_width, half_height = step * size[1] / 2, step * size[0] / 2
    # Rounding may take a view some 1e-13 pixels beyond the picture.
    return (
        max(0.0, x - half_width),
        max(0.0, y - half_height),
        min(part.width, x + half_width),
        min(part.height, y + half_height),
    )


def _matrix(
    x: float,
    y: float,
    step: float,
    angle: float,
    size: tuple[int, int],
    pixel: Point = (1.0, 1.0),
) -> tuple[float, ...]:
    """Return where a pixel of a view lies in its picture, as Pillow has it.

    Args:
        x: Centre of the view in the picture.
        y: Centre of the view in the picture.
        step: From one pixel of the view to the next.
        angle: In radians, clockwise.
        size: Rows and columns of the view.
        pixel: Width and height of the picture's pixels.
    """
    along, across = step * cos(angle), step * sin(angle)
    middle_y, middle_x = size[0] / 2, size[1] / 2
    return (
        along / pixel[0],
        -across / pixel[0],
        (x - along * middle_x + across * middle_y) / pixel[0],
        across / pixel[1],
        along / pixel[1],
        (y - across * middle_x - along * middle_y) / pixel[1],
    )


class Patch:
    """A part of a picture with a soft outline, which moves before another.

    Args:
        picture: (H, W, 3), RGB, 0..255.
        rng: Draws which part, its outline and its place.
        frame: That it moves over.
    """

    def __init__(self, picture: Frames, rng: Rng, frame: Image.Image) -> None:
        height, width = picture.shape[:2]
        share = rng.uniform(SMALLEST_PATCH, LARGEST_PATCH)
        side = max(1, int(min(share * min(frame.size), height, width)))
        room = min(height / side, width / side, MOST_SMALLER)
        seen = side * rng.uniform(1.0, room)
        left, top = rng.random(2) * (width - seen, height - seen)
        first_x, first_y = floor(left), floor(top)
        part = picture[first_y : ceil(top + seen), first_x : ceil(left + seen)]
        left, top = left - first_x, top - first_y
        self._image = Image.fromarray(np.ascontiguousarray(part)).resize(
            (side, side),
            BICUBIC,
            (
                left,
                top,
                min(left + seen, part.shape[1]),
                min(top + seen, part.shape[0]),
            ),
        )
        self._shape = Image.fromarray(_outline(rng, side))
        self._place = rng.random(2) * frame.size

    def before(
        self, images: Sequence[Image.Image], path: Motion
    ) -> Iterator[Image.Image]:
        """Lay the patch over frames, as it moves; they stay as they are.

        Args:
            images: The frames.
            path: Of the patch, over the frames.
        """
        side = self._image.width
        for image, x, y, zoom, angle in zip(
            images, path.x, path.y, path.zoom, path.angle, strict=True
        ):
            scale = float(np.exp(zoom))
            x, y = x + self._place[0], y + self._place[1]
            reach = side * scale * 0.71 + 1
            left, top = max(0, floor(x - reach)), max(0, floor(y - reach))
            right = min(image.width, ceil(x + reach))
            bottom = min(image.height, ceil(y + reach))
            if left >= right or top >= bottom:
                yield image
                continue
            # Seen from the patch, the frame moves the other way.
            size = bottom - top, right - left
            away_x, away_y = (left + right) / 2 - x, (top + bottom) / 2 - y
            along, across = cos(angle) / scale, sin(angle) / scale
            matrix = _matrix(
                side / 2 + along * away_x + across * away_y,
                side / 2 - across * away_x + along * away_y,
                1 / scale,
                -angle,
                size,
            )
            cloth = self._image.transform(size[::-1], AFFINE, matrix, BICUBIC)
            shape = self._shape.transform(size[::-1], AFFINE, matrix, BILINEAR)
            laid = image.copy()
            laid.paste(cloth, (left, top), shape)
            yield laid


def _outline(rng: Rng, side: int) -> Frames:
    """Draw how much of each pixel a bumpy ellipse covers, (side, side), 0..255."""
    squeeze, turn = rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
    bumps, phases = rng.uniform(0, 0.12, 3), rng.uniform(0, 2 * np.pi, 3)
    down, right = np.mgrid[:side, :side] + 0.5 - side / 2
    x = right * np.cos(turn) + down * np.sin(turn)
    y = (down * np.cos(turn) - right * np.sin(turn)) / squeeze
    around = np.arctan2(y, x)
    radius = 1 - bumps.sum()
    for number, bump, phase in zip((2, 3, 5), bumps, phases, strict=True):
        radius = radius + bump * np.cos(number * around + phase)
    # No part of the edge is at the patch's own, where there is nothing beyond.
    inside = radius * (side / 2 - SOFT_EDGE) - np.hypot(x, y)
    covered = np.clip(inside / SOFT_EDGE + 0.5, 0, 1)
    return (255 * covered + 0.5).astype(np.uint8)
