"""Decoded frames for the page: which ones, and as what."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.compare.comparison import Comparison
from experiments.compare.report.strips import comparable_points, points_of_sequence
from experiments.results.result import Point, Result, SequenceResult

WEBP_QUALITY = 90

LIMIT = 48_000_000
"""Characters of all pictures together; a page of far more opens slowly."""


@dataclass(frozen=True)
class Picture:
    """A frame of the source or as a codec decoded it.

    Attributes:
        set: Test set.
        sequence: Name.
        frame: Its number, as the result file writes it.
        path: PNG.
        codec: Number of the result, ``None`` for the source.
        point: Where the codec ran; ``None`` for the source.
        closest: Whether it is the source or belongs to the codecs' closest comparable
            rates.
    """

    set: str
    sequence: str
    frame: str
    path: Path
    codec: int | None = None
    point: Point | None = None
    closest: bool = True


def embed_pictures(
    comparison: Comparison, results: Sequence[Result], limit: int = LIMIT
) -> tuple[list[dict[str, Any]], str]:
    """Encode frames as WebP at full size until the page is large enough.

    Frames at the closest comparable rates come before other rates, and of each the
    first frame of every sequence before second ones.

    Args:
        comparison: Says which sequences are shown.
        results: All results, in the order of the codecs' numbers.
        limit: Characters of all data URIs together.

    Returns:
        The page's entries, in the order of sequences, codecs and rates, and what to
        say about pictures that are not there.
    """
    found = find_pictures(comparison, results)
    frames: dict[tuple[str, str], list[str]] = {}
    for picture in found:
        known = frames.setdefault((picture.set, picture.sequence), [])
        if picture.frame not in known:
            known.append(picture.frame)

    def importance(number: int) -> tuple[bool, int]:
        picture = found[number]
        known = frames[picture.set, picture.sequence]
        return not picture.closest, known.index(picture.frame)

    entries: dict[int, dict[str, Any]] = {}
    lost: list[Path] = []
    for number in sorted(range(len(found)), key=importance):
        encoded = _encode(found[number].path)
        if encoded is None:
            lost.append(found[number].path)
            continue
        image, width = encoded
        limit -= len(image)
        if limit < 0:
            break
        entries[number] = _entry(found[number], image, width)
    note = _note(len(found), len(found) - len(entries) - len(lost), lost)
    return [entries[number] for number in sorted(entries)], note


def find_pictures(comparison: Comparison, results: Sequence[Result]) -> list[Picture]:
    """Return every picture of the compared sequences, sources once and first."""
    pictures: list[Picture] = []
    for name, sequences in comparison.sets.items():
        for sequence in sequences:
            own = [
                (number, result, entry)
                for number, result in enumerate(results)
                for entry in result.sequences
                if entry.key == (name, sequence)
            ]
            sources: dict[str, Path] = {}
            for _, result, entry in own:
                for frame, path in entry.pictures.items():
                    sources.setdefault(frame, _locate(result, path))
            pictures += [
                Picture(name, sequence, frame, path) for frame, path in sources.items()
            ]
            points = points_of_sequence(
                results, name, sequence, lambda point: bool(point.pictures)
            )
            closest = comparable_points(points) if points else {}
            for number, result, entry in own:
                pictures += _decoded(number, result, entry, closest.get(result.name))
    return pictures


def _decoded(
    number: int, result: Result, entry: SequenceResult, closest: Point | None
) -> Iterator[Picture]:
    for point in entry.points:
        for frame, path in point.pictures.items():
            yield Picture(
                entry.set,
                entry.name,
                frame,
                _locate(result, path),
                number,
                point,
                point is closest,
            )


def _locate(result: Result, path: str) -> Path:
    """Return where a picture lies that a result file names."""
    return (result.path.parent if result.path else Path()) / path


def _encode(path: Path) -> tuple[str, int] | None:
    """Return a picture as a data URI, and its width; ``None`` if it is unreadable."""
    import cv2

    pixels = cv2.imread(str(path)) if path.is_file() else None
    if pixels is None:
        return None
    _, encoded = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
    text = base64.b64encode(encoded.tobytes()).decode()
    return f"data:image/webp;base64,{text}", pixels.shape[1]


def _entry(picture: Picture, image: str, width: int) -> dict[str, Any]:
    point = picture.point
    return {
        "set": picture.set,
        "sequence": picture.sequence,
        "frame": picture.frame,
        "codec": picture.codec,
        "rate": point.rate if point else None,
        "bpp": point.bpp if point else None,
        "closest": picture.closest,
        "width": width,
        "image": image,
    }


def _note(wanted: int, left_out: int, lost: Sequence[Path]) -> str:
    if not wanted:
        return "The results name no pictures."
    sentences = [
        f"Drag over the picture or move the slider. Full size, WebP quality "
        f"{WEBP_QUALITY}: to look at, not to measure."
    ]
    if left_out:
        sentences.append(
            f"{left_out} of {wanted} pictures were left out to keep the page small: "
            "other rates first, then later frames."
        )
    if lost:
        sentences.append(
            f"{len(lost)} pictures could not be read, the first of them {lost[0].name}."
        )
    return " ".join(sentences)
