"""Parts of W&B runs: those that a kill left torn, and what is in them.

``wandb sync`` uploads a torn part up to its last whole record, then ends with an
error: the parts after it are not sent, and a retry fails at the same place.

A ``.wandb`` file is a LevelDB log: after 7 bytes of its own come blocks of 32 KiB, in
them fragments of records, each after 7 bytes: checksum (4), length (2), and whether it
is a whole record (1), a first (2), a middle (3) or a last one (4). Source: LevelDB's
log format, https://github.com/google/leveldb/blob/main/doc/log_format.md.
"""

import json
import mmap
import os
import time
from collections.abc import Iterator
from importlib import import_module
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


def wait_for_records(path: Path, seconds: float = 5.0) -> None:
    """Wait until a part holds something.

    W&B's service writes a moment after a run is finished, so that a short one would
    seem to have nothing that can be sent.
    """
    end = time.monotonic() + seconds
    while path.stat().st_size <= HEADER and time.monotonic() < end:
        time.sleep(0.01)


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
    end = HEADER
    try:
        for fragments in _records(data):
            end = fragments[-1].stop
    except _DamagedError:
        return len(data)
    return min(end, len(data))


class _DamagedError(Exception):
    """A part is no log of records."""


def _records(data: bytes | mmap.mmap) -> Iterator[list[slice]]:
    """Give the fragments of each whole record, as places in ``data``."""
    position = HEADER
    fragments: list[slice] = []
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            # Too little for a fragment: zeros up to the next block.
            position += left
            continue
        kind = data[position + 6]
        if kind == 0 and not any(data[position:]):
            # Room that a file system had set apart and nobody filled.
            return
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        fits = HEADER + length <= left
        follows = kind in ((MIDDLE, LAST) if fragments else (WHOLE, FIRST))
        if not (fits and follows):
            raise _DamagedError
        begin, position = position + HEADER, position + HEADER + length
        if position > len(data):
            return
        fragments.append(slice(begin, position))
        if kind in (WHOLE, LAST):
            yield fragments
            fragments = []


def parts_of(run_dir: str | Path) -> list[Path]:
    """Return the files of a run's parts, offline and online, in order of time."""
    parts = Path(run_dir, "wandb").glob("*run-*/run-*.wandb")
    return sorted(parts, key=lambda path: path.parent.name.split("run-")[1])


def logged_from(run_dir: str | Path, step: int) -> dict[int, set[str]]:
    """Return what the run's parts hold of steps beyond one, and of the last before it.

    The former come again, and what lies between the latter and ``step`` was lost with
    the end of a torn part. Parts of online runs count too: W&B keeps what it sends in
    such files.

    Args:
        run_dir: The run's folder.
        step: Where the run goes on, on its own axis.

    Returns:
        The logged names by their step.
    """
    found: dict[int, set[str]] = {}
    last = None
    # From the newest back to where a part is older.
    for path in reversed(parts_of(run_dir)):
        if path.stat().st_size <= HEADER:
            continue
        with path.open("rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for own, names in _history_backwards(data):
                    if own <= step:
                        last = own if last is None else last
                        if own < last:
                            return found
                    found.setdefault(own, set()).update(names)
    return found


def _history_backwards(data: mmap.mmap) -> Iterator[tuple[int, set[str]]]:
    """Give step and names of each row that was logged, the newest first."""
    # By their names: protobuf has no types.
    damaged = import_module("google.protobuf.message").DecodeError
    kind = import_module("wandb.proto.wandb_internal_pb2").Record
    records = []
    try:
        for fragments in _records(data):
            records.append(fragments)
    except _DamagedError:
        # What comes before the damage is whole.
        pass
    for fragments in reversed(records):
        try:
            record = kind.FromString(b"".join(data[place] for place in fragments))
        except damaged:
            # Damaged: it comes again.
            continue
        items = {
            item.key or item.nested_key[0]: item.value_json
            for item in record.history.item
        }
        if "step" in items:
            yield int(json.loads(items["step"])), set(items)
