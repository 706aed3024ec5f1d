"""Vimeo-90K: septuplets of 448x256 as PNG files.

Source: Xue et al., arXiv 1711.09078; list files as in the official archive, as
CompressAI reads them, and as one line per frame (the DVC re-implementation).
"""

from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from datamodules.paths import check_list, check_root, found_in
from datamodules.sources.source import (
    Blocks,
    ClipError,
    ClipSource,
    Frames,
    Rng,
    check_size,
    image_blocks,
    read_clip,
    read_images,
)
from datamodules.texts import read_text

Split: TypeAlias = Literal["train", "test"]

FRAMES = 7
LARGEST = 2**31 - 1  # Pixels, as far as OpenCV can count.
HOLDS = "`sequences/` and a list file, the archive's vimeo_septuplet/"
# The first that exists is taken. The DVC re-implementation trains on its test.txt.
LISTS: dict[Split, tuple[str, ...]] = {
    "train": ("sep_trainlist.txt", "train.list", "train.txt", "test.txt"),
    "test": ("sep_testlist.txt", "test.list", "test.txt"),
}


class Vimeo90KSource(ClipSource):
    """The septuplets that a list file names.

    Args:
        root: Directory that holds ``sequences/``.
        list_file: List file, absolute or relative to ``root``; found by its name if
            ``None``. Lines are ``00001/0001`` or ``00001/0001/im1.png``, with or
            without ``sequences/`` before.
        split: Which list to look for.

    Raises:
        ValueError: The root, the list or the septuplets it names are missing.
    """

    def __init__(
        self,
        root: str | Path | None,
        list_file: str | Path | None = None,
        split: Split = "train",
    ) -> None:
        self._root = check_root("vimeo90k", root, HOLDS)
        sequences = self._root / "sequences"
        if not sequences.is_dir():
            raise ValueError(
                f"source 'vimeo90k': looked for sequences/ in {self._root.absolute()}; "
                f"found {found_in(self._root)}"
            )
        self.list_file = find_list(self._root, split, list_file)
        if self.list_file is None:
            raise ValueError(
                f"source 'vimeo90k': looked for {', '.join(LISTS[split])} in "
                f"{self._root.absolute()}; found {found_in(self._root)}. "
                "Name another with `list_file`"
            )
        self._names = read_list(self.list_file)
        if not self._names:
            raise ValueError(f"source 'vimeo90k': {self.list_file} names no septuplet")
        self._check_folders(sequences)

    def _check_folders(self, sequences: Path) -> None:
        # One listing per parent instead of one look-up per septuplet: 91,701 of
        # them take minutes on a cluster's file system.
        present: dict[str, set[str]] = {}
        missing: list[str] = []
        for name in self._names:
            parent, _, folder = name.rpartition("/")
            if parent not in present:
                path = sequences / parent
                below = path.iterdir() if path.is_dir() else ()
                present[parent] = {entry.name for entry in below}
            if folder not in present[parent]:
                missing.append(name)
        if missing:
            raise ValueError(
                f"source 'vimeo90k': {self.list_file} names {len(missing)} folders (of "
                f"{len(self._names)}) that are missing in {sequences.absolute()}: "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. There "
                f"is {found_in(sequences, 3)}. Give the root that belongs to the list, "
                "or a `list_file` of what is there"
            )

    def __len__(self) -> int:
        return len(self._names)

    def label(self, item: int) -> str:
        """Return the septuplet's name, such as ``00001/0001``."""
        return self._names[item]

    def unfit(self, item: int, frames: int, crop: int) -> str:
        """Say whether the first septuplet, like all others, is too small for a crop."""
        try:
            check_size(*self._size, crop)
        except ClipError as error:
            return str(error)
        return ""

    @cached_property
    def _size(self) -> tuple[int, int]:
        first = self._root / "sequences" / self._names[0] / "im1.png"
        try:
            height, width = read_images([first]).shape[1:3]
        except ClipError:
            # Whoever reads it says so; what the others are is not known.
            return LARGEST, LARGEST
        return height, width

    def read(
        self, item: int, rng: Rng | None, frames: int, crop: int | None, stride: int
    ) -> Frames:
        """Read one clip (see :meth:`ClipSource.read`)."""
        folder = self._root / "sequences" / self._names[item]

        def blocks(numbers: list[int]) -> Blocks:
            return image_blocks([folder / f"im{number + 1}.png" for number in numbers])

        return read_clip(blocks, FRAMES, rng, frames, crop, stride)

    def describe(self) -> str:
        """Say list file and number of septuplets in one line."""
        return f"vimeo90k {self.list_file}: {len(self)} septuplets"

    def test_part(self) -> ClipSource | None:
        """Return the septuplets of the test list, if that is another one."""
        tests = find_list(self._root, "test")
        if tests is None or tests == self.list_file:
            return None
        return Vimeo90KSource(self._root, split="test")


def find_list(
    root: Path, split: Split, list_file: str | Path | None = None
) -> Path | None:
    """Return the list file of a split, or ``None`` if there is none.

    Raises:
        ValueError: The one that was named does not exist.
    """
    if list_file is not None:
        return check_list("vimeo90k", root, list_file)
    here = (root / name for name in LISTS[split])
    return next((path for path in here if path.is_file()), None)


def read_list(path: Path) -> list[str]:
    """Return the septuplets that a list file names, each once, in its order."""
    names: dict[str, None] = {}
    for line in read_text(path).splitlines():
        parts = [part for part in line.strip().replace("\\", "/").split("/") if part]
        if parts and parts[0] == "sequences":
            parts = parts[1:]
        if parts and parts[-1].lower().endswith(".png"):
            parts = parts[:-1]
        if parts:
            names["/".join(parts)] = None
    return list(names)
