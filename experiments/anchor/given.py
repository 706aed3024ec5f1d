"""What users name by rate: ``RATE=PATH``, one for all sequences or one for each."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.paths import expand, find_images, found_in
from datamodules.sequences.files import VideoSequence
from datamodules.sources.folder import VIDEO_SUFFIXES
from datamodules.texts import read_text

PLACEHOLDER = "{sequence}"
LIST_SUFFIXES = (".txt", ".json")
FRAME_SUFFIXES = (".y4m", ".yuv", ".png")


def by_rate(option: str, texts: Sequence[str]) -> dict[float, str]:
    """Return what stands behind each rate of texts ``RATE=...``.

    Args:
        option: Its name, for messages.
        texts: As they were given.

    Raises:
        ValueError: A text has no rate, none that is finite, or nothing behind it; or
            two have the same.
    """
    found: dict[float, str] = {}
    for text in texts:
        number, _, rest = text.partition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = math.nan
        if not (math.isfinite(rate) and rest):
            raise ValueError(
                f"{option} {text!r} must be RATE=..., such as 27=..., with a number"
            )
        if rate in found:
            raise ValueError(
                f"{option} names rate {rate:g} twice: {found[rate]} and {rest}"
            )
        found[rate] = rest
    return found


def find_frames(text: str, sequence: VideoSequence) -> Path:
    """Return where a sequence's decoded frames are.

    Args:
        text: A video or a folder of images; or a folder that has one of either for each
            sequence, whose name is the sequence's or begins with it; or a pattern with
            ``{sequence}`` for the name.
        sequence: Whose frames are wanted.

    Raises:
        ValueError: There is nothing, or more than one thing.
    """
    path = _filled("--decoded", text, sequence)
    if not path.is_dir() or find_images(path):
        return path
    entries = [
        entry
        for entry in path.iterdir()
        if entry.is_dir() or entry.suffix.lower() in (".yuv", *VIDEO_SUFFIXES)
    ]
    own = _called_like(sequence, entries)
    if len(own) != 1:
        raise ValueError(
            f"--decoded: {path} must hold one video or folder of images whose name is "
            f"{sequence.name} or begins with it, and holds {found_in(path)}"
        )
    return own[0]


def find_bytes(text: str, sequence: VideoSequence) -> int | Path:
    """Return what says how many bytes a sequence took: the number, or where it stands.

    Args:
        text: A number; a bitstream file; a list (see :func:`read_bytes`); a folder that
            has one of these for each sequence, by its name; a folder with the bitstream
            of each frame; or a pattern with ``{sequence}`` for one of these.
        sequence: Whose bytes are wanted.

    Raises:
        ValueError: There is nothing, or more than one thing.
    """
    if re.fullmatch("[0-9]+", text):
        return int(text)
    if re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", text) and not Path(text).exists():
        raise ValueError(
            f"--bytes {text}: that is no number of bytes, which is whole and above 0"
        )
    path = _filled("--bytes", text, sequence)
    if not path.is_dir() or PLACEHOLDER in text:
        return path
    entries = [e for e in path.iterdir() if e.suffix.lower() not in FRAME_SUFFIXES]
    own = _called_like(sequence, entries)
    if len(own) > 1:
        raise ValueError(
            f"--bytes: {path} holds {', '.join(sorted(e.name for e in own))} for "
            f"{sequence.name}: name one, with {PLACEHOLDER} for the sequence"
        )
    return own[0] if own else path


def read_bytes(given: int | Path, sequence: VideoSequence) -> int | list[int]:
    """Return a sequence's bytes: of all frames together, or of each.

    Args:
        given: As :func:`find_bytes` gives it. A ``.txt`` holds numbers between white
            space; a ``.json`` one number, a list, or an object with one of these for
            each sequence by its name; in a folder each file is a frame, in the order of
            the numbers in their names; of any other file the size counts.
        sequence: Whose bytes are wanted.

    Raises:
        ValueError: A number is none of bytes, or the sequence has none.
        OSError: A file cannot be read.
    """
    if isinstance(given, int):
        return _checked(given, f"--bytes {given}")
    where = f"--bytes: {given}"
    if given.is_dir():
        # In natural order, whatever their suffix.
        files = [path for path in find_images(given, ("",)) if path.is_file()]
        return _checked([path.stat().st_size for path in files], where)
    suffix = given.suffix.lower()
    if suffix not in LIST_SUFFIXES:
        return _checked(given.stat().st_size, where)
    try:
        is_json = suffix == ".json"
        values = json.loads(given.read_bytes()) if is_json else _numbers(given)
    except ValueError as error:
        raise ValueError(f"{where} cannot be read: {error}") from error
    if isinstance(values, dict):
        names = (sequence.name, f"{sequence.set}/{sequence.name}")
        own = [values[name] for name in names if name in values]
        if not own:
            raise ValueError(
                f"{where} has no sequence {sequence.name}, only {', '.join(values)}"
            )
        values = own[0]
    return _checked(values, where)


def is_shared(given: Path) -> bool:
    """Return whether one file may tell the bytes of several sequences."""
    if given.suffix.lower() != ".json":
        return False
    try:
        return isinstance(json.loads(given.read_bytes()), dict)
    except ValueError as error:
        raise ValueError(f"--bytes: {given} cannot be read: {error}") from error


def _filled(option: str, text: str, sequence: VideoSequence) -> Path:
    path = Path(text.replace(PLACEHOLDER, sequence.name))
    if not path.exists():
        # A name of a sequence is no variable, whatever signs it has.
        path = Path(expand(option, text).replace(PLACEHOLDER, sequence.name))
    if not path.exists():
        raise ValueError(
            f"{option}: there is no {path} for {sequence.name}; {path.parent} holds "
            f"{found_in(path.parent)}"
        )
    return path


def _called_like(sequence: VideoSequence, entries: list[Path]) -> list[Path]:
    """Return the entries with a sequence's name, or else those that begin with it."""
    name = sequence.name.lower()
    stems = {
        entry: (entry.name if entry.is_dir() else entry.stem).lower()
        for entry in entries
        if not entry.name.startswith(".")
    }
    exactly = [entry for entry, stem in stems.items() if stem == name]
    begins = re.compile(re.escape(name) + "[^a-z0-9]")
    return exactly or [entry for entry, stem in stems.items() if begins.match(stem)]


def _numbers(path: Path) -> list[int]:
    words = read_text(path).split()
    for word in words:
        if not re.fullmatch("[0-9]+", word):
            raise ValueError(f"{word!r} is no whole number of bytes")
    return [int(word) for word in words]


def _checked(values: Any, where: str) -> int | list[int]:
    """Return whole numbers from 0 whose sum is above it."""
    each = values if isinstance(values, list) else [values]
    for value in each:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(
                f"{where} has {value!r}, which is no whole number of bytes"
            )
    if not sum(each):
        raise ValueError(f"{where} says no bytes at all")
    return values
