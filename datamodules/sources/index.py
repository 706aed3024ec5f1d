"""What each video of a tree is, found out once and kept in a file.

The index lies in the tree as ``.clip_index.json``, or in the user's cache directory
where the tree is read-only. An entry holds for as long as the file's size and time of
change do; one with an error only until the next run starts, because the reason may
have been the file system's (see :func:`forget_errors`). Examining a video reads all its
packets and decodes its first frame, which takes some 10 ms (measured, 300 frames of
720p; decoding them all takes 400 ms). The pictures so counted are those that a full
decode gives, on MP4 with edit lists and on VP8 too; damage inside a picture is met when
a clip is read.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import av

from datamodules.paths import find_images
from datamodules.sources.pyav_reader import first_line, packet_stamps
from datamodules.sources.source import ClipError
from datamodules.whole_files import whole_or_nothing

logger = logging.getLogger(__name__)

NAME = ".clip_index.json"
VERSION = 1
PNG = (".png",)
# Seconds; a killed examination of a large tree loses no more than the first.
SAVE_EVERY = 60.0
SAY_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the index knows about one video.

    Attributes:
        size: Bytes of the file; of a PNG directory, the number of its frames.
        mtime: Time of its last change in nanoseconds.
        width: Pixels, as stored (rotation metadata is not applied).
        height: Pixels, as stored.
        fps: Frames per second; 0 where unknown.
        frames: Pictures that a decoder gives.
        error: Why it cannot be used; empty if it can.
    """

    size: int
    mtime: int
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames: int = 0
    error: str = ""


def index_videos(root: Path, names: Sequence[str]) -> dict[str, VideoInfo]:
    """Return what each video is, examining those that the kept index lacks.

    Args:
        root: The tree.
        names: Videos and PNG directories, relative to ``root``.

    Returns:
        One entry per name, in the order of ``names``; broken videos have an ``error``.
    """
    kept = _load(root)
    known = {
        name: kept[name]
        for name in names
        if name in kept and (kept[name].size, kept[name].mtime) == _stamp(root / name)
    }
    if new := [name for name in names if name not in known]:
        _examine_all(root, new, known, kept)
    return {name: known[name] for name in names}


def forget_errors(root: Path) -> None:
    """Have broken videos examined again when the tree is next indexed.

    For the one process that opens a tree before the others do: those must take its
    word for what is broken, or ranks would train on different lists.
    """
    kept = _load(root)
    good = {name: entry for name, entry in kept.items() if not entry.error}
    if len(good) < len(kept):
        _save(root, good)


def _examine_all(
    root: Path, new: list[str], known: dict[str, VideoInfo], kept: dict[str, VideoInfo]
) -> None:
    start = said = saved = time.monotonic()
    # FFmpeg releases the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        jobs = {pool.submit(examine, root / name): name for name in new}
        for done, job in enumerate(as_completed(jobs), 1):
            known[jobs[job]] = job.result()
            now = time.monotonic()
            if now - said > SAY_EVERY:
                left = (now - start) / done * (len(new) - done)
                logger.info(
                    "examined %d of %d videos under %s, about %.0f s left",
                    *(done, len(new), root, left),
                )
                said = now
            if now - saved > SAVE_EVERY:
                _save(root, {**kept, **known})
                saved = now
    _save(root, {**kept, **known})


def examine(path: Path) -> VideoInfo:
    """Find out what a video file or PNG directory is; a broken one has an error."""
    size, mtime = _stamp(path)
    try:
        content = _examine_pngs(path) if path.is_dir() else _examine_video(path, size)
    except (ClipError, OSError) as error:
        return VideoInfo(size, mtime, error=first_line(error))
    return VideoInfo(size, mtime, *content)


def _examine_video(path: Path, size: int) -> tuple[int, int, float, int]:
    """Return width, height, frames per second, and how many frames there are."""
    if not size:
        if path.is_symlink() and not path.exists():
            raise ClipError(f"the link points nowhere: there is no {path.readlink()}")
        # Where the size could not be asked for, this says why.
        path.stat()
        raise ClipError("the file is empty")
    frames = len(packet_stamps(path)[0])
    try:
        with av.open(str(path.absolute())) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            rate = stream.average_rate or stream.guessed_rate
            first = next(container.decode(stream), None)
    except av.FFmpegError as error:
        raise ClipError(f"FFmpeg: {first_line(error)}") from error
    if first is None or not frames:
        raise ClipError("no frame decodes")
    return first.width, first.height, float(rate or 0), frames


def _examine_pngs(path: Path) -> tuple[int, int, float, int]:
    pngs = find_images(path, PNG)
    first, last = _png_size(pngs[0]), _png_size(pngs[-1])
    if first != last:
        raise ClipError(
            f"frames differ in size: {pngs[0].name} is {first[0]}x{first[1]}, "
            f"{pngs[-1].name} is {last[0]}x{last[1]}"
        )
    return *first, 0.0, len(pngs)


def _png_size(path: Path) -> tuple[int, int]:
    """Return width and height from a PNG file's header."""
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        raise ClipError(f"frame {path.name} is not a PNG file")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a video does: size and time of change."""
    try:
        status = path.stat()
        size = len(find_images(path, PNG)) if path.is_dir() else status.st_size
    except OSError:
        return 0, 0
    return size, status.st_mtime_ns


def _places(root: Path) -> list[Path]:
    """Return where an index may lie, the preferred place first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()
    return [root / NAME, cache / "learned-video-codecs" / f"index_{key}.json"]


def _load(root: Path) -> dict[str, VideoInfo]:
    # Each holds all that was known when it was written, so the last one counts.
    newest_first = sorted(_places(root), key=lambda path: _stamp(path)[1], reverse=True)
    for path in newest_first:
        try:
            table = json.loads(path.read_text())
            if table["version"] == VERSION:
                rows = table["videos"].items()
                return {name: VideoInfo(**row) for name, row in rows}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning(
                "the index %s cannot be used (%s): it is built anew",
                *(path, first_line(error)),
            )
    return {}


def _save(root: Path, entries: dict[str, VideoInfo]) -> None:
    rows = {name: asdict(entry) for name, entry in sorted(entries.items())}
    text = json.dumps({"version": VERSION, "videos": rows})
    for path in _places(root):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_or_nothing(path) as temporary:
                temporary.write_text(text)
        except OSError as error:
            reason = error
        else:
            return
    logger.warning(
        "the index of %s cannot be kept (%s): its videos are examined at every start",
        *(root, reason),
    )
