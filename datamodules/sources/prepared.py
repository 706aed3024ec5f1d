"""A store of decoded shots, which ``python -m experiments.prepare`` made of videos."""

from collections.abc import Sequence
from functools import lru_cache
from io import FileIO
from os import getpid
from pathlib import Path

import numpy as np

from datamodules.paths import check_root, reason_of
from datamodules.prepared.formats import Place
from datamodules.prepared.shard import data_file
from datamodules.prepared.store import Store
from datamodules.sources.source import (
    ClipError,
    ClipSource,
    Frames,
    Rng,
    choose_window,
    unfit_for,
    window,
)

HOLDS = "a store that `python -m experiments.prepare IN OUT` made"
OPEN_FILES = 64
"""Of a process, at most; each is some GB."""


class PreparedSource(ClipSource):
    """The shots of a prepared store; a clip never runs over a cut.

    Each shot is one entry of the list, in the order of the videos. Frames are equal to
    those of the folder source at the stored size: all bits for ``rgb``, with the errors
    of their format for others (``experiments/prepare/README.md``).

    Args:
        root: The store.

    Raises:
        ValueError: It is no store, not finished, of another version, or damaged.
    """

    def __init__(self, root: str | Path | None) -> None:
        folder = check_root("prepared", root, HOLDS)
        self._store = Store.open(folder.absolute())
        self.fingerprint = self._store.fingerprint

    def __len__(self) -> int:
        return len(self._store.shots)

    def label(self, item: int) -> str:
        """Return the video's path below the source's root, and the shot's place."""
        shot = self._store.shots[item]
        last = (
            int(shot["first"]) + (int(shot["frames"]) - 1) * self._store.recipe.stride
        )
        return f"{self._store.name(int(shot['video']))} frames {shot['first']}-{last}"

    def unfit(self, item: int, frames: int, crop: int) -> str:
        """Say what the index has against a clip (see :meth:`ClipSource.unfit`)."""
        shot = self._store.shots[item]
        video = self._store.videos[shot["video"]]
        height, width = int(video["height"]), int(video["width"])
        return unfit_for(int(shot["frames"]), height, width, frames, crop)

    def read(
        self, item: int, rng: Rng | None, frames: int, crop: int | None, stride: int
    ) -> Frames:
        """Read one clip, no more than its rows (see :meth:`ClipSource.read`)."""
        store, shot = self._store, self._store.shots[item]
        video = store.videos[shot["video"]]
        height, width = int(video["height"]), int(video["width"])
        # In this order, because the other sources draw in it.
        numbers = window(int(shot["frames"]), frames, stride, rng)
        part = choose_window(height, width, crop, rng)
        distinct, places = np.unique(numbers, return_inverse=True)
        try:
            file = _open(data_file(store.folder, int(video["shard"])), getpid())
            clip = store.recipe.make_format(height, width).read(
                file.fileno(),
                Place(int(shot["start"]), int(shot["table"])),
                distinct.tolist(),
                part,
            )
        except (OSError, OverflowError) as error:
            # The latter of a place in a damaged table that is beyond all files.
            raise ClipError(f"the prepared store: {reason_of(error)}") from error
        # Nothing is copied where the video is not played to and fro.
        return clip if distinct.tolist() == numbers else clip[places]

    def hold_out(self, most: int) -> tuple[Sequence[int], Sequence[int]] | None:
        """Hold out all shots of the last videos; the longest of each validates."""
        store = self._store
        kept = len(store.videos) - most
        if kept < most:
            return None
        begins = np.searchsorted(store.shots["video"], np.arange(kept, kept + most))
        ends = [*begins[1:], len(store.shots)]
        longest = [
            int(begin) + int(store.shots["frames"][begin:end].argmax())
            for begin, end in zip(begins, ends, strict=True)
        ]
        return range(int(begins[0])), longest

    def describe(self) -> str:
        """Say root, videos, shots, frames, format and fingerprint in one line."""
        return f"prepared {self._store.folder}: {self._store.describe()}"


@lru_cache(maxsize=OPEN_FILES)
def _open(path: Path, process: int) -> FileIO:
    """Open a file of frames; of each process its own, and the last ones stay open."""
    return FileIO(path)
