"""Eight synthetic motions over still pictures: what a codec makes of each kind alone.

A clip is 32 frames of 512x512, computed from a picture I and, for ``fade``, the next
one; t counts from 0:

========  ==========================================================================
pattern   frame t
========  ==========================================================================
blur      frame t - 1 blurred: Gaussian 3x3 of sigma 0.8, edges mirrored; frame 0 is I
sharpen   blur backwards: its last frame is I
lighten   I (1 + 0.01 t)
darken    I (1 - 0.02 t)
fade      0.95^t I + (1 - 0.95^t) J, where J is the next picture
zoom      a window of side 512 / 0.98^t that moves right by 5 pixels per frame, centred
          at t = 15.5, sampled bilinearly
pulse     I if t is even, else 0.8 I
shake     I moved by whole pixels, at most 20 each way, drawn anew each frame; not at 0
========  ==========================================================================

Frames are computed in float64 on 0..255, then clipped and rounded to 8-bit RGB; only
``zoom`` and ``shake`` look beyond the central 512x512. Nothing random depends on a
library's version: the same spec is the same frames everywhere.

The paper's own numbers were lost but for 32 frames, 0.98, the period of 2 and the 20
pixels; the others are this suite's, after the generator of VCT.

Source: arXiv 2410.02598, section 7.2; VCT: arXiv 2206.07307.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.frames import open_video
from datamodules.paths import IMAGE_SUFFIXES, find_images, found_in
from datamodules.sequences.dead_leaves import Floats, draw_uniform, paint_leaves
from datamodules.sequences.files import VideoSequence

PATTERNS = ("blur", "sharpen", "lighten", "darken", "fade", "zoom", "pulse", "shake")

FRAMES = 32
SIDE = 512
FPS = Fraction(25)

MIN_SIDE = 1512
"""Shorter side of pictures that are used: VCT's choice, and room for every window."""

FROM_FOLDER = 100
"""Pictures of a folder that are used where no number is given; VCT's choice."""

PROCEDURAL = 4
"""Procedural pictures where no number is given."""

BLUR_SIGMA = 0.8
LIGHTEN = 0.01
DARKEN = 0.02
FADE = 0.95
ZOOM = 0.98
PAN = 5.0
PULSE = 0.8
SHAKE = 20


@dataclass(frozen=True)
class MotionClip:
    """A pattern over a picture.

    Attributes:
        pattern: One of :data:`PATTERNS`.
        picture: A file, or the number of a procedural picture.
        following: What ``fade`` ends in.
        seed: Of ``shake``.
    """

    pattern: str
    picture: Path | int
    following: Path | int
    seed: int

    @property
    def origin(self) -> str:
        """What it is made of, for the record: names of files, not their folders."""
        names = [_name(self.picture)]
        if self.pattern == "fade":
            names.append(_name(self.following))
        return f"motion pattern {self.pattern} of {' and '.join(names)}"

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Compute the clip: 32 frames (512, 512, 3), RGB."""
        picture = _read(self.picture)
        following = _read(self.following) if self.pattern == "fade" else None
        for frame in _move(self.pattern, picture, following, self.seed):
            yield np.rint(np.clip(frame, 0.0, 255.0)).astype(np.uint8)


def find_patterns(amount: str, folder: Path | None) -> list[VideoSequence]:
    """Return a set ``motion_<pattern>`` of each pattern, one sequence per picture.

    Args:
        amount: Number of pictures as text; empty for the default.
        folder: Of PNG and JPEG pictures, taken in natural order if their shorter side
            has at least 1512 pixels; ``None`` for procedural ones.

    Raises:
        ValueError: The number is below 2 (a picture fades into the next one), or there
            are not so many pictures.
    """
    wanted = int(amount) if amount.isdecimal() else -1
    if amount and wanted < 2:
        raise ValueError(
            f"{amount!r} pictures: give a number from 2, for each one fades into the "
            "next"
        )
    pictures: list[Path | int]
    if folder is None:
        pictures = [*range(wanted if amount else PROCEDURAL)]
    else:
        pictures = [*_find_pictures(folder, wanted if amount else None)]
    names = [Path(_name(picture)).stem for picture in pictures]
    found = []
    for pattern in PATTERNS:
        for number, picture in enumerate(pictures):
            following = pictures[(number + 1) % len(pictures)]
            # Two formats of one picture are two sequences.
            clash = names.count(names[number]) > 1
            found.append(
                VideoSequence(
                    f"motion_{pattern}",
                    _name(picture) if clash else names[number],
                    picture if isinstance(picture, Path) else Path(_name(picture)),
                    SIDE,
                    SIDE,
                    FPS,
                    FRAMES,
                    listed=True,
                    clip=MotionClip(pattern, picture, following, number),
                )
            )
    return found


def _find_pictures(folder: Path, wanted: int | None) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"patterns: there is no directory {folder.absolute()}")
    large: list[Path] = []
    small: list[str] = []
    for path in find_images(folder):
        if len(large) == (wanted or FROM_FOLDER):
            break
        with open_video(path) as image:
            width, height = image.width, image.height
        if min(width, height) >= MIN_SIDE:
            large.append(path)
        else:
            small.append(f"{path.name} ({width}x{height})")
    if len(large) < (wanted or 2):
        listed = ", ".join(small[:3]) + f" and {len(small) - 3} more" * (len(small) > 3)
        raise ValueError(
            f"patterns: {wanted or 2} pictures are needed whose shorter side has at "
            f"least {MIN_SIDE} pixels, and {folder.absolute()} holds {len(large)} "
            f"({' '.join(IMAGE_SUFFIXES)}); too small: {listed or 'none'}; found "
            f"{found_in(folder)}"
        )
    return large


def _name(picture: Path | int) -> str:
    return picture.name if isinstance(picture, Path) else f"leaves_{picture}"


def _read(picture: Path | int) -> Floats:
    """Return a picture (H, W, 3), RGB, 0..255."""
    if not isinstance(picture, Path):
        return paint_leaves(picture)
    with open_video(picture) as image:
        rgb = next(iter(image)).permute(1, 2, 0).numpy()
    return rgb.astype(np.float64) * 255.0


def _move(
    pattern: str, picture: Floats, following: Floats | None, seed: int
) -> Iterator[Floats]:
    """Give the frames of a pattern, not yet clipped and rounded."""
    still = _crop(picture)
    times = range(FRAMES)
    if pattern == "blur":
        yield from _blurred(still)
    elif pattern == "sharpen":
        yield from reversed(list(_blurred(still)))
    elif pattern == "lighten":
        yield from (still * (1 + LIGHTEN * t) for t in times)
    elif pattern == "darken":
        yield from (still * (1 - DARKEN * t) for t in times)
    elif pattern == "fade":
        assert following is not None
        end = _crop(following)
        yield from (FADE**t * still + (1 - FADE**t) * end for t in times)
    elif pattern == "zoom":
        yield from (_window(picture, t) for t in times)
    elif pattern == "pulse":
        yield from (still * (PULSE if t % 2 else 1.0) for t in times)
    elif pattern == "shake":
        steps = np.floor(draw_uniform((seed, 1), (FRAMES, 2)) * (2 * SHAKE + 1)) - SHAKE
        steps[0] = 0
        yield from (_crop(picture, *step) for step in steps.astype(int).tolist())
    else:
        raise ValueError(f"pattern {pattern!r} is unknown: choose from {PATTERNS}")


def _crop(picture: Floats, down: int = 0, right: int = 0) -> Floats:
    """Cut the central 512x512 out, moved by whole pixels."""
    height, width = picture.shape[:2]
    top, left = (height - SIDE) // 2 + down, (width - SIDE) // 2 + right
    return picture[top : top + SIDE, left : left + SIDE]


def _blurred(frame: Floats) -> Iterator[Floats]:
    side = math.exp(-1 / (2 * BLUR_SIGMA**2))
    outer, inner = side / (1 + 2 * side), 1 / (1 + 2 * side)
    for _ in range(FRAMES):
        yield frame
        for axis in (0, 1):
            # Neighbours, mirrored about the outermost pixels.
            padded = np.pad(frame, [(1, 1) if a == axis else (0, 0) for a in range(3)])
            padded = np.moveaxis(padded, axis, 0)
            padded[0], padded[-1] = padded[2], padded[-3]
            sums = inner * padded[1:-1] + outer * (padded[:-2] + padded[2:])
            frame = np.moveaxis(sums, 0, axis)


def _window(picture: Floats, time: int) -> Floats:
    """Sample 512x512 points of the window that ``zoom`` sees at a time."""
    step = ZOOM**-time
    middle = (SIDE - 1) / 2
    places = (np.arange(SIDE) - middle) * step
    height, width = picture.shape[:2]
    rows = (height - 1) / 2 + places
    columns = (width - 1) / 2 + PAN * (time - (FRAMES - 1) / 2) + places
    return _sample(_sample(picture, rows, 0), columns, 1)


def _sample(picture: Floats, places: Floats, axis: int) -> Floats:
    """Interpolate linearly along an axis."""
    below = np.floor(places).astype(int)
    shape = [-1 if a == axis else 1 for a in range(3)]
    part = (places - below).reshape(shape)
    first, second = picture.take(below, axis), picture.take(below + 1, axis)
    return first * (1 - part) + second * part
