"""Files that are whole or not there: the one way in which the suite replaces a file."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, or what may be used of it, or a file may not be so large."""


@contextmanager
def naming_full(path: Path) -> Iterator[None]:
    """Add the file's name to errors of a write that has no room, which know none.

    Args:
        path: What the block writes.

    Raises:
        OSError: One of ``NO_ROOM``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


@contextmanager
def whole_or_nothing(path: Path, *, directory: bool = False) -> Iterator[Path]:
    """Give a temporary name beside ``path``, moved to it only if the block ends well.

    Whatever the block makes under that name is removed if the block raises; what stood
    at ``path`` before is then untouched.

    Args:
        path: The name in the end.
        directory: Whether the block makes a directory; only an empty one is replaced.

    Raises:
        OSError: ``path`` is something that must not be replaced, its directory does
            not exist, or the disk is full; each with the name of the file.
    """
    if not path.parent.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {path.parent} is no directory")
    place = path.parent.resolve()
    if place == Path("/dev") or place.is_relative_to("/proc"):
        raise FileExistsError(f"cannot write {path}: {place} holds no files")
    if path.is_dir() and not directory:
        raise IsADirectoryError(f"cannot write {path}: it is a directory")
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"cannot write {path}: the directory is not empty")
    if path.exists() and not path.is_dir() and (directory or not path.is_file()):
        wanted = "directory" if directory else "regular file"
        raise FileExistsError(f"cannot write {path}: what stands there is no {wanted}")
    # Not the process's number: threads, and processes of several machines, share it.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with naming_full(path):
            yield temporary
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
        raise
