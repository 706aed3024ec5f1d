"""Memory of a process that loads clips: after many of them, and amid a long one.

A loader is forked from the training process, so what both have (torch, Lightning, the
networks) counts as resident in each, and once in all. The private part is a loader's
own: a node needs it as often as it has loaders.
"""

import multiprocessing
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from datamodules.sources.folder import FolderSource
from datamodules.sources.samples import (
    GlobalBatches,
    TrainingClips,
    collate,
    leave_signals_to_parent,
)
from datamodules.writing import create_video
from experiments.profile.benchmark.figures import (
    LACKS_PYAV,
    Figure,
    Settings,
    has_pyav,
)

MB = 1e6
LARGEST = 1920 * 1088
"""Pixels of a frame for which the goals hold."""

SIZES = {"small": (8, 32), "full": (60, 128)}
"""Clips that a loader reads, and frames of the long one."""


def measure(settings: Settings) -> list[Figure]:
    """Return what a loader holds after its clips, and what a long clip takes more.

    Raises:
        ValueError: The system does not tell what a process holds.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise ValueError(
            "loader_memory needs Linux (/proc/PID/smaps_rollup): name other --parts"
        )
    if not has_pyav():
        return [Figure("memory of a loader", None, "MB", note=LACKS_PYAV)]
    # As in training, where the parent of a loader has it.
    import lightning.pytorch  # noqa: F401

    count, frames = SIZES[settings.form]
    source = FolderSource(settings.clips or _make_videos(settings))
    clips = TrainingClips(
        source,
        [n for n in range(len(source)) if not source.unfit(n, 7, 256)],
        seed=0,
        stage=0,
        frames=7,
        crop=256,
        stride=1,
        flip=True,
    )
    return [*_after_clips(clips, count), *_amid_a_clip(clips, frames, 512)]


def _make_videos(settings: Settings) -> Path:
    """Write videos of 1080p whose noise moves, and return their folder."""
    number, frames = {"small": (3, 12), "full": (8, 150)}[settings.form]
    folder = settings.scratch / "videos"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 90, 160, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, (1080, 1920), mode="bilinear")[0]
    for video in range(number):
        path = folder / f"{video}.mp4"
        with create_video(path, 1920, 1080, Fraction(25)) as write:
            for frame in range(frames):
                write(picture.roll((3 * frame, 40 * video + 5 * frame), (1, 2)))
    return folder


def _after_clips(clips: TrainingClips, count: int) -> Iterator[Figure]:
    """Let a loader read batches of one clip, as training does."""
    others = set(multiprocessing.active_children())
    loader: Any = DataLoader(
        clips,
        batch_sampler=GlobalBatches(lambda: 0, 1),
        num_workers=1,
        worker_init_fn=leave_signals_to_parent,
        collate_fn=collate,
    )
    batches = iter(loader)
    (process,) = set(multiprocessing.active_children()) - others
    for _ in range(count):
        next(batches)
    held = held_memory(process.pid)
    del batches
    note = f"{len(clips.items)} videos, {clips.frames} frames, crop {clips.crop}"
    name = f"loader after {count} clips"
    yield Figure(f"{name}, private", held["private"], "MB", "at most 600", note)
    yield Figure(f"{name}, resident", held["resident"], "MB", "", note)


def _amid_a_clip(clips: TrainingClips, frames: int, crop: int) -> Iterator[Figure]:
    """Read a long clip of each video in a process of its own."""
    source = clips.source
    assert isinstance(source, FolderSource)
    peaks: dict[bool, list[tuple[float, str]]] = {True: [], False: []}
    for item, (_, info) in enumerate(source.videos):
        if not source.unfit(item, frames, crop):
            one = replace(clips, items=[item], frames=frames, crop=crop)
            peak = _in_a_process(_peak, one) - frames * 3 * crop**2 / MB
            small = info.width * info.height <= LARGEST
            peaks[small].append((peak, source.label(item)))
    sizes = {True: ("up to 1080p", "at most 150"), False: ("above 1080p", "")}
    for small, (which, goal) in sizes.items():
        if peaks[small]:
            peak, label = max(peaks[small])
            name = f"peak above a clip, videos {which}"
            note = f"{frames} frames, crop {crop}; the most: {label}"
            yield Figure(name, peak, "MB", goal, note)


def _peak(clips: TrainingClips) -> float:
    """Return the MB that this process holds more at most while it makes a batch."""
    # A first clip, short and of another place, imports and starts what is kept.
    replace(clips, frames=1, crop=64, stage=1)[0]
    # The highest resident size counts from here.
    Path("/proc/self/clear_refs").write_text("5")
    before = held_memory("self")["resident"]
    collate([clips[0]])
    return held_memory("self")["peak"] - before


def _in_a_process(
    function: Callable[[TrainingClips], float], clips: TrainingClips
) -> float:
    """Return a function's result in a new process like a loader."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        torch.set_num_threads(1)
        leave_signals_to_parent(0)
        theirs.send(function(clips))

    process = context.Process(target=run)
    process.start()
    theirs.close()
    try:
        return float(ours.recv())
    finally:
        process.join()


def held_memory(process: int | str | None) -> dict[str, float]:
    """Return MB that a process holds.

    Args:
        process: Its number, or ``"self"``.

    Returns:
        ``private``: what no other process has. ``resident``: with what others share.
        ``peak``: the most that was resident.
    """
    folder = Path("/proc", str(process))
    text = (folder / "smaps_rollup").read_text() + (folder / "status").read_text()
    kilobytes = {
        name: int(number)
        for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    }
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    held = {"private": private, "resident": kilobytes["Rss"]}
    return {
        name: number * 1024 / MB
        for name, number in (held | {"peak": kilobytes["VmHWM"]}).items()
    }
