"""The sequences that codecs are measured on: how they are named and found.

What to measure on is said by any number of texts, each of which is one of these
(``${VARIABLES}`` of the environment and ``~`` are expanded):

* ``uvg=ROOT``: a standard set (``uvg``, ``mcl_jcv``, ``hevc_b`` to ``hevc_e``), whole.
  Below ROOT, each sequence is one 8-bit 4:2:0 ``.yuv`` or ``.y4m``, or one directory
  of PNG images, whose name begins with the sequence's in any case. It has the size
  and all the frames of :mod:`datamodules.sequences.standard_sets`, or it is refused.
* ``uvg:Beauty,Jockey=ROOT``: some sequences of a standard set.
* ``FILE.json``: DCVC's configuration of test sets. Of each file the first ``frames``
  frames are used; ``gop`` and ``intra_period`` are not, the protocol says those.
* ``FILE.json=ROOT``: the same with another ``root_path``.
* A directory: every video, raw file and directory of PNG images below it, a set with
  the directory's name. The name of a raw file says what it is:
  ``name_416x240_50.yuv``.
* One video, raw file or image: part of a set with its directory's name.
* ``patterns``: the eight motions of :mod:`datamodules.sequences.motion_patterns` over
  procedural pictures, each a set, ``motion_blur`` to ``motion_zoom``; needs no file.
  ``patterns:N``: over N pictures. ``patterns=DIR``, ``patterns:N=DIR``: over the first
  pictures of a folder, such as the test set of CLIC2020.

How frames are read is said in :mod:`datamodules.sequences.files`.
"""

import json
import logging
import os
import re
from collections.abc import Iterable
from fractions import Fraction
from glob import iglob
from pathlib import Path
from typing import Any

from datamodules.frames import find_images
from datamodules.sequences.files import (
    VideoSequence,
    check_content,
    examine,
    image_number,
)
from datamodules.sequences.motion_patterns import find_patterns
from datamodules.sequences.standard_sets import (
    STANDARD_SETS,
    StandardSequence,
    find_standard,
    parse_name,
    set_key,
)
from datamodules.sources.folder import VIDEO_SUFFIXES, find_videos
from datamodules.sources.source import found_in

PATTERNS_KEY = "patterns"

logger = logging.getLogger(__name__)


def find_sequences(specs: Iterable[str]) -> list[VideoSequence]:
    """Return the sequences that texts as in the module's description name, in order.

    Raises:
        ValueError: There is none, one is named twice, or something cannot be used;
            all that is wrong with one text is said at once.
    """
    found: dict[tuple[str, str], VideoSequence] = {}
    for spec in specs:
        for sequence in _find(spec):
            other = found.setdefault((sequence.set, sequence.name), sequence)
            if other is not sequence:
                raise ValueError(
                    f"sequence {sequence.name!r} of set {sequence.set!r} is named "
                    f"twice: {other.path} and {sequence.path}"
                )
    if not found:
        raise ValueError("no sequences: name a set, a file or a directory")
    return list(found.values())


def _find(spec: str) -> list[VideoSequence]:
    expanded = os.path.expandvars(spec)
    if unset := re.search(r"\$(?:\{(\w+)\}|(\w+))", expanded):
        raise ValueError(
            f"sequences {spec!r}: the environment variable {unset[1] or unset[2]} is "
            "not set"
        )
    path = Path(expanded).expanduser()
    head, equals, tail = expanded.partition("=")
    key = set_key(head.partition(":")[0])
    if key == PATTERNS_KEY:
        folder = Path(tail).expanduser() if equals else None
        return find_patterns(head.partition(":")[2], folder)
    if equals and key in STANDARD_SETS:
        return _find_standard(key, head.partition(":")[2], Path(tail).expanduser())
    if equals and head.lower().endswith(".json"):
        return _find_listed(Path(head).expanduser(), Path(tail).expanduser())
    if os.path.isdir(path):
        return _find_in_directory(path)
    if os.path.isfile(path):
        if path.suffix.lower() == ".json":
            return _find_listed(path, None)
        set_name = _free_set(Path(os.path.abspath(path)).parent)
        return [VideoSequence(set_name, path.stem, path, *examine(path))]
    if equals:
        reason = (
            f"there is no standard set {head!r}, only {', '.join(STANDARD_SETS)}, "
            f"and {PATTERNS_KEY}"
        )
    elif key in STANDARD_SETS:
        reason = f"to say where that set is, write {expanded}=ROOT"
    else:
        reason = "there is no such file or directory"
    raise ValueError(f"sequences {spec!r}: {reason}")


def _find_standard(key: str, selection: str, root: Path) -> list[VideoSequence]:
    """Find a standard set, or only the sequences that ``selection`` names."""
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

    Raises:
        LookupError: There is none; it says the name and what comes near.
        ValueError: There are several.
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


def _find_listed(path: Path, root: Path | None) -> list[VideoSequence]:
    """Find what a configuration of DCVC's test program lists."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    found: list[VideoSequence] = []
    problems: list[str] = []
    try:
        classes = _get(data, "test_classes", dict)
        root = root or path.parent / _get(data, "root_path", str)
        for name, values in classes.items():
            if not _get(values, "test", int, name):
                continue
            kind = _get(values, "src_type", str, name)
            if kind not in ("yuv420", "png"):
                raise ValueError(f"{name}: src_type {kind!r} is not 'yuv420' or 'png'")
            base = root / _get(values, "base_path", str, name)
            for file, entry in _get(values, "sequences", dict, name).items():
                width, height, frames = (
                    _get(entry, number, int, f"{name}, {file}")
                    for number in ("width", "height", "frames")
                )
                try:
                    _check_kind(base / file, kind)
                    found.append(_listed(name, base / file, width, height, frames))
                except (ValueError, OSError) as error:
                    problems.append(str(error))
    except ValueError as error:
        raise ValueError(f"{path} is no test configuration: {error}") from error
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    if not found:
        raise ValueError(f'{path}: no class with "test": 1 lists a sequence')
    return found


def _get(values: Any, key: str, kind: type, where: str = "") -> Any:
    """Return a value of a configuration, of the kind that it must have."""
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, kind):
        wanted = {dict: "an object", str: "a text", int: "a number"}[kind]
        place = f"{where}: " if where else ""
        raise ValueError(f"{place}{key!r} is {value!r}, it must be {wanted}")
    return value


def _check_kind(path: Path, kind: str) -> None:
    if not (path.is_dir() if kind == "png" else path.is_file()):
        what = "directory of images" if kind == "png" else "file"
        raise ValueError(f"there is no {what} {path}")


def _listed(
    set_name: str, path: Path, width: int, height: int, frames: int
) -> VideoSequence:
    """Make a sequence; one of a standard set gets its name there, to be compared."""
    if min(width, height, frames) < 1:
        raise ValueError(f"{path} cannot have {frames} frames of {width}x{height}")
    check_content(path, width, height, frames, all_frames=False)
    name = path.name if path.is_dir() else path.stem
    fps = parse_name(name).fps
    standard = find_standard(set_name, name)
    if standard and (standard.width, standard.height) == (width, height):
        set_name, name, fps = standard.set, standard.name, Fraction(standard.fps)
    if fps is None:
        raise ValueError(f"{path} must say its frames per second in its name: _50fps")
    return VideoSequence(set_name, name, path, width, height, fps, frames, listed=True)


def _find_in_directory(root: Path) -> list[VideoSequence]:
    set_name = _free_set(root)
    raw = iglob("**/*.[yY][uU][vV]", root_dir=root, recursive=True)
    # Links may lead to one file on many ways; the one through fewest folders counts.
    deepest_first = sorted(raw, key=lambda place: -place.count("/"))
    distinct = {(root / place).resolve(): place for place in deepest_first}
    found: list[VideoSequence] = []
    problems: list[str] = []
    for place in sorted([*find_videos(root), *distinct.values()]):
        path = root / place
        if path.is_dir() and all(image_number(p) is None for p in find_images(path)):
            logger.warning("%s is no sequence: its images have no numbers", path)
            continue
        name = place if path.is_dir() else place.removesuffix(path.suffix)
        name = set_name if place == "." else name.replace("/", "_")
        try:
            found.append(VideoSequence(set_name, name, path, *examine(path)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError(f"directory {root}: {'; '.join(problems)}")
    if not found:
        raise ValueError(
            f"looked in {root.absolute()} and below for videos "
            f"({' '.join(VIDEO_SUFFIXES)} .yuv) and directories of PNG frames; found "
            f"{found_in(root)}"
        )
    return found


def _free_set(directory: Path) -> str:
    """Return the name of the set that a directory is, which must not be a standard."""
    name = os.path.basename(os.path.abspath(directory))
    if name in STANDARD_SETS:
        raise ValueError(
            f"{directory} is called like a standard set: write {name}={directory} if "
            "it is that, or rename it"
        )
    return name
