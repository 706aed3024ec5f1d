"""Any tree of video files and of directories of PNG or JPEG frames."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from datamodules.paths import (
    IMAGE_SUFFIXES,
    PNG,
    check_root,
    find_frames,
    found_in,
    printable,
)
from datamodules.sources.index import VideoInfo, index_videos
from datamodules.sources.pyav_reader import PyAvReader
from datamodules.sources.readers import READERS, has_decord, y4m_blocks
from datamodules.sources.source import (
    Blocks,
    ClipError,
    ClipSource,
    Frames,
    Rng,
    check_size,
    image_blocks,
    read_clip,
    unfit_for,
)

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".y4m")
HOLDS = f"videos ({' '.join(VIDEO_SUFFIXES)}) or directories of PNG or JPEG frames"


class FileSource(ClipSource):
    """Videos by path, indexed once.

    Attributes:
        things: What the source reads, for messages.

    Args:
        name: Name of the source, for messages.
        root: The tree that holds the index.
        names: Videos and directories of images, relative to ``root``.

    Raises:
        ValueError: No video can be used.
    """

    things: ClassVar[str] = "videos"

    def __init__(self, name: str, root: Path, names: Sequence[str]) -> None:
        self._name = name
        self._root = root
        index = index_videos(root, names)
        self.skipped = {
            printable(name): info.error for name, info in index.items() if info.error
        }
        self._videos = [(name, info) for name, info in index.items() if not info.error]
        if not self._videos:
            first = "; ".join(f"{k}: {v}" for k, v in list(self.skipped.items())[:3])
            raise ValueError(
                f"source {name!r}: none of the {len(names)} {self.things} under {root} "
                f"can be used: {first}"
            )

    @property
    def root(self) -> Path:
        """The tree."""
        return self._root

    @property
    def videos(self) -> Sequence[tuple[str, VideoInfo]]:
        """Paths below the root of those that can be used, with what they are."""
        return self._videos

    def __len__(self) -> int:
        return len(self._videos)

    def label(self, item: int) -> str:
        """Return the video's path below the root."""
        return printable(self._videos[item][0])

    def unfit(self, item: int, frames: int, crop: int) -> str:
        """Say what the index has against a clip (see :meth:`ClipSource.unfit`)."""
        info = self._videos[item][1]
        return unfit_for(info.frames, info.height, info.width, frames, crop)

    def read(
        self, item: int, rng: Rng | None, frames: int, crop: int | None, stride: int
    ) -> Frames:
        """Read one clip (see :meth:`ClipSource.read`)."""
        name, info = self._videos[item]
        if crop is not None and rng is not None:
            check_size(info.height, info.width, crop)
        path = self._root / name

        def blocks(numbers: list[int]) -> Blocks:
            if path.is_dir():
                images = find_frames(path)
                if len(images) <= numbers[-1]:
                    raise ClipError(f"it holds {len(images)} images now")
                return image_blocks([images[number] for number in numbers])
            if path.suffix.lower() == ".y4m":
                return y4m_blocks(path, numbers)
            if rng is None:
                return PyAvReader(path, exact=True).blocks(numbers)
            return READERS.blocks((path, info), numbers)

        return read_clip(blocks, info.frames, rng, frames, crop, stride)

    def describe(self) -> str:
        """Say root, videos, frames, hours and reader in one line."""
        frames = sum(info.frames for _, info in self._videos)
        seconds = sum(info.frames / info.fps for _, info in self._videos if info.fps)
        reader = "decord" if has_decord() else "PyAV, decord is not installed"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"{self._name} {self._root}: {len(self)} videos, {frames:,} frames, "
            f"{seconds / 3600:.2f} hours{skipped} (read with {reader})"
        )


class FolderSource(FileSource):
    """Every video file and every directory of PNG frames below a root.

    A directory that directly holds PNG files, or JPEG files and no video, is one video,
    its frames in natural order (``im2.png`` before ``im10.png``). Hidden files and
    directories are left out. The first opening of a large tree examines every video;
    opening it once by hand before a run on many devices keeps those from waiting.

    Args:
        root: The tree.

    Raises:
        ValueError: There is no such directory, or no video in it.
    """

    def __init__(self, root: str | Path | None) -> None:
        super().__init__("folder", *look_below("folder", root, HOLDS, find_videos))


def look_below(
    source: str, root: str | Path | None, holds: str, find: Callable[[Path], list[str]]
) -> tuple[Path, list[str]]:
    """Return the tree of a source, and what is found in it.

    Args:
        source: Its name, for messages.
        root: The tree, as the user names it.
        holds: What should be in it.
        find: Returns what is below a directory, relative to it.

    Raises:
        ValueError: There is no such directory, or nothing of the kind in it.
    """
    path = check_root(source, root, holds)
    if names := find(path):
        return path, names
    raise ValueError(
        f"source {source!r}: looked in {path.absolute()} and below for {holds}; "
        f"found {found_in(path)}"
    )


def find_videos(root: Path) -> list[str]:
    """Return videos and directories of images below a root, sorted, relative to it."""
    names: list[str] = []
    for here, visible in visible_files(root):
        videos = [name for name in visible if name.lower().endswith(VIDEO_SUFFIXES)]
        names += [(here / name).as_posix() for name in videos]
        # JPEG files beside videos are previews of them.
        frames = PNG if videos else IMAGE_SUFFIXES
        if any(name.lower().endswith(frames) for name in visible):
            names.append(here.as_posix())
    return sorted(names)


def visible_files(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every directory below a root, each once, with its files; hidden ones not.

    Yields:
        The directory relative to ``root``, and the names of its files.
    """
    seen: set[tuple[int, int]] = set()
    for directory, below, files in os.walk(root, followlinks=True):
        status = os.stat(directory)
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        visible = [name for name in files if not name.startswith(".")]
        yield Path(directory).relative_to(root), visible
