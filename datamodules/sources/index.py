"""What each video of a tree is, found out once and kept in a file.

The index lies in the tree as ``.clip_index.json``, or in the user's cache directory
where the tree is read-only. An entry holds for as long as the file's size and time of
change do; one with an error only until the next run starts, because the reason may
have been the file system's (see :func:`forget_errors`). Examining a video reads all its
packets and decodes its first frame, which takes some 10 ms (measured, 300 frames of
720p; decoding them all takes 400 ms, and is done where packets do not tell how many
pictures there are). Damage inside a picture is met when a clip is read.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np

from datamodules.images import decode_image
from datamodules.paths import IMAGE_SUFFIXES, PNG, find_frames, open_at_once
from datamodules.pipes import SAVE_FIRST, is_pipe
from datamodules.pyav import av
from datamodules.raw_video import RawVideo, read_y4m
from datamodules.sources.pyav_reader import count_frames, first_line
from datamodules.sources.source import ClipError
from datamodules.video_reader import VideoError
from datamodules.video_stream import (
    frame_rate,
    is_cover,
    is_shown_as_stored,
    open_stream,
    turn_upright,
)
from datamodules.whole_files import whole_or_nothing

logger = logging.getLogger(__name__)

NAME = ".clip_index.json"
VERSION = 3
# Seconds; a killed examination of a large tree loses no more than the first.
SAVE_EVERY = 60.0
SAY_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the index knows about one video.

    Attributes:
        size: Bytes of the file; of a directory of images, the number of its frames.
        mtime: Time of its last change in nanoseconds.
        width: Pixels, as shown (turned as metadata says).
        height: Pixels, as shown.
        fps: Frames per second; 0 where unknown.
        frames: Pictures that a decoder gives.
        plain: Whether decord may read it: it has one video track, which is shown as
            stored, each frame at a time of its own.
        error: Why it cannot be used; empty if it can.
    """

    size: int
    mtime: int
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames: int = 0
    plain: bool = True
    error: str = ""


def index_videos(root: Path, names: Sequence[str]) -> dict[str, VideoInfo]:
    """Return what each video is, examining those that the kept index lacks.

    Args:
        root: The tree.
        names: Videos and directories of images, relative to ``root``.

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
    """Find out what a video or directory of images is; a broken one has an error."""
    size, mtime = _stamp(path)
    try:
        content = _examine_images(path) if path.is_dir() else _examine_file(path, size)
    except (ClipError, VideoError, OSError) as error:
        return VideoInfo(size, mtime, error=first_line(error))
    return VideoInfo(size, mtime, *content)


def _examine_file(path: Path, size: int) -> tuple[int, int, float, int, bool]:
    """Return width, height, frames per second, number of frames, and if it is plain."""
    if not size:
        if path.is_symlink() and not path.exists():
            raise ClipError(f"the link points nowhere: there is no {path.readlink()}")
        # Where the size could not be asked for, this says why.
        path.stat()
        if is_pipe(path):
            raise ClipError(f"it is {SAVE_FIRST}")
        raise ClipError("the file is empty")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        try:
            height, width = decode_image(path, cv2.IMREAD_COLOR).shape[:2]
        except ValueError as error:
            raise ClipError(str(error)) from error
        return width, height, 0.0, 1, True
    if path.suffix.lower() == ".y4m":
        raw = read_y4m(path)
        known = float(raw.fps or 0)
        return raw.width, raw.height, known, _count_y4m(raw, size), False
    frames, told = count_frames(path)
    try:
        with open_stream(path) as (container, stream):
            stream.codec_context.thread_count = 1
            rate = frame_rate(container, stream)
            # Of several, decord's own FFmpeg may choose another than this one.
            alone = sum(not is_cover(each) for each in container.streams.video) == 1
            first = next(container.decode(stream), None)
    except av.FFmpegError as error:
        raise ClipError(f"FFmpeg: {first_line(error)}") from error
    if first is None or not frames:
        raise ClipError("no frame decodes")
    stored = np.empty((first.height, first.width), np.uint8)
    height, width = turn_upright(first, stored).shape
    plain = told and alone and is_shown_as_stored(first)
    return width, height, float(rate or 0), frames, plain


def _count_y4m(raw: RawVideo, size: int) -> int:
    frames, rest = divmod(size - raw.header_bytes, raw.frame_bytes)
    if frames and rest:
        # It is cut, or its FRAME lines say more than that word.
        frames = 0
        with suppress(VideoError):
            for _ in raw.codes():
                frames += 1
    if not frames:
        raise ClipError("it is shorter than one frame of the size in its header")
    return frames


def _examine_images(path: Path) -> tuple[int, int, float, int]:
    images = find_frames(path)
    if not images:
        raise ClipError("it holds no PNG or JPEG image")
    first, last = _image_size(images[0]), _image_size(images[-1])
    if first != last:
        raise ClipError(
            f"frames differ in size: {images[0].name} is {first[0]}x{first[1]}, "
            f"{images[-1].name} is {last[0]}x{last[1]}"
        )
    return *first, 0.0, len(images)


def _image_size(path: Path) -> tuple[int, int]:
    """Return width and height: of a PNG file from its header, of a JPEG by decoding."""
    if path.suffix.lower() in PNG:
        return _png_size(path)
    try:
        height, width = decode_image(path, cv2.IMREAD_COLOR).shape[:2]
    except ValueError as error:
        raise ClipError(f"frame {path.name} {error}") from error
    return width, height


def _png_size(path: Path) -> tuple[int, int]:
    """Return width and height from a PNG file's header."""
    with open_at_once(path) as file:
        head = file.read(24)
    if head[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or len(head) < 24:
        raise ClipError(f"frame {path.name} is not a PNG file")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a video does: size and time of change."""
    try:
        status = path.stat()
        size = len(find_frames(path)) if path.is_dir() else status.st_size
    except OSError:
        return 0, 0
    return size, status.st_mtime_ns


def _places(root: Path) -> list[Path]:
    """Return where an index may lie, the preferred place first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = blake2b(os.fsencode(root.resolve()), digest_size=8).hexdigest()
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
