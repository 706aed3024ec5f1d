"""One file of a store while it is written: a crash costs the video that was at it.

Videos are appended, and each is entered in a journal beside the file once its bytes are
on the disk. Whoever goes on cuts off what the journal does not know. A line of the
journal has its checksum in front, so that a torn one counts as none.
"""

import errno
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datamodules.prepared.cuts import CutFinder
from datamodules.prepared.formats import FrameFormat
from datamodules.prepared.frames import decode_frames, scale
from datamodules.prepared.recipe import Recipe
from datamodules.sources.source import ClipError
from datamodules.whole_files import naming_full


@dataclass(frozen=True)
class StoredVideo:
    """A video in a file of the store.

    Attributes:
        number: Of the video in the plan, from 0.
        height: Rows of its frames.
        width: Columns.
        start: Byte of the file at which it begins.
        end: Byte at which the next one does.
        crc: CRC-32 of the bytes between.
        shots: For each its first frame in the source, its number of stored frames, and
            where it and its table begin (:class:`formats.Place`).
        note: Why frames of it are missing, if any are.
    """

    number: int
    height: int
    width: int
    start: int
    end: int
    crc: int
    shots: tuple[tuple[int, int, int, int], ...]
    note: str = ""


def data_file(folder: Path, number: int) -> Path:
    """Return the file of frames with a number."""
    return folder / f"{number:05}.frames"


def journal_file(folder: Path, number: int) -> Path:
    """Return the journal beside it."""
    return folder / f"{number:05}.journal"


def read_journal(path: Path) -> tuple[list[StoredVideo], int]:
    """Return the videos that a journal has entered, and the length of that in bytes."""
    videos: list[StoredVideo] = []
    length = 0
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return videos, length
    for line in data.splitlines(keepends=True):
        text = line[9:-1]
        if not line.endswith(b"\n") or line[:8] != b"%08x" % zlib.crc32(text):
            break
        entry = json.loads(text)
        shots = tuple((a, b, c, d) for a, b, c, d in entry.pop("shots"))
        videos.append(StoredVideo(**entry, shots=shots))
        length += len(line)
    return videos, length


class ShardWriter:
    """Appends videos to one file of a store.

    Args:
        folder: Of the store.
        number: Of the file.
        recipe: What is done to each video.

    Attributes:
        done: The videos that it holds.
    """

    def __init__(self, folder: Path, number: int, recipe: Recipe) -> None:
        self._recipe = recipe
        self._path = data_file(folder, number)
        self._journal_path = journal_file(folder, number)
        self.done, known = read_journal(self._journal_path)
        end = self.done[-1].end if self.done else 0
        with naming_full(self._path):
            self._file = self._path.open("ab")
            self._journal = self._journal_path.open("ab")
        if self._path.stat().st_size < end:
            raise ValueError(
                f"{self._path} has lost frames that {self._journal_path.name} has "
                "entered: remove both, and the same command makes them again"
            )
        self._file.truncate(end)
        self._journal.truncate(known)
        self._at = end
        self._crc = 0

    def add(
        self, number: int, path: Path, on_frame: Callable[[], None] = lambda: None
    ) -> StoredVideo:
        """Decode a video and append it.

        Args:
            number: Of the video in the plan.
            path: Where it lies.
            on_frame: Called for each frame that was decoded.

        Returns:
            Its entry; without shots if nothing of it can be used.

        Raises:
            OSError: It cannot be written: the disk is full, for example. Or the video
                has gone.
        """
        start, self._crc = self._at, 0
        size, note = (0, 0), ""
        shots: list[tuple[int, int, int, int]] = []
        with self._undone_on_error(start):
            try:
                for kept in self._append_shots(path, on_frame):
                    size, place = kept
                    shots.append(place)
            except ClipError as error:
                if not path.exists():
                    # No damage: a disk that is gone would end as an empty store.
                    raise FileNotFoundError(
                        errno.ENOENT,
                        "it was there when the store was begun: restore it, and the "
                        "same command goes on",
                        os.fspath(path),
                    ) from error
                note = str(error)
            if not shots and not note:
                note = f"no shot has {self._recipe.min_frames} frames to store"
            entry = StoredVideo(
                number, *size, start, self._at, self._crc, tuple(shots), note
            )
            self._file.flush()
            os.fsync(self._file.fileno())
        self._enter(entry)
        return entry

    def _append_shots(
        self, path: Path, on_frame: Callable[[], None]
    ) -> Iterator[tuple[tuple[int, int], tuple[int, int, int, int]]]:
        """Append a video's frames; give the size of each shot that is kept, and it.

        What precedes damage is kept: the last shot then ends before it.
        """
        recipe, cuts = self._recipe, CutFinder(self._recipe.threshold)
        left = recipe.max_frames
        shot: _Shot | None = None
        damage: ClipError | None = None
        frames = enumerate(decode_frames(path))
        while left is None or left > 0:
            try:
                at, frame = next(frames)
            except StopIteration:
                break
            except ClipError as error:
                damage = error
                break
            on_frame()
            if cuts.begins_shot(frame) or shot is None:
                if shot is not None and (kept := self._finish(shot)):
                    yield shot.size, kept
                size = recipe.size(*frame.shape[:2])
                codec = recipe.make_format(*size)
                shot = _Shot(at, size, codec, self._at, self._crc)
            if (at - shot.first) % recipe.stride == 0:
                self._write(shot.codec.encode(scale(frame, shot.size)))
                shot.ends.append(self._at - shot.start)
                left = None if left is None else left - 1
        if shot is not None and (kept := self._finish(shot)):
            yield shot.size, kept
        if damage is not None:
            raise damage

    def _finish(self, shot: "_Shot") -> tuple[int, int, int, int] | None:
        """End a shot, or take it back if it is too short."""
        if len(shot.ends) < self._recipe.min_frames:
            self._file.flush()
            self._file.truncate(shot.start)
            self._at, self._crc = shot.start, shot.crc
            return None
        table = 0
        if shot.codec.has_table:
            table = self._at
            self._write(np.array(shot.ends, "<u8").tobytes())
        return shot.first, len(shot.ends), shot.start, table

    def _write(self, data: bytes) -> None:
        with naming_full(self._path):
            self._file.write(data)
        self._at += len(data)
        self._crc = zlib.crc32(data, self._crc)

    def _enter(self, entry: StoredVideo) -> None:
        text = json.dumps(asdict(entry), separators=(",", ":")).encode()
        with naming_full(self._journal_path):
            self._journal.write(b"%08x %b\n" % (zlib.crc32(text), text))
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self.done.append(entry)

    @contextmanager
    def _undone_on_error(self, start: int) -> Iterator[None]:
        """Give back the room of a video that could not be written."""
        try:
            with naming_full(self._path):
                yield
        except BaseException:
            # What is buffered fails again.
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                os.truncate(self._path, start)
            raise

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError):
            self._file.close()
        self._journal.close()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Shot:
    first: int
    size: tuple[int, int]
    codec: FrameFormat
    start: int
    crc: int

    def __post_init__(self) -> None:
        self.ends: list[int] = []


def crc_of(path: Path, start: int, end: int, block: int = 1 << 22) -> int:
    """Return the CRC-32 of a part of a file; of what there is, if it is shorter."""
    crc = 0
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (data := file.read(min(block, end - start))):
            crc = zlib.crc32(data, crc)
            start += len(data)
    return crc


def missing_of(done: Sequence[StoredVideo], wanted: Iterable[int]) -> list[int]:
    """Return the numbers of a file's videos that it does not hold yet."""
    known = {video.number for video in done}
    return [number for number in wanted if number not in known]
