"""Views of still pictures: scaled down without aliasing, placed between pixels.

A view is cut out of its picture in one step where the camera does not turn: Pillow's
``resize`` filters as wide as the view is scaled down, and takes edges between pixels.
Where the camera turns, the part that it sees is scaled down first, and interpolated by
torch: Pillow's own ``transform`` rounds down, half a code too dark.
"""

from math import ceil, cos, exp, floor, sin
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from datamodules.sources.source import Frames, Rng
from datamodules.sources.still_motion import Motion

BICUBIC = Image.Resampling.BICUBIC

MOST_SMALLER = 2.5
"""A picture is scaled down by 1 to this, as far as there is room.

Coding noise of JPEG goes, and a photograph's edges become as sharp as a frame's."""
SMALLEST_PATCH, LARGEST_PATCH = 0.25, 0.7
"""Side of a patch over the shorter one of the frame."""
SOFT_EDGE = 2.0
"""Pixels over which a patch fades, as a lens would have it."""
HALF_DIAGONAL = 0.5**0.5
"""Of a square, over its side."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels; edges may lie between them."""


def views(
    picture: Frames,
    camera: Motion,
    size: tuple[int, int],
    place: tuple[float, float],
    smaller: float,
) -> Frames:
    """Return the frames of a camera's path over a picture.

    Args:
        picture: (H, W, 3), RGB, 0..255.
        camera: A path that fits it (see :func:`~still_motion.fit`).
        size: Rows and columns of a frame.
        place: Of the path in the picture, right and down, each 0 to 1.
        smaller: How much the picture is scaled down, of what room and
            :data:`MOST_SMALLER` allow: 0 not at all, 1 as far as possible.

    Returns:
        (T, 3, rows, columns), 0..255.
    """
    rows, columns = size
    height, width = picture.shape[:2]
    left, top, right, bottom = camera.bounds(rows, columns)
    room = min(width / (right - left), height / (bottom - top), MOST_SMALLER)
    factor = 1 + smaller * max(0.0, room - 1)
    steps = factor * camera.scale
    seen_width, seen_height = factor * (right - left), factor * (bottom - top)
    seen_left = place[0] * max(0.0, width - seen_width)
    seen_top = place[1] * max(0.0, height - seen_height)
    # Around what the views see, a filter of the widest one reads two pixels of it more.
    part, corner = _cut(
        picture,
        (seen_left, seen_top, seen_left + seen_width, seen_top + seen_height),
        margin=ceil(2 * steps.max()) + 1,
    )
    xs = factor * (camera.x - left) + seen_left - corner[0]
    ys = factor * (camera.y - top) + seen_top - corner[1]
    if camera.turns:
        # The widest view has one pixel of this for one of the frame.
        scaled = ceil(part.width / steps.max()), ceil(part.height / steps.max())
        pixels = _floats(part.resize(scaled, BICUBIC))
    clip = np.empty((len(xs), 3, rows, columns), np.uint8)
    before: tuple[float, ...] = ()
    for number, view in enumerate(zip(xs, ys, steps, camera.angle, strict=True)):
        x, y, step, angle = view
        if view == before:
            clip[number] = clip[number - 1]
        elif camera.turns:
            place_in_part = x / part.width, y / part.height
            steps_in_part = step / part.width, step / part.height
            seen = _turned(pixels, place_in_part, steps_in_part, angle, size)
            clip[number] = seen.round_().clamp_(0, 255).byte().numpy()
        else:
            seen_box = _box(part, x, y, step, size)
            image = part.resize((columns, rows), BICUBIC, seen_box)
            clip[number] = np.asarray(image).transpose(2, 0, 1)
        before = view
    return clip


class Patch:
    """A part of a picture with a soft outline, which moves before another.

    Args:
        picture: (H, W, 3), RGB, 0..255.
        rng: Draws which part, its outline and its place.
        size: Rows and columns of the frames that it moves over.
    """

    def __init__(self, picture: Frames, rng: Rng, size: tuple[int, int]) -> None:
        height, width = picture.shape[:2]
        share = rng.uniform(SMALLEST_PATCH, LARGEST_PATCH)
        side = max(1, int(min(share * min(size), height, width)))
        seen = side * rng.uniform(1.0, min(height / side, width / side, MOST_SMALLER))
        left, top = rng.random(2) * (width - seen, height - seen)
        part, corner = _cut(picture, (left, top, left + seen, top + seen))
        x, y = left - corner[0] + seen / 2, top - corner[1] + seen / 2
        box = _box(part, x, y, seen / side, (side, side))
        cloth = _floats(part.resize((side, side), BICUBIC, box))
        self._layers = torch.cat([cloth, _outline(rng, side)[None]])
        self._side = side
        self._x, self._y = rng.random(2) * (size[1], size[0])

    def lay(self, clip: Frames, motion: Motion) -> None:
        """Lay the patch over frames (T, 3, H, W), as it moves in them."""
        xs, ys = motion.x + self._x, motion.y + self._y
        moves = zip(clip, xs, ys, motion.zoom, motion.angle, strict=True)
        for frame, x, y, zoom, angle in moves:
            self._lay(frame, x, y, exp(zoom), angle)

    def _lay(
        self, frame: Frames, x: float, y: float, scale: float, angle: float
    ) -> None:
        """Lay the patch over a frame (3, H, W), its centre at ``x`` and ``y``."""
        reach = self._side * scale * HALF_DIAGONAL + 1
        left, top = max(0, floor(x - reach)), max(0, floor(y - reach))
        right = min(frame.shape[2], ceil(x + reach))
        bottom = min(frame.shape[1], ceil(y + reach))
        if left >= right or top >= bottom:
            return
        # Seen from the patch, the frame has moved the other way.
        away_x, away_y = (left + right) / 2 - x, (top + bottom) / 2 - y
        step = 1 / (scale * self._side)
        along, across = step * cos(angle), step * sin(angle)
        centre = (
            0.5 + along * away_x + across * away_y,
            0.5 - across * away_x + along * away_y,
        )
        area = bottom - top, right - left
        layers = _turned(self._layers, centre, (step, step), -angle, area)
        under = torch.from_numpy(frame[:, top:bottom, left:right])
        covered = layers[3].clamp_(0, 1)
        mixed = torch.lerp(under.float(), layers[:3], covered)
        under.copy_(mixed.round_().clamp_(0, 255))


def _floats(image: Image.Image) -> Tensor:
    """Return an image as (3, H, W), 0..255."""
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).astype(np.float32))


def _turned(
    layers: Tensor,
    centre: tuple[float, float],
    step: tuple[float, float],
    angle: float,
    size: tuple[int, int],
) -> Tensor:
    """Interpolate a view between the pixels of layers.

    Args:
        layers: (C, H, W).
        centre: Of the view, right and down, of the layers' width and height.
        step: From one pixel of the view to the next, of the same two.
        angle: In radians, clockwise.
        size: Rows and columns of the view.

    Returns:
        (C, rows, columns), which may lie somewhat beyond the layers' range.
    """
    rows, columns = size
    # Torch counts from -1 to 1, in the layers and in the view.
    matrix = [
        [step[0] * cos(angle) * columns, -step[0] * sin(angle) * rows, centre[0]],
        [step[1] * sin(angle) * columns, step[1] * cos(angle) * rows, centre[1]],
    ]
    theta = torch.tensor(matrix, dtype=torch.float32)
    theta[:, 2] = 2 * theta[:, 2] - 1
    grid = affine_grid(theta[None], [1, len(layers), rows, columns], False)
    return grid_sample(layers[None], grid, "bicubic", "border", False)[0]


def _cut(
    picture: Frames, box: Box, margin: int = 0
) -> tuple[Image.Image, tuple[int, int]]:
    """Return the part of a picture that holds a box, and where its corner lies."""
    left, top = max(0, floor(box[0]) - margin), max(0, floor(box[1]) - margin)
    part = picture[top : ceil(box[3]) + margin, left : ceil(box[2]) + margin]
    return Image.fromarray(np.ascontiguousarray(part)), (left, top)


def _box(
    part: Image.Image, x: float, y: float, step: float, size: tuple[int, int]
) -> Box:
    """Return the box of an upright view around a centre.

    Rounding may take a view some 1e-13 pixels beyond the picture, which Pillow refuses.
    """
    half_height, half_width = step * size[0] / 2, step * size[1] / 2
    return (
        max(0.0, x - half_width),
        max(0.0, y - half_height),
        min(float(part.width), x + half_width),
        min(float(part.height), y + half_height),
    )


def _outline(rng: Rng, side: int) -> Tensor:
    """Draw how much of each pixel a bumpy ellipse covers, (side, side), 0 to 1."""
    squeeze, turn = rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
    bumps, phases = rng.uniform(0, 0.12, 3), rng.uniform(0, 2 * np.pi, 3)
    down, right = np.mgrid[:side, :side] + 0.5 - side / 2
    x = right * np.cos(turn) + down * np.sin(turn)
    y = (down * np.cos(turn) - right * np.sin(turn)) / squeeze
    around = np.arctan2(y, x)
    radius = 1 - bumps.sum()
    for number, bump, phase in zip((2, 3, 5), bumps, phases, strict=True):
        radius = radius + bump * np.cos(number * around + phase)
    # It ends before the patch's own border, beyond which there is no cloth.
    inside = radius * (side / 2 - SOFT_EDGE) - np.hypot(x, y)
    covered = np.clip(inside / SOFT_EDGE + 0.5, 0, 1)
    return torch.from_numpy(covered.astype(np.float32))
