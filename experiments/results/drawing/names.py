"""Names of the report's files, made from names that may hold anything."""

import re
from pathlib import Path


class FileNames:
    """Gives each thing a path of its own below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: dict[str, tuple[str, ...]] = {}

    def stem(self, *parts: str) -> Path:
        """Return a path without suffix; the same one for the same parts.

        Letters, digits, ``.``, ``_`` and ``-`` stay, everything else becomes ``_``; a
        number is added where two names would become one.
        """
        base = "/".join(safe_name(part) for part in parts)
        # File systems that ignore case exist.
        name, number = base, 1
        while self._taken.setdefault(name.lower(), parts) != parts:
            number += 1
            name = f"{base}_{number}"
        return self.folder / name

    def link(self, path: Path) -> str:
        """Return a path as a link from a file in the folder."""
        return path.relative_to(self.folder).as_posix()


def safe_name(part: str) -> str:
    """Return a name with nothing in it that means something in a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", part).lstrip(".")[:100] or "_"
