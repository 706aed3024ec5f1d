"""Sources by name: what is told of one at once, and opening it."""

import os
import re
from typing import Literal, TypeAlias

from datamodules.sources import folder, openvid, vimeo90k
from datamodules.sources.folder import FolderSource
from datamodules.sources.openvid import OpenVidSource, find_tables
from datamodules.sources.source import ClipSource, check_root
from datamodules.sources.synthetic import SyntheticSource
from datamodules.sources.vimeo90k import Split, Vimeo90KSource, find_list

SourceName: TypeAlias = Literal["synthetic", "folder", "vimeo90k", "openvid"]

SYNTHETIC_VALIDATION = 2**32

HOLDS = {"folder": folder.HOLDS, "vimeo90k": vimeo90k.HOLDS, "openvid": openvid.HOLDS}
"""What the root of each source that has one should hold."""


def build_source(
    source: SourceName,
    root: str | None = None,
    list_file: str | None = None,
    split: Split = "train",
) -> ClipSource:
    """Open a source by name.

    Args:
        source: Its name.
        root: Its directory; ``~`` and ``${VARIABLES}`` of the environment are expanded.
        list_file: Its list, if it is not where the source has it.
        split: Which part, for a source that has several.

    Raises:
        ValueError: There is no such source, nothing for it under ``root``, or ``root``
            names an environment variable that is not set.
    """
    root = check_source(source, root, list_file)
    if source == "vimeo90k":
        return Vimeo90KSource(root, list_file, split)
    if source == "openvid":
        return OpenVidSource(root, list_file)
    if source == "folder":
        return FolderSource(root)
    return SyntheticSource(first=SYNTHETIC_VALIDATION if split == "test" else 0)


def check_source(
    source: SourceName, root: str | None, list_file: str | None
) -> str | None:
    """Check what can be told of a source at once, without looking for its videos.

    Args:
        source: Its name.
        root: Its directory.
        list_file: Its list, if it is not where the source has it.

    Returns:
        The root, expanded.

    Raises:
        ValueError: There is no such source, root or list, or ``root`` names an
            environment variable that is not set.
    """
    if source != "synthetic" and source not in HOLDS:
        raise ValueError(
            f"there is no source {source!r}: choose synthetic, folder, vimeo90k or "
            "openvid"
        )
    root = expand(root)
    if source == "synthetic" and root is not None:
        raise ValueError(
            f"source 'synthetic' has no root, but got {root!r}: to read videos from "
            "there, set source to folder, vimeo90k or openvid"
        )
    if list_file is not None and source not in ("vimeo90k", "openvid"):
        raise ValueError(f"source {source!r} has no list_file, but got {list_file!r}")
    if source != "synthetic":
        path = check_root(source, root, HOLDS[source])
        if list_file is not None and source == "vimeo90k":
            find_list(path, "train", list_file)
        elif list_file is not None:
            find_tables(path, list_file)
    return root


def expand(root: str | None) -> str | None:
    """Expand ``~`` and environment variables in a directory's name.

    Raises:
        ValueError: A variable is not set.
    """
    if root is None:
        return None
    expanded = os.path.expandvars(os.path.expanduser(root))
    if unset := re.search(r"\$(?:\{(\w+)\}|(\w+))", expanded):
        raise ValueError(
            f"root {root!r}: the environment variable {unset[1] or unset[2]} is not "
            "set; set it to that directory, or give the directory itself (--data.root, "
            "or `data: {root: ...}` in the stage's row)"
        )
    return expanded
