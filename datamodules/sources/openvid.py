"""OpenVid-1M and OpenVidHD: a CSV of captions and a directory of mp4 files.

Source: Nan et al., arXiv 2407.02371; layout ``data/train/*.csv`` and ``video/*.mp4``.
"""

import csv
import logging
from pathlib import Path
from typing import ClassVar

from datamodules.paths import check_list, check_root, found_in
from datamodules.sources.folder import VIDEO_SUFFIXES, FileSource
from datamodules.texts import encoding_of

# Characters; the csv module refuses more than 131,072 unless told otherwise.
LONGEST_FIELD = 2**31 - 1

logger = logging.getLogger(__name__)

HOLDS = "`data/train/*.csv` and `video/*.mp4` (or both flat, or in OpenVid_part0/ ...)"


class OpenVidSource(FileSource):
    """The rows of the CSV files whose video is there: a partial download is fine.

    Args:
        root: Directory of the data set.
        csv_file: CSV whose first column names the video files, absolute or relative
            to ``root``; all in ``data/train/`` or in ``root`` if ``None``.

    Raises:
        ValueError: The root or the CSV is missing, or none of its videos is there.
    """

    # Neighbouring frames of its slow, compressed videos hardly differ.
    default_stride: ClassVar[int] = 3

    def __init__(
        self, root: str | Path | None, csv_file: str | Path | None = None
    ) -> None:
        path = check_root("openvid", root, HOLDS)
        tables = find_tables(path, csv_file)
        listed = dict.fromkeys(name for table in tables for name in read_table(table))
        where = _find_files(path)
        present = [where[name] for name in listed if name in where]
        if not present:
            names = ", ".join(list(listed)[:3]) or "no video at all"
            raise ValueError(
                f"source 'openvid': none of the {len(listed)} videos of "
                f"{', '.join(map(str, tables))} ({names}, ...) is in {path}/video, "
                f"{path} or a folder of those; "
                f"video/ holds {found_in(path / 'video')}; "
                f"the root holds {found_in(path)}"
            )
        self._listed = len(listed)
        if len(present) < len(listed):
            logger.info(
                "openvid: %d of %d listed videos are not in %s",
                *(len(listed) - len(present), len(listed), path),
            )
        super().__init__("openvid", path, sorted(present))

    def describe(self) -> str:
        """Say root, videos, how many were listed, frames and hours in one line."""
        return f"{super().describe()}, {self._listed} listed"


def find_tables(root: Path, csv_file: str | Path | None) -> list[Path]:
    """Return the CSV files to read.

    Raises:
        ValueError: There is none.
    """
    if csv_file is not None:
        return [check_list("openvid", root, csv_file)]
    for folder in (root / "data" / "train", root):
        tables = sorted(folder.glob("*.csv"))
        if tables:
            return tables
    raise ValueError(
        f"source 'openvid': looked for *.csv in {root / 'data' / 'train'} and in "
        f"{root}; found {found_in(root)}. Name one with `list_file`"
    )


def _find_files(root: Path) -> dict[str, str]:
    """Return where files lie, by name: in the root, its ``video/``, or a folder deeper.

    Unpacked archives lie in folders of their own (``OpenVid_part0/``); what lies higher
    counts before them.
    """
    where: dict[str, str] = {}
    deeper: list[Path] = []
    for folder in (root, root / "video"):
        if folder.is_dir():
            entries = sorted(folder.iterdir())
            deeper += [path for path in entries if path.is_dir()]
            where.update({path.name: _below(root, path) for path in entries})
    for folder in deeper:
        for path in sorted(folder.iterdir()):
            where.setdefault(path.name, _below(root, path))
    return where


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def read_table(path: Path) -> list[str]:
    """Return the video file names in a CSV's first column.

    Captions may be of any length, and hold bytes that are not UTF-8.

    Raises:
        ValueError: It is no CSV.
    """
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(
            newline="", encoding=encoding_of(path), errors="surrogateescape"
        ) as file:
            first = [row[0].strip() for row in csv.reader(file) if row]
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
    finally:
        csv.field_size_limit(before)
    # Its header has no such suffix.
    return [name for name in first if name.lower().endswith(VIDEO_SUFFIXES)]
