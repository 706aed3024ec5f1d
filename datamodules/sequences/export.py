"""Sequences as files that other suites' programs read, and that this one reads back.

A folder of them holds ``png/SET/NAME/im00001.png`` (RGB) and ``yuv/SET/NAME.yuv``
(8-bit 4:2:0 of BT.709 full range). A configuration of DCVC's test program lies beside
each of the two: ``dcvc_png.json`` and ``dcvc_yuv.json``. Names end in size and frame
rate, as raw files have to.

Source: the layout of microsoft/DCVC's ``dataset_config_example_*.json``.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from datamodules.sequences.dcvc_list import find_listed
from datamodules.sequences.files import VideoSequence, read_codes
from datamodules.video_reader import VideoError
from datamodules.whole_files import whole_or_nothing
from datamodules.writing import create_video

KINDS = {"png": "", "yuv420": ".yuv"}
"""DCVC's kinds of sources, and the suffixes of their files."""

Track = Callable[[Iterable[VideoSequence]], Iterable[VideoSequence]]


def export_sequences(
    sequences: Sequence[VideoSequence], folder: Path, track: Track = iter
) -> list[Path]:
    """Write sequences into a folder that appears when all of them are there.

    Args:
        sequences: What to write, each frame of it.
        folder: New or empty.
        track: Passes sequences through as they are written.

    Returns:
        The configurations.

    Raises:
        ValueError: A sequence cannot be read, or would be taken for another one by its
            name when it is read back.
        OSError: The folder is not empty, or cannot be written.
    """
    with whole_or_nothing(folder, directory=True) as temporary:
        for sequence in track(sequences):
            _write(sequence, temporary)
        for kind in KINDS:
            path = _configuration(kind, temporary)
            data = _describe(kind, sequences, folder.absolute())
            path.write_text(json.dumps(data, indent=2) + "\n")
            _check(find_listed(path, temporary), sequences)
    return [_configuration(kind, folder) for kind in KINDS]


def _configuration(kind: str, folder: Path) -> Path:
    return folder / f"dcvc_{kind.removesuffix('420')}.json"


def _name(sequence: VideoSequence) -> str:
    size = f"{sequence.width}x{sequence.height}"
    return f"{sequence.name}_{size}_{float(sequence.fps):g}fps"


def _base(kind: str, sequence: VideoSequence) -> str:
    return f"{kind.removesuffix('420')}/{sequence.set}"


def _write(sequence: VideoSequence, folder: Path) -> None:
    size = (sequence.width, sequence.height, sequence.fps)
    with ExitStack() as videos:
        appends = []
        for kind, suffix in KINDS.items():
            path = folder / _base(kind, sequence) / f"{_name(sequence)}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            appends.append(videos.enter_context(create_video(path, *size)))
        for codes in read_codes(sequence, "rgb"):
            frame = torch.stack([torch.from_numpy(plane) for plane in codes])
            for append in appends:
                append(frame.float() / 255)


def _describe(
    kind: str, sequences: Sequence[VideoSequence], root: Path
) -> dict[str, Any]:
    classes: dict[str, Any] = {}
    for sequence in sequences:
        own = classes.setdefault(
            sequence.set,
            {
                "test": 1,
                "base_path": _base(kind, sequence),
                "src_type": kind,
                "sequences": {},
            },
        )
        own["sequences"][f"{_name(sequence)}{KINDS[kind]}"] = {
            "width": sequence.width,
            "height": sequence.height,
            "frames": sequence.frames,
            # One start, by the names that its versions have for it.
            "gop": sequence.frames,
            "intra_period": sequence.frames,
        }
    return {"root_path": str(root), "test_classes": classes}


def _check(found: Sequence[VideoSequence], sequences: Sequence[VideoSequence]) -> None:
    """Refuse files whose names say something else to whoever reads them back."""
    read = {(s.set, s.name): s for s in found}
    for sequence in sequences:
        again = read.get((sequence.set, _name(sequence)))
        if again is None or again.fps != sequence.fps:
            raise VideoError(
                f"{sequence.name!r} of set {sequence.set!r} would be read back as "
                "another sequence, or at another frame rate: rename its picture, so "
                "that the name states no size and no rate"
            )
