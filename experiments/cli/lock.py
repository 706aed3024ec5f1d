"""Locks by which processes keep apart, also on machines that share a disk.

A lock is a file that its holder has locked. It ends with the process, however that
ends. Not flock: loader processes would inherit it, and hold it for seconds after this
process was killed, when the scheduler starts it again.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LockedError(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock. The file may be removed by whoever holds it.

    Args:
        path: The file, made if need be; its folder too.
        wait: Whether to wait for another holder.

    Returns:
        Whether it is held: some file systems have no locks, and the block runs without.

    Raises:
        LockedError: Another process holds it, unless ``wait``.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("w")
        except FileNotFoundError:
            # Its folder was removed in between, by the holder.
            continue
        with file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise LockedError(path) from error
                # Any other error: this file system has no locks.
                yield False
                return
            if not _is_at(path, file.fileno()):
                # Its holder removed it while we waited: who comes now makes another.
                continue
            yield True
            return


def _is_at(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(number))
    except FileNotFoundError:
        return False
