"""Procedural moving scenes: video to learn on without a download.

A scene is a textured background under a moving camera with textured things moving
before it, brightness that drifts, sensor noise, and sometimes a cut. Pictures are
built as dead leaves (overlapping shapes whose sizes follow a power law) with 1/f
texture on them: both the edges and the spectrum of photographs.

Source: Lee, Mumford, Huang, "Occlusion Models for Natural Images", IJCV 41, 2001.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.sources.source import ClipSource, Frames, Rng, opencv

Floats = npt.NDArray[np.float32]

FIRST_TEST_SCENE = 2**32
WHOLE = 256  # Side of a frame in pixels where no crop is asked for.

CUT_PROBABILITY = 0.1
STILL_CAMERA_PROBABILITY = 0.2


@dataclass(eq=False)
class SyntheticSource(ClipSource):
    """Endless scenes; item number and generator decide everything about a clip.

    Attributes:
        videos: Number of scenes.
        first: Number of the first; sources whose ranges do not overlap share none.
    """

    videos: int = 65536
    first: int = 0

    def __len__(self) -> int:
        return self.videos

    def label(self, item: int) -> str:
        """Return the scene's name."""
        return f"scene_{self.first + item}"

    def read(
        self, item: int, rng: Rng | None, frames: int, crop: int | None, stride: int
    ) -> Frames:
        """Paint one clip (see :meth:`ClipSource.read`)."""
        draw = 0 if rng is None else int(rng.integers(2**32))
        own = np.random.Generator(np.random.Philox([self.first + item, draw]))
        size = crop or WHOLE
        clip = np.empty((frames, size, size, 3), np.float32)
        times = np.arange(frames, dtype=np.float32) * stride
        change = frames
        if frames > 1 and own.random() < CUT_PROBABILITY:
            change = int(own.integers(1, frames))
        for part in (slice(0, change), slice(change, frames)):
            if part.start < part.stop:
                # Motion is centred in the clip, so that it stays on the canvas.
                _paint(own, clip[part], times[part] - times[part].mean())
        noise = _noise(own, frames, size)
        for frame, grain in zip(clip, noise, strict=True):
            frame += grain
        return np.clip(clip + 0.5, 0, 255).astype(np.uint8)

    def describe(self) -> str:
        """Say what this source is in one line."""
        return f"synthetic: {len(self):,} procedural scenes"

    def test_part(self) -> ClipSource:
        """Return scenes that no training source holds."""
        return SyntheticSource(first=FIRST_TEST_SCENE)


def _noise(rng: Rng, frames: int, size: int) -> list[Floats]:
    """Cut one grain of noise per frame out of a common tile: drawing it is slow."""
    spare = 24
    tile = rng.standard_normal((size + spare, size + spare, 3), np.float32)
    tile *= np.float32(rng.uniform(0.0, 2.0))
    corners = rng.integers(0, spare + 1, (frames, 2))
    return [tile[y : y + size, x : x + size] for y, x in corners]


def _texture(rng: Rng, height: int, width: int, persistence: float) -> Floats:
    """Return noise (height, width) of mean 0 and standard deviation 1.

    ``persistence`` is the amplitude of an octave over that of the coarser one before:
    1 makes the spectrum fall with 1/f, as in photographs, 0.5 with 1/f^2, as clouds.
    """
    cv2 = opencv()
    octaves = max(1, int(np.ceil(np.log2(max(height, width) / 4))))
    texture = np.zeros((1, 1), np.float32)
    for octave in range(octaves, -1, -1):
        shape = (-(-height >> octave), -(-width >> octave))
        texture = cv2.resize(texture, shape[::-1], interpolation=cv2.INTER_LINEAR)
        texture += rng.standard_normal(shape, np.float32)
        texture *= np.float32(1 / persistence)
    normal: Floats = (texture - texture.mean()) / texture.std()
    return normal


def _colours(rng: Rng, count: int, mood: Floats, contrast: float) -> Floats:
    """Draw a palette (count, 3), RGB, 0..255: greys of one mood with own tints."""
    grey = rng.normal(0, contrast, (count, 1))
    own = rng.normal(0, 1, (count, 3)) * rng.choice([3.0, 8.0, 25.0], (count, 1))
    palette: Floats = np.clip(mood + grey + own, 5, 250).astype(np.float32)
    return palette


def _outlines(rng: Rng, radii: npt.NDArray[Any]) -> Floats:
    """Draw shapes around the origin, (len(radii), 20, 2): round, angular or bumpy."""
    count = len(radii)
    angles = np.arange(20) * (2 * np.pi / 20)
    power = rng.choice([1.0, 2.0, 2.0, 6.0], (count, 1))
    cos, sin = np.cos(angles), np.sin(angles)
    length = (np.abs(cos) ** power + np.abs(sin) ** power) ** (-1 / power)
    for harmonic in (2, 3, 5):
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        bump = rng.uniform(0, 0.35 / harmonic, (count, 1))
        length = length * (1 + bump * np.cos(harmonic * angles + phase))
    x = length * cos * radii[:, None]
    y = length * sin * radii[:, None] * rng.uniform(0.3, 1.0, (count, 1))
    turn = rng.uniform(0, 2 * np.pi, (count, 1))
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    corners: Floats = np.stack([x, y], axis=-1).astype(np.float32)
    return corners


def _fill(image: Any, outline: Floats, colour: Any) -> None:
    """Fill a shape with smooth edges, at a sixteenth of a pixel's accuracy."""
    cv2 = opencv()
    points = np.rint(outline * 16).astype(np.int32)
    cv2.fillPoly(image, [points], colour, lineType=cv2.LINE_AA, shift=4)


def _canvas(rng: Rng, side: int) -> Frames:
    """Paint a still picture (side, side, 3), RGB, 0..255."""
    cv2 = opencv()
    # Three areas with ragged borders, then leaves on them. The fourth channel is how
    # strongly the texture shows.
    mood = rng.uniform(70, 170) + rng.normal(0, 12, 3)
    contrast = rng.uniform(12, 50)
    area = _texture(rng, side, side, rng.uniform(0.4, 0.7))
    palette = _colours(rng, 3, mood, contrast)
    palette = np.concatenate([palette, rng.uniform(4, 20, (3, 1))], axis=1)
    level = (area > rng.uniform(-1, 0)).astype(np.uint8) + (area > rng.uniform(0, 1))
    leaves = palette.astype(np.uint8)[level]
    count = 10 + side // 8
    largest, smallest = side / 4, side / 40 + 1
    radii = 1 / rng.uniform(1 / largest, 1 / smallest, count)
    outlines = _outlines(rng, radii) + rng.uniform(0, side, (count, 1, 2))
    colours = _colours(rng, count, mood, contrast)
    strength = rng.choice([3.0, 6.0, 12.0, 24.0], (count, 1))
    colours = np.concatenate([colours, strength], axis=1).tolist()
    for outline, colour in zip(outlines, colours, strict=True):
        _fill(leaves, outline, colour)
    leaves = cv2.GaussianBlur(leaves, (3, 3), 0.6)
    # Stretched noise looks like grass, hair, wood and cloth.
    height, width = rng.choice([(1, 1), (1, 1), (1, 3), (3, 1)])
    texture = _texture(rng, side // height, side // width, rng.uniform(0.75, 1.0))
    texture = cv2.resize(texture, (side, side), interpolation=cv2.INTER_LINEAR)
    lit = leaves[..., :3] + (texture * leaves[..., 3])[..., None]
    picture: Frames = np.clip(lit, 0, 255).astype(np.uint8)
    return picture


def _affine(angle: float, scale: float, centre: Floats, to: Floats) -> Floats:
    """Return the 2x3 matrix that turns and scales about ``centre``, put at ``to``."""
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix: Floats = np.concatenate([turn, (to - turn @ centre)[:, None]], 1)
    return matrix.astype(np.float32)


def _velocity(rng: Rng, mean: float) -> Floats:
    """Draw pixels per frame, (2,): mostly slow, seldom fast."""
    angle = rng.uniform(0, 2 * np.pi)
    speed = min(rng.exponential(mean), 6 * mean)
    return (speed * np.array([np.cos(angle), np.sin(angle)])).astype(np.float32)


def _paint(rng: Rng, clip: Floats, times: Floats) -> None:
    """Paint one shot into square frames (T, H, W, 3) of about 0..255.

    Its ``times`` (T,) are in frames, around 0.
    """
    cv2 = opencv()
    size = clip.shape[1]
    side = int(size * 1.3)
    background = _canvas(rng, side)
    sheet = _canvas(rng, int(size * 0.7) + 4)
    things = [_Thing(rng, size, sheet) for _ in range(int(rng.integers(1, 5)))]
    still = rng.random() < STILL_CAMERA_PROBABILITY
    pan = np.zeros(2, np.float32) if still else _velocity(rng, 1.0)
    zoom, roll = (0.0, 0.0) if still else rng.normal(0, [0.004, 0.003])
    drift = rng.normal(0, 0.004) if rng.random() < 0.7 else rng.normal(0, 0.03)
    middle = np.full(2, (side - 1) / 2, np.float32)
    view = np.full(2, (size - 1) / 2, np.float32)
    for frame, time in zip(clip, times, strict=True):
        camera = pan * time
        matrix = _affine(roll * time, np.exp(zoom * time), middle, view + camera)
        picture = cv2.warpAffine(
            background,
            matrix,
            (size, size),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for thing in things:
            thing.paint(picture, time, camera)
        np.multiply(picture, np.float32(max(0.2, 1 + drift * time)), out=frame)


class _Thing:
    """A textured shape that moves by itself."""

    def __init__(self, rng: Rng, size: int, sheet: Frames) -> None:
        radius = rng.uniform(size / 12, size / 4)
        self._side = 2 * int(radius * 1.3) + 3
        self._middle = np.full(2, (self._side - 1) / 2, np.float32)
        self._patch = np.zeros((self._side, self._side, 4), np.uint8)
        outline = _outlines(rng, np.array([radius]))[0]
        _fill(self._patch, outline + self._middle, (0, 0, 0, 255))
        top, left = rng.integers(0, len(sheet) - self._side + 1, 2)
        cloth = sheet[top : top + self._side, left : left + self._side]
        self._patch[..., :3] = cloth
        self._place = rng.uniform(0, size, 2).astype(np.float32)
        self._speed = _velocity(rng, 1.5)
        self._spin, self._growth = rng.normal(0, [0.02, 0.005])

    def paint(self, picture: Frames, time: float, camera: Floats) -> None:
        """Lay the thing over a frame (H, W, 3) as it is at ``time``."""
        cv2 = opencv()
        scale = float(np.exp(self._growth * time))
        at = self._place + self._speed * time + camera
        reach = self._side * scale * 0.75 + 2
        left, top = np.maximum(at - reach, 0).astype(int)
        right, bottom = np.minimum(at + reach, picture.shape[0]).astype(int)
        if left >= right or top >= bottom:
            return
        corner = np.array([left, top], np.float32)
        matrix = _affine(self._spin * time, scale, self._middle, at - corner)
        layer = cv2.warpAffine(
            self._patch,
            matrix,
            (int(right - left), int(bottom - top)),
            flags=cv2.INTER_LINEAR,
        )
        under = picture[top:bottom, left:right]
        alpha = layer[..., 3:] * np.float32(1 / 255)
        under[...] = under + (layer[..., :3] - under.astype(np.float32)) * alpha
