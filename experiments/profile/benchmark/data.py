"""Clips per CPU second: from videos as they are, and from a prepared store of them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from fractions import Fraction
from io import StringIO
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from experiments.profile.benchmark.figures import (
    LACKS_PYAV,
    Figure,
    Settings,
    has_pyav,
)

CROP = 256
GOALS = {7: 100, 32: 20}
"""Clips a CPU second from a store, by the frames of a clip."""
FASTER = 20
"""Times, than from the videos."""
CLIPS = {"small": (4, 40), "full": (24, 400)}
"""Clips that are read of videos, and of a store."""
VIDEOS = {"small": 3, "full": 100}
"""That are read, at most."""
WARM_UP = 2


def measure(settings: Settings) -> Sequence[Figure]:
    """Read clips of 7 and of 32 frames, 256x256, one thread, files in memory.

    Through the loader of training without worker processes: batches of one clip, as
    bytes, which is all that is done on the CPU.
    """
    if not has_pyav():
        return [Figure("clips", None, "clips/CPU s", note=LACKS_PYAV)]
    root = settings.clips or _make_videos(settings)
    folder = settings.scratch / "folder"
    _link(root, folder, VIDEOS[settings.form])
    stores = [_prepare(settings, folder, name) for name in ("rgb", "yuv420", "jpeg")]
    few, many = CLIPS[settings.form]
    figures = []
    for frames, goal in GOALS.items():
        slow = clips_a_second("folder", folder, frames, few)
        note = f"{frames} frames, {CROP}x{CROP}, {_said(settings)}"
        name = f"clips of {frames} frames"
        figures.append(Figure(f"{name}, folder", slow, "clips/CPU s", "", note))
        for store in stores:
            fast = clips_a_second("prepared", store, frames, many)
            figures.append(
                Figure(
                    f"{name}, prepared {store.name}",
                    fast,
                    "clips/CPU s",
                    f"at least {goal}",
                    f"{fast / slow:.0f} times folder (goal {FASTER})",
                )
            )
    return figures


def clips_a_second(source: str, root: Path, frames: int, count: int) -> float:
    """Return clips that training's loader gives in a CPU second of this process.

    Args:
        source: As ``--data.source`` has it.
        root: As ``--data.root`` has it.
        frames: Of a clip.
        count: How many clips are read.
    """
    clips = _loader(source, root, frames)
    for _ in islice(clips, WARM_UP):
        pass
    begun = time.process_time()
    for _ in islice(clips, count):
        pass
    return count / max(time.process_time() - begun, 1e-9)


def _loader(source: Any, root: Path, frames: int) -> Iterator[Any]:
    from datamodules.options import DataOptions
    from datamodules.video import VideoDataModule

    data = VideoDataModule(
        DataOptions(source=source, root=str(root), workers=0, val_clips=0)
    )
    data.start_stage(0, frames, CROP, 1)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=0, global_rank=0, world_size=1, accumulate_grad_batches=1
    )
    data.setup("fit")
    return iter(data.train_dataloader())


def _link(root: Path, folder: Path, most: int) -> None:
    """Link some videos into a folder of their own: no index is left in theirs.

    Those larger than 1920x1080 and broken ones are left out.
    """
    from datamodules.sources.folder import FolderSource, find_videos

    folder.mkdir()
    for name in find_videos(root):
        with suppress(FileExistsError):
            (folder / name.replace("/", "_")).symlink_to((root / name).absolute())
    usual = [
        name
        for name, info in FolderSource(folder).videos
        if info.height * info.width <= 1920 * 1080
    ]
    for link in folder.iterdir():
        if link.is_symlink() and link.name not in usual[:most]:
            link.unlink()


def _prepare(settings: Settings, folder: Path, name: str) -> Path:
    """Prepare a store of the first frames of all videos; return it."""
    from experiments.prepare.command import main

    store = settings.scratch / name
    most = {"small": 40, "full": 100}[settings.form]
    options = ["--format", name, "--max_frames", str(most)]
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main([str(folder), str(store), *options])
    if code:
        raise ValueError(f"{folder} could not be prepared: {said.getvalue()}")
    return store


def _said(settings: Settings) -> str:
    return str(settings.clips or "made 1280x720 H.264, default key frames")


def _make_videos(settings: Settings) -> Path:
    """Write videos with x264's defaults: long groups of pictures of moving noise."""
    import numpy as np
    import torch

    from datamodules.writing import create_video

    root = settings.scratch / "made"
    root.mkdir()
    height, width, frames = 720, 1280, {"small": 50, "full": 150}[settings.form]
    for number in range(2):
        rng = np.random.default_rng(number)
        coarse = torch.from_numpy(rng.random((1, 3, 45, 90), np.float32))
        scene = torch.nn.functional.interpolate(
            coarse, (height, width + 4 * frames), mode="bicubic"
        ).clamp(0, 1)[0]
        path = root / f"{number}.mp4"
        with create_video(path, width, height, Fraction(25)) as write:
            for at in range(frames):
                write(scene[..., 4 * at : 4 * at + width])
    return root
