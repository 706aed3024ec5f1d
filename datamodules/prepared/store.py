"""A finished store: the folder that ``python -m experiments.prepare IN OUT`` makes.

::

    OUT/store.json      what it is, whole or not there: version, recipe, files, totals
    OUT/index.npz       every video and every shot: where its frames lie
    OUT/00000.frames    frames, some GB a file; and so on

Until ``store.json`` is there, ``plan.json`` and a journal for each file are. Opening
compares the sizes of all files and the checksum of the index; the frames' own checksums
are read by ``python -m experiments.prepare OUT --check``.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.paths import found_in, printable, reason_of
from datamodules.prepared.recipe import Recipe
from datamodules.prepared.shard import StoredVideo, crc_of, data_file
from datamodules.whole_files import whole_or_nothing

VERSION = 1
STORE, INDEX, PLAN = "store.json", "index.npz", "plan.json"

VIDEOS = np.dtype(
    [
        ("shard", "<u4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("crc", "<u4"),
        ("fps", "<f8"),
        ("start", "<u8"),
        ("end", "<u8"),
    ]
)
SHOTS = np.dtype(
    [
        ("video", "<u4"),
        ("frames", "<u4"),
        ("first", "<u4"),
        ("start", "<u8"),
        ("table", "<u8"),
    ]
)
"""Columns of the index: arrays, because a list of a million videos would be copied into
every loader process. ``first`` is a shot's first frame in the source."""

Index = Mapping[str, npt.NDArray[Any]]


UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading an index raises whose bytes have changed."""


class StoreError(ValueError):
    """A folder is no store that can be read."""


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        folder: Where it lies.
        recipe: How it was made.
        source: What it was made of, and digest of the list of that.
        files: Bytes of each file of frames.
        skipped: Videos that are missing or cut -> why.
        fingerprint: Of all that its clips follow from: 16 hexadecimal digits.
        videos: One row a video, of ``VIDEOS``.
        shots: One row a shot, of ``SHOTS``, in the order of the videos.
    """

    folder: Path
    recipe: Recipe
    source: Mapping[str, str]
    files: Sequence[int]
    skipped: Mapping[str, str]
    fingerprint: str
    videos: npt.NDArray[Any]
    shots: npt.NDArray[Any]
    _names: npt.NDArray[np.uint8]
    _name_ends: npt.NDArray[np.uint64]

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open a store and check that it is whole, without reading its frames.

        Raises:
            StoreError: It is none, is not finished, is of another version, or a file
                of it is missing or has another size.
        """
        said = _read_header(folder)
        try:
            with np.load(folder / INDEX, allow_pickle=False) as arrays:
                index = {name: arrays[name] for name in arrays.files}
        except UNREADABLE as error:
            raise StoreError(_damaged(folder / INDEX, reason_of(error))) from error
        try:
            recipe, files = Recipe(**said["recipe"]), said["files"]
            fingerprint = fingerprint_of(recipe, files, index)
            differs = fingerprint != said["fingerprint"]
            source, skipped = dict(said["source"]), dict(said["skipped"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(_damaged(folder / STORE, reason_of(error))) from error
        if differs:
            raise StoreError(_damaged(folder / INDEX, "its checksum differs"))
        for number, nbytes in enumerate(files):
            path = data_file(folder, number)
            found = path.stat().st_size if path.exists() else None
            if found != nbytes:
                have = "is missing" if found is None else f"has {found} bytes"
                raise StoreError(_damaged(path, f"it {have}, not {nbytes}"))
        return cls(
            folder,
            recipe,
            source,
            files,
            skipped,
            fingerprint,
            index["videos"],
            index["shots"],
            index["names"],
            index["name_ends"],
        )

    def name(self, video: int) -> str:
        """Return a video's path below the source's root."""
        start = int(self._name_ends[video - 1]) if video else 0
        end = int(self._name_ends[video])
        return self._names[start:end].tobytes().decode()

    @cached_property
    def seconds(self) -> float:
        """How long all stored shots play, where their rate is known."""
        fps = self.videos["fps"][self.shots["video"]]
        known = fps > 0
        frames = self.shots["frames"][known] * self.recipe.stride
        return float((frames / fps[known]).sum())

    def describe(self) -> str:
        """Say videos, shots, frames, hours, format and fingerprint in one line."""
        recipe = self.recipe
        parts = [
            f"{len(self.videos):,} videos",
            f"{len(self.shots):,} shots",
            f"{int(self.shots['frames'].sum()):,} frames",
            f"{self.seconds / 3600:.2f} hours",
            recipe.format + f" q{recipe.quality}" * (recipe.format == "jpeg"),
        ]
        if recipe.height:
            parts.append(f"at most {recipe.height} pixels high")
        elif recipe.factor > 1:
            parts.append(f"1/{recipe.factor:g} of the size")
        if recipe.stride > 1:
            parts.append(f"1 frame in {recipe.stride}")
        return f"{', '.join(parts)}, fingerprint {self.fingerprint}"

    def check(self) -> Iterator[tuple[int, str]]:
        """Read all frames and compare their checksums; give each video, and its fault.

        Yields:
            Number of a video, and the fault, which is empty if there is none.
        """
        for number, row in enumerate(self.videos):
            path = data_file(self.folder, int(row["shard"]))
            fault = ""
            try:
                if crc_of(path, int(row["start"]), int(row["end"])) != row["crc"]:
                    fault = f"{path.name} has changed since it was written"
            except OSError as error:
                fault = f"{path.name}: {reason_of(error)}"
            yield number, fault


def write_store(
    folder: Path,
    recipe: Recipe,
    source: Mapping[str, str],
    names: Sequence[str],
    fps: Sequence[float],
    shards: Sequence[Sequence[StoredVideo]],
    skipped: Mapping[str, str],
) -> None:
    """Write index and ``store.json`` of files that are complete.

    Args:
        folder: Of the store.
        recipe: How it was made.
        source: What it was made of.
        names: Of all videos of the plan.
        fps: Of all videos of the plan.
        shards: The videos of each file.
        skipped: Videos of the source that are not in the plan.

    Raises:
        StoreError: Nothing is in it.
        OSError: It cannot be written.
    """
    skipped = dict(skipped)
    videos: list[tuple[float, ...]] = []
    shots: list[tuple[int, ...]] = []
    own: list[bytes] = []
    for shard, members in enumerate(shards):
        for video in members:
            if video.note:
                frames = sum(shot[1] for shot in video.shots)
                kept = f"{frames} frames are kept, then " if frames else ""
                skipped[printable(names[video.number])] = kept + video.note
            if not video.shots:
                continue
            for first, frames, start, table in video.shots:
                shots.append((len(videos), frames, first, start, table))
            own.append(printable(names[video.number]).encode())
            size = (video.height, video.width)
            place = (fps[video.number], video.start, video.end)
            videos.append((shard, *size, video.crc, *place))
    if not videos:
        named = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
        raise StoreError(f"no video could be stored: {named}")
    index: dict[str, npt.NDArray[Any]] = {
        "videos": np.array(videos, VIDEOS),
        "shots": np.array(shots, SHOTS),
        "names": np.frombuffer(b"".join(own), np.uint8),
        "name_ends": np.cumsum([len(name) for name in own], dtype=np.uint64),
    }
    files = [members[-1].end if members else 0 for members in shards]
    with whole_or_nothing(folder / INDEX) as temporary, temporary.open("wb") as file:
        np.savez(file, **index)
    said = {
        "version": VERSION,
        "fingerprint": fingerprint_of(recipe, files, index),
        "recipe": asdict(recipe),
        "source": dict(source),
        "videos": len(videos),
        "shots": len(shots),
        "frames": int(index["shots"]["frames"].sum()),
        "files": files,
        "skipped": dict(sorted(skipped.items())),
    }
    with whole_or_nothing(folder / STORE) as temporary:
        temporary.write_text(json.dumps(said, indent=1) + "\n")


def fingerprint_of(recipe: Recipe, files: Sequence[int], index: Index) -> str:
    """Return a digest of all that clips follow from; frames count by their CRC-32."""
    digest = blake2b(digest_size=8)
    said = [VERSION, asdict(recipe), list(files)]
    digest.update(json.dumps(said, sort_keys=True).encode())
    for name, array in sorted(index.items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_fingerprint(folder: Path) -> str:
    """Return a store's fingerprint as it says itself, without opening it.

    Raises:
        StoreError: It is no finished store of this version.
    """
    return str(_read_header(folder).get("fingerprint"))


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / STORE
    try:
        said = json.loads(path.read_bytes())
        version = said["version"]
    except FileNotFoundError:
        if (folder / PLAN).exists():
            raise StoreError(
                f"the prepared store {folder} is not finished: run the command that "
                f"makes it again, python -m experiments.prepare IN {folder}, and it "
                "goes on"
            ) from None
        raise StoreError(
            f"{folder} is no prepared store: there is no {STORE}, it holds "
            f"{found_in(folder)}; make one with python -m experiments.prepare IN "
            f"{folder}, or read videos themselves with --data.source folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(_damaged(path, reason_of(error))) from error
    if version != VERSION:
        raise StoreError(
            f"the prepared store {folder} is of version {version}, and this program "
            f"reads version {VERSION}: make it again with python -m "
            "experiments.prepare IN OUT, or use the program that made it"
        )
    return dict(said)


def _damaged(path: Path, why: str) -> str:
    return (
        f"the prepared store is damaged, {path}: {why}; restore it, or remove the "
        "folder and make it again with python -m experiments.prepare IN OUT"
    )
