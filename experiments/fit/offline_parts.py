"""Offline parts of W&B runs that a kill left torn.

``wandb sync`` uploads a torn part up to its last whole record, then ends with an
error: the parts after it are not sent, and a retry fails at the same place.

A ``.wandb`` file is a LevelDB log: after 7 bytes of its own come blocks of 32 KiB, in
them fragments of records, each after 7 bytes: checksum (4), length (2), and whether it
is a whole record (1), a first (2), a middle (3) or a last one (4). Source: LevelDB's
log format, https://github.com/google/leveldb/blob/main/doc/log_format.md.
"""

import mmap
import os
from pathlib import Path

BLOCK = 32768
HEADER = 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def cut_torn_tails(run_dir: str | Path) -> list[Path]:
    """Cut each offline part of a run after its last whole record.

    No process may be writing to them. Files that are not torn but damaged stay as they
    are, for what follows the damage may be readable.

    Returns:
        The files that were cut.
    """
    cut = []
    for path in sorted(Path(run_dir, "wandb").glob("offline-run-*/*.wandb")):
        size = path.stat().st_size
        if not size:
            # Nothing of it had been written, and nothing can be mapped.
            continue
        with path.open("rb") as file:
            # Not read: a part of weeks is large.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                end = whole_records(data)
        if end < size:
            os.truncate(path, end)
            cut.append(path)
    return cut


def unsent_parts(run_dir: str | Path) -> list[Path]:
    """Return the folders of offline parts that have records and were not sent.

    One that was killed before its first record holds nothing, and ``wandb sync`` would
    refuse all parts because of it.
    """
    return [
        folder
        for folder in sorted(Path(run_dir, "wandb").glob("offline-run-*"))
        if not any(folder.glob("*.synced"))
        and any(path.stat().st_size > HEADER for path in folder.glob("*.wandb"))
    ]


def whole_records(data: bytes | mmap.mmap) -> int:
    """Return where the last whole record ends; the length of all if it is damaged."""
    position = end = HEADER
    inside = False
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            # Too little for a fragment: zeros up to the next block.
            position += left
            continue
        kind = data[position + 6]
        if kind == 0 and not any(data[position:]):
            # Room that a file system had set apart and nobody filled.
            break
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        fits = HEADER + length <= left
        follows = kind in ((MIDDLE, LAST) if inside else (WHOLE, FIRST))
        if not (fits and follows):
            return len(data)
        position += HEADER + length
        inside = kind in (FIRST, MIDDLE)
        if not inside and position <= len(data):
            end = position
    return min(end, len(data))
