"""Photographs as clips: a camera moves over each, and often a patch before it."""

import os
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import numpy as np

from datamodules.paths import IMAGE_SUFFIXES
from datamodules.sources.folder import FileSource, look_below, visible_files
from datamodules.sources.index import VideoInfo
from datamodules.sources.source import (
    ClipError,
    Frames,
    Rng,
    check_size,
    read_images,
    unfit_for,
)
from datamodules.sources.still_motion import draw_motion, fit
from datamodules.sources.still_views import Patch, views

HOLDS = f"photographs ({' '.join(IMAGE_SUFFIXES)})"

ROOM = 1.25
"""A whole picture over the frames of its fixed clip: a camera needs room to move."""
PATCHED = 0.3
"""Share of clips with a patch of another picture before this one."""
PICTURES_BYTES = 256 << 20
"""Bytes of the decoded pictures that a process keeps, as of its open videos."""


class StillsSource(FileSource):
    """Every PNG and JPEG file below a root, each the background of clips.

    Hidden files and directories are left out. The first opening decodes every picture
    once, as :class:`~datamodules.sources.folder.FolderSource` examines videos.

    Args:
        root: The tree.

    Raises:
        ValueError: There is no such directory, or no picture in it.
    """

    things: ClassVar[str] = "pictures"

    def __init__(self, root: str | Path | None) -> None:
        super().__init__("stills", *look_below("stills", root, HOLDS, find_pictures))

    def unfit(self, item: int, frames: int, crop: int) -> str:
        """Say whether a picture is too small (see :meth:`ClipSource.unfit`)."""
        info = self._videos[item][1]
        return unfit_for(frames, info.height, info.width, frames, crop)

    def read(
        self, item: int, rng: Rng | None, frames: int, crop: int | None, stride: int
    ) -> Frames:
        """Make one clip (see :meth:`ClipSource.read`).

        A fixed clip follows from the picture's name; its frames are at most as large as
        leaves the camera room.
        """
        name, info = self._videos[item]
        # One draw, however far this picture gets.
        own = _own_generator(name, rng)
        rows, columns = _frame_size(info, rng, frames, crop)
        times = (np.arange(frames) - (frames - 1) / 2) * stride
        camera = draw_motion(own, times)
        camera = fit(camera, rows, columns, info.height, info.width)
        # A fixed clip is the centred one.
        place = (0.5, 0.5) if rng is None else (own.random(), own.random())
        background, smaller = self._picture(item), own.random()
        clip = views(background, camera, (rows, columns), place, smaller)
        if frames > 1 and own.random() < PATCHED:
            # Never a later one: the last validate, and are not to be trained on.
            other = self._picture(int(own.integers(item + 1)))
            patch = Patch(other, own, (rows, columns))
            patch.lay(clip, draw_motion(own, times).plus(camera.times(-1.0)))
        return clip.transpose(0, 2, 3, 1)

    def describe(self) -> str:
        """Say root, pictures and pixels in one line."""
        pixels = sum(info.width * info.height for _, info in self._videos)
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"stills {self._root}: {len(self)} pictures, {pixels / 1e6:,.1f} "
            f"megapixels{skipped}"
        )

    def _picture(self, item: int) -> Frames:
        name, info = self._videos[item]
        picture = PICTURES.read(self._root / name, info)
        if picture.shape[:2] != (info.height, info.width):
            height, width = picture.shape[:2]
            raise ClipError(
                f"{self.label(item)} was {info.width}x{info.height} when it was "
                f"indexed, and is {width}x{height} now"
            )
        return picture


def find_pictures(root: Path) -> list[str]:
    """Return the pictures below a root, sorted, relative to it."""
    return sorted(
        (here / name).as_posix()
        for here, names in visible_files(root)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES)
    )


class Pictures:
    """Decoded pictures that a process keeps: those read last, within a limit.

    Args:
        limit: Bytes of them all.
    """

    def __init__(self, limit: int = PICTURES_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._kept: OrderedDict[tuple[Path, VideoInfo], Frames] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, path: Path, info: VideoInfo) -> Frames:
        """Return a picture (H, W, 3), RGB, 0..255; nobody may write to it.

        Raises:
            ClipError: It is missing, cut or damaged.
        """
        key = path, info
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        picture = np.ascontiguousarray(read_images([path])[0])
        if picture.nbytes <= self._limit:
            self._kept[key] = picture
            self._held += picture.nbytes
            while self._held > self._limit:
                self._held -= self._kept.popitem(last=False)[1].nbytes
        return picture


PICTURES = Pictures()
"""The pictures that this process keeps."""


def _own_generator(name: str, rng: Rng | None) -> Rng:
    """Return the generator of a clip: of the name alone where it is fixed."""
    if rng is None:
        digest = blake2b(os.fsencode(name), digest_size=8).digest()
        return np.random.Generator(np.random.Philox(int.from_bytes(digest, "big")))
    return np.random.Generator(np.random.Philox(int(rng.integers(2**63))))


def _frame_size(
    info: VideoInfo, rng: Rng | None, frames: int, crop: int | None
) -> tuple[int, int]:
    """Return rows and columns of a clip's frames."""
    if crop is not None and rng is not None:
        check_size(info.height, info.width, crop)
        return crop, crop
    room = 1.0 if frames == 1 else ROOM
    rows, columns = (max(1, int(side / room)) for side in (info.height, info.width))
    return min(rows, crop or rows), min(columns, crop or columns)
