"""Which videos go into which file of a store: decided once, kept in ``plan.json``.

Files follow from the videos and the recipe alone, so that a store is the same to the
byte however many processes made it and however often they were killed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.paths import expand_root, found_in, printable
from datamodules.prepared.recipe import Recipe
from datamodules.prepared.store import PLAN, STORE, VERSION
from datamodules.whole_files import whole_or_nothing

if TYPE_CHECKING:
    from datamodules.sources.folder import FileSource
    from experiments.prepare.options import PrepareOptions

LARGEST_FILE, SMALLEST_FILE = 4 << 30, 8 << 20
"""Bytes of frames, about: few files for a cluster's file system, and for a small store
enough that processes can share them."""
FILES = 256
"""Where their bytes allow it."""
JPEG_BYTES = 0.35
"""A pixel, about: only files' sizes follow from it."""


@dataclass(frozen=True)
class Planned:
    """A video that is to be stored.

    Attributes:
        name: Its path below the root.
        height: Rows, as shown.
        width: Columns.
        fps: Frames a second; 0 where unknown.
        frames: That a decoder gives.
    """

    name: str
    height: int
    width: int
    fps: float
    frames: int


@dataclass(frozen=True)
class PlannedFile:
    """One file of a store: all that whoever makes it must know.

    Attributes:
        number: Of the file.
        recipe: What is done to each video.
        root: The folder below which the videos lie.
        videos: Those of the file, by their number in the plan.
    """

    number: int
    recipe: Recipe
    root: Path
    videos: dict[int, Planned]


@dataclass(frozen=True)
class Plan:
    """What a store is made of.

    Attributes:
        recipe: What is done to each video.
        source: Layout and digest of the list of videos.
        videos: All of them.
        ends: For each file the number of the video behind its last one.
        broken: Videos that cannot be opened -> why.
    """

    recipe: Recipe
    source: dict[str, str]
    videos: list[Planned]
    ends: list[int]
    broken: dict[str, str]

    def members(self, shard: int) -> range:
        """Return the numbers of a file's videos."""
        return range(self.ends[shard - 1] if shard else 0, self.ends[shard])

    def file(self, shard: int) -> PlannedFile:
        """Return one of the files."""
        videos = {number: self.videos[number] for number in self.members(shard)}
        return PlannedFile(shard, self.recipe, Path(self.source["root"]), videos)

    def pixels(self, shard: int) -> float:
        """Return how many pixels are decoded for a file."""
        return sum(self.work(self.videos[number]) for number in self.members(shard))

    def work(self, video: Planned) -> float:
        """Return how many pixels of a video are decoded."""
        frames = self.recipe.decoded_frames(video.frames)
        return float(video.height) * video.width * frames

    def bytes_of(self, video: Planned, bytes_per_pixel: float) -> float:
        """Return how large a video is in the store, if all its shots are kept."""
        height, width = self.recipe.size(video.height, video.width)
        frames = self.recipe.most_frames(video.frames)
        return bytes_per_pixel * height * width * frames


def open_videos(options: "PrepareOptions") -> "FileSource":
    """Find and examine the videos of IN.

    Raises:
        ValueError: There is none.
    """
    from datamodules.sources.folder import FileSource, FolderSource
    from datamodules.sources.opening import check_source
    from datamodules.sources.openvid import OpenVidSource
    from datamodules.sources.vimeo90k import Vimeo90KSource

    list_file = None if options.list_file is None else str(options.list_file)
    check_source(options.source, str(options.videos), list_file)
    if options.source == "folder":
        return FolderSource(options.videos)
    if options.source == "openvid":
        return OpenVidSource(options.videos, options.list_file)
    septuplets = Vimeo90KSource(options.videos, options.list_file)
    names = [f"sequences/{septuplets.label(n)}" for n in range(len(septuplets))]
    return FileSource("vimeo90k", Path(expand_root(options.videos)), names)


def make_plan(source: "FileSource", kind: str, recipe: Recipe) -> Plan:
    """Share videos out to files, in their order."""
    videos = [
        Planned(name, info.height, info.width, info.fps, info.frames)
        for name, info in source.videos
    ]
    digest = blake2b(digest_size=8)
    # Broken ones too: some are whole at the next look.
    listed = [*(printable(video.name) for video in videos), *source.skipped]
    digest.update("\n".join(sorted(listed)).encode())
    said = {"kind": kind, "list": digest.hexdigest(), "root": str(source.root)}
    plan = Plan(recipe, said, videos, [], dict(source.skipped))
    each = recipe.make_format(1, 1).bytes_per_pixel or JPEG_BYTES
    bytes_of = [plan.bytes_of(video, each) for video in videos]
    most = min(LARGEST_FILE, max(SMALLEST_FILE, sum(bytes_of) / FILES))
    filled = 0.0
    for number, nbytes in enumerate(bytes_of):
        if filled and filled + nbytes > most:
            plan.ends.append(number)
            filled = 0.0
        filled += nbytes
    plan.ends.append(len(videos))
    return plan


def settle_plan(folder: Path, plan: Plan, *, keep: bool = True) -> Plan:
    """Return the plan that a store was begun with; under the store's lock.

    Args:
        folder: Of the store.
        plan: What the command asks for; the videos may lie elsewhere now.
        keep: Whether it is written if nothing is there.

    Raises:
        ValueError: The folder holds something else, or a store with another recipe or
            of other videos.
    """
    begun = next((p for p in (folder / STORE, folder / PLAN) if p.exists()), None)
    if begun is not None:
        _compare(folder, begun, plan)
        if begun.name == STORE:
            return plan
        kept = load_plan(folder)
        now = {video.name: video for video in plan.videos}
        for video in kept.videos:
            if now.get(video.name, video) != video:
                raise ValueError(
                    f"{printable(video.name)} has changed since {folder} was begun: "
                    "restore it to go on, choose another OUT, or remove it to make it "
                    "again"
                )
        # From where they lie now, as the command says it.
        return replace(kept, source=plan.source)
    if folder.is_dir() and any(
        not path.name.startswith(".") for path in folder.iterdir()
    ):
        raise ValueError(
            f"{folder} is no prepared store, it holds {found_in(folder)}: choose a new "
            "or empty folder OUT"
        )
    if keep:
        said = {"version": VERSION, **asdict(plan)}
        with whole_or_nothing(folder / PLAN) as temporary:
            temporary.write_text(json.dumps(said))
    return plan


def load_plan(folder: Path) -> Plan:
    """Read the plan of a store that was begun."""
    said = json.loads((folder / PLAN).read_bytes())
    del said["version"]
    recipe = Recipe(**said.pop("recipe"))
    videos = [Planned(**video) for video in said.pop("videos")]
    return Plan(recipe, videos=videos, **said)


def _compare(folder: Path, path: Path, plan: Plan) -> None:
    """Refuse to go on with a store that was begun otherwise."""
    try:
        said = json.loads(path.read_bytes())
        version, recipe, source = said["version"], said["recipe"], said["source"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove {folder}, and the same command makes "
            "it again"
        ) from error
    other = "choose another OUT, or remove it to make it again"
    if version != VERSION:
        raise ValueError(
            f"{folder} is a prepared store of version {version}, this program writes "
            f"version {VERSION}: {other}"
        )
    changed = _differences(recipe, asdict(plan.recipe))
    if changed:
        raise ValueError(
            f"{folder} was begun with other options ({'; '.join(changed)}): give the "
            f"old ones to go on, {other}"
        )
    keys = ("kind", "list")
    if any(source.get(key) != plan.source[key] for key in keys):
        raise ValueError(
            f"{folder} was begun with other videos than IN, {plan.source['root']}, "
            f"holds now (it was {source.get('root')}): give the old ones to go on, "
            f"{other}"
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Sequence[str]:
    return [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
