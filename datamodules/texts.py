"""Text files that people wrote, on whatever system."""

import codecs
from pathlib import Path

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before UTF-16, whose mark theirs begin with.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def encoding_of(path: Path) -> str:
    """Return a text's encoding: as its byte-order mark says, which goes, or UTF-8."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((_MARKS[mark] for mark in _MARKS if head.startswith(mark)), "utf-8")


def read_text(path: Path) -> str:
    """Return a whole text; bytes of another encoding stay as in names of files.

    Raises:
        OSError: It cannot be read.
        UnicodeError: It is cut.
    """
    return path.read_text(encoding_of(path), "surrogateescape")
