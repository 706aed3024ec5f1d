"""Where the sequences of a standard set lie below a folder."""

from collections.abc import Iterable
from fractions import Fraction
from glob import iglob
from pathlib import Path

from datamodules.paths import found_in
from datamodules.sequences.content import check_content
from datamodules.sequences.files import VideoSequence
from datamodules.sequences.standard_sets import STANDARD_SETS, StandardSequence


def find_standard_set(key: str, selection: str, root: Path) -> list[VideoSequence]:
    """Find a standard set.

    Args:
        key: Of the set.
        selection: Names of its sequences with commas between; all if empty.
        root: Where they lie, or below.

    Raises:
        ValueError: One is missing, ambiguous or not as the table has it.
    """
    entries = STANDARD_SETS[key]
    if selection:
        entries = _select(key, selection)
    if not root.is_dir():
        raise ValueError(f"set {key!r}: there is no directory {root.absolute()}")
    places = sorted(iglob("**", root_dir=root, recursive=True))
    found: list[VideoSequence] = []
    missing: list[str] = []
    wrong: list[str] = []
    for entry in entries:
        size = (entry.width, entry.height)
        try:
            path = _locate(entry, root, places)
            check_content(path, *size, entry.frames, all_frames=True)
        except LookupError as error:
            missing.append(str(error.args[0]))
        except (ValueError, OSError) as error:
            wrong.append(str(error))
        else:
            content = (*size, Fraction(entry.fps), entry.frames)
            found.append(VideoSequence(key, entry.name, path, *content, listed=True))
    if missing:
        wrong.insert(
            0,
            f"missing: {', '.join(missing)}; looked there and below for NAME*.yuv, "
            "NAME*.y4m and directories NAME* of PNG images, and there are "
            f"{found_in(root)}",
        )
    if wrong:
        names = ",".join(sequence.name for sequence in found) or "NAME,NAME"
        raise ValueError(
            f"set {key!r} in {root.absolute()}: {'; '.join(wrong)}. To use a part of "
            f"the set, write {key}:{names}={root}"
        )
    return found


def _select(key: str, selection: str) -> tuple[StandardSequence, ...]:
    wanted = {name.strip().lower() for name in selection.split(",")}
    entries = STANDARD_SETS[key]
    known = {name.lower(): entry for entry in entries for name in entry.names}
    if unknown := sorted(wanted - set(known)):
        raise ValueError(
            f"set {key!r} has no sequence {' or '.join(map(repr, unknown))}, only "
            f"{', '.join(entry.name for entry in entries)}"
        )
    chosen = {known[name] for name in wanted}
    return tuple(entry for entry in entries if entry in chosen)


def _locate(entry: StandardSequence, root: Path, places: Iterable[str]) -> Path:
    """Return the one place below a root that holds a sequence.

    None is a LookupError with names that come near, several are a ValueError.
    """
    paths: dict[Path, Path] = {}
    near: list[str] = []
    for place in places:
        path = root / place
        raw = path.suffix.lower() in (".yuv", ".y4m")
        stem = path.stem if raw else path.name
        if not entry.is_called(stem):
            continue
        images = path.is_dir() and any(iglob("*.[pP][nN][gG]", root_dir=path))
        if reason := entry.contradiction(stem):
            near.append(f"not {place}, {reason}")
        elif images or (raw and path.is_file()):
            # One file under two names, by links, is one file.
            paths.setdefault(path.resolve(), path)
        elif path.is_file():
            near.append(f"not {place}, which is no .yuv, .y4m or directory")
    if not paths:
        raise LookupError(f"{entry.name} ({', '.join(near)})" if near else entry.name)
    if len(paths) > 1:
        several = " and ".join(str(path) for path in paths.values())
        raise ValueError(
            f"{entry.name} is ambiguous, there are {several}: move all but one away, "
            "or give a ROOT that holds only one"
        )
    return next(iter(paths.values()))
