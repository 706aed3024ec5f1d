"""DCVC's configuration of test sets: a JSON file that lists sequences."""

import json
import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

from datamodules.paths import reason_of
from datamodules.sequences.content import check_content
from datamodules.sequences.files import VideoSequence
from datamodules.sequences.standard_sets import (
    contradiction,
    find_standard,
    parse_name,
)

logger = logging.getLogger(__name__)


def find_listed(path: Path, root: Path | None) -> list[VideoSequence]:
    """Find what a configuration of DCVC's test program lists.

    Args:
        path: The configuration.
        root: Replaces its ``root_path``, if given.

    Raises:
        ValueError: It is none, or a sequence is not as it says.
    """
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as JSON: {reason_of(error)}"
        ) from error
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
            base = _get(values, "base_path", str, name)
            for file, entry in _get(values, "sequences", dict, name).items():
                width, height, frames = (
                    _get(entry, number, int, f"{name}, {file}")
                    for number in ("width", "height", "frames")
                )
                try:
                    place = _below(root, base, file)
                    _check_kind(place, kind)
                    found.append(_listed(name, place, width, height, frames))
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


def _below(root: Path, base: str, file: str) -> Path:
    """Return the path of a sequence, which must lie below the root by its name.

    Raises:
        ValueError: It leads out of the root; a link may, and is said.
    """
    path = root / base / file
    inside = Path(os.path.abspath(root))
    if not Path(os.path.abspath(path)).is_relative_to(inside):
        raise ValueError(
            f"{os.path.join(base, file)} leads out of the root {inside}: name what "
            "lies below it, or give another root, as FILE.json=ROOT"
        )
    if not path.resolve().is_relative_to(inside.resolve()):
        logger.warning(
            "%s is a link out of the root %s, to %s", path, inside, path.resolve()
        )
    return path


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
    is_raw = path.is_file() and path.suffix.lower() == ".yuv"
    if is_raw and (unlike := contradiction(path.stem, width, height)):
        raise ValueError(
            f"{path} is listed as 8-bit 4:2:0 of {width}x{height}, but {unlike}: "
            "correct the list, or rename the file"
        )
    check_content(path, width, height, frames, all_frames=False)
    name = path.name if path.is_dir() else path.stem
    fps = parse_name(name).fps
    standard = find_standard(set_name, name)
    if standard and (standard.width, standard.height) == (width, height):
        set_name, name, fps = standard.set, standard.name, Fraction(standard.fps)
    if fps is None:
        raise ValueError(f"{path} must say its frames per second in its name: _50fps")
    return VideoSequence(set_name, name, path, width, height, fps, frames, listed=True)
