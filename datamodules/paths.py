"""Paths that users name: what stands for them, and what lies there."""

import os
import re
from pathlib import Path
from typing import BinaryIO

PNG = (".png",)
JPEG = (".jpg", ".jpeg")
IMAGE_SUFFIXES = (*PNG, *JPEG)


def expand(what: str, text: str, remedy: str = "") -> str:
    """Expand ``${VARIABLES}`` of the environment, then a ``~`` in front.

    What exists under the very name that was given is that, whatever signs it has.

    Args:
        what: What the text names, for the message.
        text: What the user gave.
        remedy: What to do where a variable is not set, for the message.

    Raises:
        ValueError: A variable is not set.
    """
    if os.path.exists(text):
        return text
    expanded = os.path.expandvars(text)
    if unset := re.search(r"\$(?:\{(\w+)\}|(\w+))", expanded):
        raise ValueError(
            f"{what} {text!r}: the environment variable {unset[1] or unset[2]} is not "
            f"set{'; ' if remedy else ''}{remedy}"
        )
    return os.path.expanduser(expanded)


def expand_root(root: str | Path) -> str:
    """Expand ``~`` and ``${VARIABLES}`` of the environment in a root.

    Raises:
        ValueError: A variable is not set.
    """
    remedy = (
        "set it to that directory, or give the directory itself (--data.root, or "
        "`data: {root: ...}` in the stage's row)"
    )
    return expand("root", str(root), remedy)


def check_root(source: str, root: str | Path | None, holds: str) -> Path:
    """Return ``root`` as a path.

    Args:
        source: Name of the source, for the message.
        root: What the user gave; ``~`` and ``${VARIABLES}`` are expanded.
        holds: What the directory should hold, for the message.

    Raises:
        ValueError: It is missing or no directory, or names a variable that is not set.
    """
    if root is None:
        raise ValueError(f"source {source!r} needs `root`: a directory with {holds}")
    path = Path(expand_root(root))
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise ValueError(
            f"source {source!r}: root {str(path.absolute())!r} {what}; "
            f"it should be a directory with {holds}"
        )
    return path


def check_list(source: str, root: Path, list_file: str | Path) -> Path:
    """Return the list that the user names, absolute or relative to the root.

    Raises:
        ValueError: There is no such file.
    """
    path = root / list_file
    if not path.is_file():
        path = root / os.path.expanduser(list_file)
    if not path.is_file():
        raise ValueError(
            f"source {source!r}: list_file {str(path)!r} does not exist; "
            f"{path.parent} holds {found_in(path.parent)}"
        )
    return path


def find_images(
    directory: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> list[Path]:
    """Return a directory's visible images, ``im2.png`` before ``im10.png``."""

    def natural(name: str) -> list[str | int]:
        parts = re.split(r"(\d+)", name)
        return [int(part) if part.isdecimal() else part for part in parts]

    names = [entry.name for entry in os.scandir(directory)]
    images = [name for name in names if name.lower().endswith(suffixes)]
    visible = [name for name in images if not name.startswith(".")]
    return [directory / name for name in sorted(visible, key=natural)]


def find_frames(directory: Path) -> list[Path]:
    """Return the frames that a directory holds: its PNG images, or its JPEG ones.

    Where there are PNG images, JPEG ones beside them are previews.
    """
    return find_images(directory, PNG) or find_images(directory, JPEG)


def open_at_once(path: Path) -> BinaryIO:
    """Open a file to read; a pipe that nobody writes into is empty, and no wait.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    return open(path, "rb", opener=lambda name, how: os.open(name, how | os.O_NONBLOCK))


def reason_of(error: Exception) -> str:
    """Return what an error says, of a system's error without its number and path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def printable(name: str | Path) -> str:
    """Return a name of a file as UTF-8 can hold it, other bytes as their numbers."""
    return os.fsencode(name).decode(errors="backslashreplace")


def found_in(directory: Path, most: int = 8) -> str:
    """List what a directory holds, for error messages."""
    if not directory.is_dir():
        return "nothing: there is no such directory"
    names = sorted(
        entry.name + "/" * entry.is_dir()
        for entry in os.scandir(directory)
        if not entry.name.startswith(".")
    )
    if not names:
        return "nothing: the directory is empty"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
