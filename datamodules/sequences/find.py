"""The sequences that codecs are measured on: how they are named and found.

What to measure on is said by any number of texts, each of which is one of these
(``${VARIABLES}`` of the environment and ``~`` are expanded in what does not exist):

* ``uvg=ROOT``: a standard set (``uvg``, ``mcl_jcv``, ``hevc_b`` to ``hevc_e``), whole.
  Below ROOT, each sequence is one 8-bit 4:2:0 ``.yuv`` or ``.y4m``, or one directory
  of PNG images, whose name begins with the sequence's in any case. It has the size
  and all the frames of :mod:`datamodules.sequences.standard_sets`, or it is refused.
* ``uvg:Beauty,Jockey=ROOT``: some sequences of a standard set.
* ``FILE.json``: DCVC's configuration of test sets. Of each file the first ``frames``
  frames are used; ``gop`` and ``intra_period`` are not, the protocol says those.
* ``FILE.json=ROOT``: the same with another ``root_path``.
* A directory: every video, raw file and directory of PNG or JPEG images below it, a
  set with the directory's name. The name of a raw file says what it is:
  ``name_416x240_50.yuv``.
* One video, raw file or image: part of a set with its directory's name.
* ``stills=DIR``: every PNG or JPEG picture that DIR itself holds, each a sequence of
  one frame and of its own size, in a set with the directory's name. ``stills:N=DIR``:
  the first N.
* ``patterns``: the eight motions of :mod:`datamodules.sequences.motion_patterns` over
  procedural pictures, each a set, ``motion_blur`` to ``motion_zoom``; needs no file.
  ``patterns:N``: over N pictures. ``patterns=DIR``, ``patterns:N=DIR``: over the first
  pictures of a folder, such as the test set of CLIC2020.

How frames are read is said in :mod:`datamodules.sequences.files`.
"""

import logging
import os
import re
from collections.abc import Iterable
from glob import iglob
from pathlib import Path

from datamodules.paths import expand, find_frames, found_in, printable
from datamodules.pipes import SAVE_FIRST, as_input, is_pipe
from datamodules.sequences.content import examine, image_number
from datamodules.sequences.dcvc_list import find_listed
from datamodules.sequences.files import VideoSequence
from datamodules.sequences.motion_patterns import find_patterns
from datamodules.sequences.standard_files import find_standard_set
from datamodules.sequences.standard_sets import STANDARD_SETS, set_key
from datamodules.sequences.stills import find_stills
from datamodules.sources.folder import VIDEO_SUFFIXES, find_videos

PATTERNS_KEY = "patterns"
STILLS_KEY = "stills"

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


def names_patterns(spec: str) -> bool:
    """Tell whether a text names motion patterns."""
    return set_key(re.split("[:=]", spec, maxsplit=1)[0]) == PATTERNS_KEY


def _find(spec: str) -> list[VideoSequence]:
    head, equals, tail = spec.partition("=")
    if not os.path.exists(spec):
        head, tail = expand("sequences", head), expand("sequences", tail)
    expanded = f"{head}{equals}{tail}"
    path = as_input(Path(expanded))
    key = set_key(head.partition(":")[0])
    if names_patterns(expanded):
        return find_patterns(head.partition(":")[2], Path(tail) if equals else None)
    if equals and key == STILLS_KEY:
        folder = Path(tail)
        return find_stills(_free_set(folder), head.partition(":")[2], folder)
    if equals and key in STANDARD_SETS:
        return find_standard_set(key, head.partition(":")[2], Path(tail))
    if equals and head.lower().endswith(".json"):
        return find_listed(Path(head), Path(tail))
    if os.path.isdir(path):
        return _find_in_directory(path)
    if os.path.isfile(path):
        if path.suffix.lower() == ".json":
            return find_listed(path, None)
        set_name = _free_set(Path(os.path.abspath(path)).parent)
        name = printable(path.stem)
        return [VideoSequence(set_name, name, path, *examine(path))]
    if is_pipe(path):
        reason = f"it is {SAVE_FIRST}"
    elif equals:
        reason = (
            f"there is no standard set {head!r}, only {', '.join(STANDARD_SETS)}, "
            f"{PATTERNS_KEY} and {STILLS_KEY}"
        )
    elif key in (*STANDARD_SETS, STILLS_KEY):
        reason = f"to say where that set is, write {expanded}=ROOT"
    else:
        reason = "there is no such file or directory"
    raise ValueError(f"sequences {spec!r}: {reason}")


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
        if path.is_dir() and all(image_number(p) is None for p in find_frames(path)):
            logger.warning(
                "%s is no sequence: its images have no numbers; pictures that are no "
                "video can be measured as %s=%s",
                path,
                STILLS_KEY,
                path,
            )
            continue
        name = place if path.is_dir() else place.removesuffix(path.suffix)
        name = set_name if place == "." else printable(name.replace("/", "_"))
        try:
            found.append(VideoSequence(set_name, name, path, *examine(path)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError(f"directory {root}: {'; '.join(problems)}")
    if not found:
        raise ValueError(
            f"looked in {root.absolute()} and below for videos "
            f"({' '.join(VIDEO_SUFFIXES)} .yuv) and directories of PNG or JPEG "
            f"frames; found {found_in(root)}"
        )
    return found


def _free_set(directory: Path) -> str:
    """Return the name of the set that a directory is, which must not be a standard."""
    name = printable(os.path.basename(os.path.abspath(directory)))
    if name in STANDARD_SETS:
        raise ValueError(
            f"{directory} is called like a standard set: write {name}={directory} if "
            "it is that, or rename it"
        )
    return name
