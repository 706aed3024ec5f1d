"""Still pictures as sequences: each is one of a single frame, of its own size."""

from collections import Counter
from pathlib import Path

from datamodules.paths import IMAGE_SUFFIXES, find_images, found_in, printable
from datamodules.sequences.content import examine
from datamodules.sequences.files import VideoSequence


def find_stills(set_name: str, amount: str, folder: Path) -> list[VideoSequence]:
    """Return a sequence of one frame of each picture that a folder itself holds.

    Args:
        set_name: Of the set that they are.
        amount: Number of pictures as text, the first in natural order; empty for all.
        folder: Of PNG and JPEG pictures, of any sizes.

    Raises:
        ValueError: The number is none from 1, there are not so many pictures, or some
            cannot be read; all that is wrong is said at once.
    """
    wanted = int(amount) if amount.isdecimal() else 0
    if amount and wanted < 1:
        raise ValueError(f"{amount!r} pictures: give a number from 1, or none for all")
    if not folder.is_dir():
        raise ValueError(f"stills: there is no directory {folder.absolute()}")
    pictures = find_images(folder)[: wanted or None]
    if len(pictures) < max(1, wanted):
        needed = f"{wanted} pictures" if wanted else "pictures"
        raise ValueError(
            f"stills: looked in {folder.absolute()}, and not below, for {needed} "
            f"({' '.join(IMAGE_SUFFIXES)}); found {found_in(folder)}"
        )
    stems = Counter(picture.stem for picture in pictures)
    found: list[VideoSequence] = []
    problems: list[str] = []
    for picture in pictures:
        # Two formats of one picture are two sequences.
        clash = stems[picture.stem] > 1
        name = printable(picture.name if clash else picture.stem)
        try:
            found.append(VideoSequence(set_name, name, picture, *examine(picture)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError(f"stills in {folder}: {'; '.join(problems)}")
    return found
