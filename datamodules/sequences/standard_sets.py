"""The standard test sets: their sequences, sizes, lengths, and what files are called.

The sequences themselves are not free to pass on: users have them as raw 8-bit 4:2:0
files whose names begin with the sequence's name and go on as each site has it
(``Beauty_1920x1080_120fps_420_8bit_YUV.yuv``).

Source: the sets' sites; sizes and frame counts as in the test configuration that
microsoft/DCVC publishes.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple


@dataclass(frozen=True)
class StandardSequence:
    """One sequence of a standard test set.

    Attributes:
        set: Key of the set.
        name: What results call it.
        other_names: What some sites call it instead.
        width: Columns.
        height: Rows.
        fps: Frames per second.
        frames: All there are.
    """

    set: str
    name: str
    other_names: tuple[str, ...]
    width: int
    height: int
    fps: int
    frames: int

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the sequence, its own first."""
        return self.name, *self.other_names

    def is_called(self, stem: str) -> bool:
        """Tell whether a file's name without suffix begins with the sequence's."""
        return any(
            re.match(rf"{name}(?![0-9a-z])", stem, re.IGNORECASE) for name in self.names
        )

    def contradiction(self, stem: str) -> str:
        """Say what a file's name states that the sequence is not; empty if nothing."""
        return contradiction(stem, self.width, self.height)


def _videos(*numbers: int) -> str:
    return " ".join(f"videoSRC{number:02}" for number in numbers)


# Set, width, height, frames per second, frames, names (with other names after "/").
_TABLE = (
    ("uvg", 1920, 1080, 120, 600, "Beauty Bosphorus HoneyBee Jockey YachtRide"),
    ("uvg", 1920, 1080, 120, 600, "ReadySteadyGo/ReadySetGo"),
    ("uvg", 1920, 1080, 120, 300, "ShakeNDry"),
    ("mcl_jcv", 1920, 1080, 30, 150, _videos(1, 2, 3, 4, *range(10, 17), 19)),
    ("mcl_jcv", 1920, 1080, 30, 150, _videos(26, 27, 28, 30)),
    ("mcl_jcv", 1920, 1080, 25, 125, _videos(*range(5, 10), 18, 20)),
    ("mcl_jcv", 1920, 1080, 24, 120, _videos(17, *range(21, 26), 29)),
    ("hevc_b", 1920, 1080, 60, 600, "BQTerrace"),
    ("hevc_b", 1920, 1080, 50, 500, "BasketballDrive Cactus"),
    ("hevc_b", 1920, 1080, 24, 240, "Kimono1/Kimono ParkScene"),
    ("hevc_c", 832, 480, 60, 600, "BQMall"),
    ("hevc_c", 832, 480, 50, 500, "BasketballDrill PartyScene"),
    ("hevc_c", 832, 480, 30, 300, "RaceHorses/RaceHorsesC"),
    ("hevc_d", 416, 240, 60, 600, "BQSquare"),
    ("hevc_d", 416, 240, 50, 500, "BasketballPass BlowingBubbles"),
    ("hevc_d", 416, 240, 30, 300, "RaceHorses"),
    ("hevc_e", 1280, 720, 60, 600, "FourPeople Johnny KristenAndSara"),
)


def _read_table() -> dict[str, tuple[StandardSequence, ...]]:
    sets: dict[str, list[StandardSequence]] = {}
    for key, width, height, fps, frames, entries in _TABLE:
        for names in entries.split():
            name, *others = names.split("/")
            sequence = StandardSequence(
                key, name, tuple(others), width, height, fps, frames
            )
            sets.setdefault(key, []).append(sequence)
    return {
        key: tuple(sorted(sequences, key=lambda s: s.name))
        for key, sequences in sets.items()
    }


STANDARD_SETS = _read_table()
"""The sequences of every standard set, by its key, sorted by name."""


def set_key(name: str) -> str:
    """Return a set's name in the form of the table's keys (``HEVC-B``: ``hevc_b``)."""
    return name.lower().replace("-", "_")


def contradiction(stem: str, width: int, height: int) -> str:
    """Say what a name states that 8-bit 4:2:0 of a size is not; empty if nothing."""
    stated = parse_name(stem)
    if stated.size not in (None, (height, width)):
        return f"its name says {stated.size[1]}x{stated.size[0]}"
    if stated.depth not in (None, 8):
        return f"its name says {stated.depth} bits"
    if stated.chroma not in (None, "420"):
        return f"its name says {stated.chroma} chroma"
    return ""


def find_standard(set_name: str, stem: str) -> StandardSequence | None:
    """Return the sequence of the table that a file of another suite means, if any.

    Args:
        set_name: The set as that suite writes it, such as ``MCL-JCV``.
        stem: The file's name without suffix. One that states another size (a cropped
            version) means no sequence of the table.
    """
    for sequence in STANDARD_SETS.get(set_key(set_name), ()):
        if sequence.is_called(stem) and not sequence.contradiction(stem):
            return sequence
    return None


class StatedFormat(NamedTuple):
    """What a file's name says of its content; ``None`` where it says nothing.

    Attributes:
        size: (height, width).
        fps: Frames per second.
        depth: Bits per sample.
        chroma: Layout of chroma, such as ``420``.
    """

    size: tuple[int, int] | None
    fps: Fraction | None
    depth: int | None
    chroma: str | None = None


def parse_name(stem: str) -> StatedFormat:
    """Read size, rate, depth and chroma off a name like ``name_416x240_50_420_8bit``.

    The rate is a number with ``fps`` or the bare number after the size, unless that
    names a layout of chroma (``420``). FFmpeg's names of both (``yuv420p10le``) are
    understood too.
    """
    number = r"\d+(?:\.\d+)?"
    size = re.search(r"(?<!\d)(\d{2,5})x(\d{2,5})(?!\d)", stem, re.IGNORECASE)
    fps = re.search(rf"(?<![\d.])({number})_?fps", stem, re.IGNORECASE)
    if size and not fps:
        after = rf"[_-](?!4(?:00|20|22|44)(?!\d))({number})(?![0-9a-z])"
        fps = re.compile(after, re.IGNORECASE).match(stem, size.end())
    layout = r"4(?:00|20|22|44)"
    depth = re.search(r"(?<!\d)(\d+)[_-]?bit", stem, re.IGNORECASE) or re.search(
        rf"{layout}p(\d{{1,2}})(?:le)?(?![0-9a-z])", stem, re.IGNORECASE
    )
    # A number like these means chroma only after the size, or after "yuv".
    rest = stem[size.end() :] if size else ""
    chroma = re.search(rf"[_-]({layout})(?:p|(?![0-9a-z]))", rest, re.IGNORECASE)
    chroma = chroma or re.search(rf"yuv({layout})(?!\d)", stem, re.IGNORECASE)
    return StatedFormat(
        (int(size[2]), int(size[1])) if size else None,
        Fraction(fps[1]) if fps and Fraction(fps[1]) > 0 else None,
        int(depth[1]) if depth else None,
        chroma[1] if chroma else None,
    )
