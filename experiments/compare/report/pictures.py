"""Decoded frames for the page: which ones, and as what."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.compare.comparison import Comparison
from experiments.compare.report.strips import comparable_points, points_of_sequence
from experiments.results.result import Result

WEBP_QUALITY = 90

LIMIT = 48_000_000
"""Characters of all pictures together; a page of far more opens slowly."""


def embed_pictures(
    comparison: Comparison, results: Sequence[Result], limit: int = LIMIT
) -> tuple[list[dict[str, Any]], str]:
    """Encode frames as WebP at full size until the page is large enough.

    Frames at the closest comparable rates come before other rates, and of each the
    first frame of every sequence before second ones. All data URIs together have at
    most ``limit`` characters.

    Returns:
        The page's entries, in the order of sequences, codecs and rates, and what to
        say about pictures that are not there.
    """
    found = find_pictures(comparison, results)
    frames: dict[tuple[str, str], dict[str, int]] = {}
    for entry in found:
        known = frames.setdefault((entry["set"], entry["sequence"]), {})
        known.setdefault(entry["frame"], len(known))

    def importance(number: int) -> tuple[bool, int]:
        entry = found[number]
        known = frames[entry["set"], entry["sequence"]]
        return not entry["closest"], known[entry["frame"]]

    shown: set[int] = set()
    lost: list[Path] = []
    for number in sorted(range(len(found)), key=importance):
        path = found[number].pop("path")
        encoded = _encode(path)
        if encoded is None:
            lost.append(path)
            continue
        image, width = encoded
        limit -= len(image)
        if limit < 0:
            break
        found[number] |= {"width": width, "image": image}
        shown.add(number)
    note = _note(len(found), len(found) - len(shown) - len(lost), lost)
    return [found[number] for number in sorted(shown)], note


def find_pictures(
    comparison: Comparison, results: Sequence[Result]
) -> list[dict[str, Any]]:
    """Return every picture of the compared sequences, sources once and first.

    Returns:
        Entries with ``set``, ``sequence``, ``frame`` as the result file writes it, and
        ``path``; ``codec`` (number of the result), ``rate`` and ``bpp``, all ``None``
        for the source; ``closest``: whether it is the source or belongs to the codecs'
        closest comparable rates.
    """
    found = []
    for place in comparison.places():
        points = points_of_sequence(results, *place, lambda point: point.pictures)
        closest = comparable_points(points)
        where = {"set": place[0], "sequence": place[1]}
        source = {"codec": None, "rate": None, "bpp": None, "closest": True}
        sources: dict[str, dict[str, Any]] = {}
        decoded = []
        for number, result in enumerate(results):
            folder = result.path.parent if result.path else Path()
            for own in result.sequences:
                for frame, path in own.pictures.items() if own.key == place else ():
                    entry = {**where, "frame": frame, "path": folder / path, **source}
                    sources.setdefault(frame, entry)
            for point in points.get(result.name, ()):
                coded = {"codec": number, "rate": point.rate, "bpp": point.bpp}
                coded["closest"] = point is closest[result.name]
                decoded += [
                    {**where, "frame": frame, "path": folder / path, **coded}
                    for frame, path in point.pictures.items()
                ]
        found += [*sources.values(), *decoded]
    return found


def _encode(path: Path) -> tuple[str, int] | None:
    """Return a picture as a data URI, and its width; ``None`` if it is unreadable."""
    import cv2

    pixels = cv2.imread(str(path)) if path.is_file() else None
    if pixels is None:
        return None
    _, encoded = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
    text = base64.b64encode(encoded.tobytes()).decode()
    return f"data:image/webp;base64,{text}", pixels.shape[1]


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
