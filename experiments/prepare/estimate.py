"""How large a store will be, how long it takes, and whether the disk has the room."""

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from datamodules.prepared.cuts import CutFinder
from datamodules.prepared.formats import FORMATS
from datamodules.prepared.frames import decode_frames, scale
from datamodules.prepared.shard import data_file
from datamodules.sources.source import ClipError
from experiments.prepare.plan import JPEG_BYTES, Plan, Planned

TRIED_VIDEOS, TRIED_FRAMES = 6, 12
"""Of which the time of all follows; some of the first frames of some videos."""

SPARE = 0.02
"""Share of the store that stays free: index, journals, what others write."""


@dataclass(frozen=True)
class Estimate:
    """What a store will take.

    Attributes:
        nbytes: Of frames; for JPEG about, for others if no shot is left out.
        seconds: Of one process.
        free: Bytes on the disk that are free, with those that the store has already.
    """

    nbytes: float
    seconds: float
    free: int


def estimate(plan: Plan, folder: Path) -> Estimate:
    """Decode and encode a few frames, and count on from them."""
    spread = max(1, len(plan.videos) // TRIED_VIDEOS)
    root = Path(plan.source["root"])
    tried = [_try(plan, root, v) for v in plan.videos[::spread][:TRIED_VIDEOS]]
    decoded, stored, nbytes, seconds = (sum(each) for each in zip(*tried, strict=True))
    pixels = sum(map(plan.work, plan.videos))
    each = FORMATS[plan.recipe.format].bytes_per_pixel
    if each is None:
        each = nbytes / stored if stored else JPEG_BYTES
    there = sum(
        path.stat().st_size
        for path in (data_file(folder, n) for n in range(len(plan.ends)))
        if path.exists()
    )
    place = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    return Estimate(
        sum(plan.bytes_of(video, each) for video in plan.videos),
        pixels * seconds / decoded if decoded else 0.0,
        shutil.disk_usage(place).free + there,
    )


def _try(plan: Plan, root: Path, video: Planned) -> tuple[float, float, float, float]:
    """Return pixels decoded and stored, bytes, and seconds, of a few frames."""
    recipe = plan.recipe
    size = recipe.size(video.height, video.width)
    codec, cuts = recipe.make_format(*size), CutFinder(recipe.threshold)
    decoded = stored = 0.0
    nbytes = 0
    begun = time.monotonic()
    try:
        frames = islice(decode_frames(root / video.name), TRIED_FRAMES)
        for number, frame in enumerate(frames):
            cuts.begins_shot(frame)
            decoded += video.height * video.width
            if number % recipe.stride == 0:
                nbytes += len(codec.encode(scale(frame, size)))
                stored += size[0] * size[1]
    except ClipError:
        # It is met again, and named then.
        pass
    return decoded, stored, nbytes, time.monotonic() - begun


def tell(plan: Plan, expected: Estimate, folder: Path, processes: int) -> list[str]:
    """Return lines that say what a store will take."""
    frames = sum(plan.recipe.most_frames(video.frames) for video in plan.videos)
    hours = sum(v.frames / v.fps for v in plan.videos if v.fps) / 3600
    broken = f", {len(plan.broken)} cannot be used" if plan.broken else ""
    about = "about" if FORMATS[plan.recipe.format].bytes_per_pixel is None else "up to"
    wall = timedelta(seconds=round(expected.seconds / processes))
    by = f"{processes} processes" if processes > 1 else "one process"
    return [
        f"{plan.source['root']}: {len(plan.videos):,} videos, {hours:.2f} "
        f"hours{broken}",
        f"{folder}: {frames:,} frames as {plan.recipe.format}, {about} "
        f"{in_bytes(expected.nbytes)} in {len(plan.ends)} files "
        f"({in_bytes(expected.free)} are free there); about {wall} with {by}",
    ]


def check_room(plan: Plan, expected: Estimate, folder: Path) -> str:
    """Return a warning if the disk may lack room.

    Raises:
        ValueError: It certainly does.
    """
    needed = expected.nbytes * (1 + SPARE)
    if needed <= expected.free:
        return ""
    text = (
        f"{folder} needs about {in_bytes(needed)}, and {in_bytes(expected.free)} are "
        "free there: choose another OUT, --format jpeg, a smaller --height, --stride "
        "or --max_frames"
    )
    # An estimate may be wrong by a third; cuts leave some frames out.
    if needed > 1.5 * expected.free:
        raise ValueError(text)
    return f"warning: {text}"


def in_bytes(number: float) -> str:
    """Return a number of bytes in units that one can read."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def listed(broken: Iterable[tuple[str, str]], most: int = 20) -> Sequence[str]:
    """Return lines that name videos and what is wrong with them, not too many."""
    lines = [f"{name}: {why}" for name, why in broken]
    more = len(lines) - most
    return [*lines[:most], f"and {more} more"] if more > 0 else lines
