"""Sources by name: what is told of them at once, and opening those of a run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.options import DataOptions, SourceName
from datamodules.paths import check_root, expand_root
from datamodules.sources import folder, openvid, prepared, stills, vimeo90k
from datamodules.sources.folder import FolderSource
from datamodules.sources.openvid import OpenVidSource, find_tables
from datamodules.sources.prepared import PreparedSource
from datamodules.sources.source import ClipSource
from datamodules.sources.stills import StillsSource
from datamodules.sources.synthetic import SyntheticSource
from datamodules.sources.vimeo90k import Split, Vimeo90KSource, find_list

logger = logging.getLogger(__name__)

HOLDS = {
    "folder": folder.HOLDS,
    "stills": stills.HOLDS,
    "vimeo90k": vimeo90k.HOLDS,
    "openvid": openvid.HOLDS,
    "prepared": prepared.HOLDS,
}
"""What the root of each source that has one should hold."""


@dataclass(frozen=True)
class OpenSources:
    """What a run reads.

    Attributes:
        train: Source of the training clips.
        train_items: Its videos that are trained on.
        val: Source of the validation clips.
        val_items: Its videos that validate.
        note: What validates, in words.
    """

    train: ClipSource
    train_items: Sequence[int]
    val: ClipSource
    val_items: Sequence[int]
    note: str


def open_sources(options: DataOptions) -> OpenSources:
    """Open the sources of a run and share their videos out.

    Raises:
        ValueError: A source holds no video that can be used.
    """
    train = build_source(options.source, options.root, options.list_file)
    check_fingerprint(train, options)
    everything, most = range(len(train)), options.val_clips
    if most == 0:
        return OpenSources(train, everything, train, (), "no validation")
    given = options.validation
    separate = build_source(*given, "test") if given else train.test_part()
    if separate is not None:
        # Spread over the whole source, because neighbours in a list look alike.
        count = min(most, len(separate))
        items = [place * len(separate) // count for place in range(count)]
        note = f"validation: {count} of {separate.describe()}"
        return OpenSources(train, everything, separate, items, note)
    if shares := train.hold_out(most):
        note = f"validation: the last {most} videos, held out of training"
        return OpenSources(train, shares[0], train, shares[1], note)
    count = min(most, len(train))
    note = (
        f"validation: {count} of the training videos, because {len(train)} are too few "
        f"to hold {most} out"
    )
    logger.warning("%s", note)
    return OpenSources(train, everything, train, everything[:count], note)


def check_fingerprint(source: ClipSource, options: DataOptions) -> None:
    """Refuse a prepared store that is not the one that the options name.

    Raises:
        ValueError: It is another, or the source is no store.
    """
    if options.fingerprint is None:
        return
    if not isinstance(source, PreparedSource):
        raise ValueError(
            f"source {options.source!r} has no fingerprint, but got "
            f"{options.fingerprint!r}: only prepared stores have one"
        )
    if source.fingerprint != options.fingerprint:
        raise ValueError(
            f"the prepared store {options.root} has the fingerprint "
            f"{source.fingerprint}, not {options.fingerprint}: it is another or has "
            "changed; give the root of the right one, or leave out data.fingerprint"
        )


def build_source(
    source: SourceName,
    root: str | None = None,
    list_file: str | None = None,
    split: Split = "train",
) -> ClipSource:
    """Open a source that :func:`check_source` finds no fault with.

    Args:
        source: Its name.
        root: Its directory.
        list_file: Its list.
        split: Which part, for a source that has several.

    Raises:
        ValueError: It has a fault, or there is no video under its root.
    """
    check_source(source, root, list_file)
    if source == "vimeo90k":
        return Vimeo90KSource(root, list_file, split)
    if source == "openvid":
        return OpenVidSource(root, list_file)
    if source == "folder":
        return FolderSource(root)
    if source == "stills":
        return StillsSource(root)
    if source == "prepared":
        return PreparedSource(root)
    scenes = SyntheticSource()
    return scenes.test_part() if split == "test" else scenes


def check_source(source: SourceName, root: str | None, list_file: str | None) -> None:
    """Check what can be told of a source at once, without looking for its videos.

    Args:
        source: Its name.
        root: Its directory; ``~`` and ``${VARIABLES}`` of the environment are expanded.
        list_file: Its list, if it is not where the source has it.

    Raises:
        ValueError: There is no such source, root or list, or ``root`` names an
            environment variable that is not set.
    """
    if source != "synthetic" and source not in HOLDS:
        raise ValueError(
            f"there is no source {source!r}: choose synthetic, {', '.join(HOLDS)}"
        )
    if root is not None:
        root = expand_root(root)
    if source == "synthetic" and root is not None:
        raise ValueError(
            f"source 'synthetic' has no root, but got {root!r}: to read videos from "
            f"there, set source to one of {', '.join(HOLDS)}"
        )
    if list_file is not None and source not in ("vimeo90k", "openvid"):
        raise ValueError(f"source {source!r} has no list_file, but got {list_file!r}")
    if source != "synthetic":
        path = check_root(source, root, HOLDS[source])
        if list_file is not None and source == "vimeo90k":
            find_list(path, "train", list_file)
        elif list_file is not None:
            find_tables(path, list_file)
