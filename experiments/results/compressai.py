"""CompressAI's result files, read as curves.

They are ``{name, description, results: {metric: [...]}}``; the oldest have the lists
alone, under other names.

Source: InterDigitalInc/CompressAI, ``results/video`` and ``compressai.utils.video``.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

from datamodules.sequences.standard_sets import (
    STANDARD_SETS,
    find_standard,
    parse_name,
    set_key,
)
from experiments.results.result import Point, Result, SequenceResult
from experiments.results.set_means import MEAN
from experiments.results.stated import Statements
from experiments.results.typed_json import ResultError

_METRICS = {
    "psnr-y": "psnr_y",
    "psnr-u": "psnr_u",
    "psnr-v": "psnr_v",
    "psnr-rgb": "psnr_rgb",
    "ms-ssim-rgb": "ms_ssim_rgb",
}

_OLD_NAMES = {f"{plane}_psnr": f"psnr-{plane}" for plane in ("y", "u", "v", "rgb")}


def is_compressai(data: Any) -> bool:
    """Return whether parsed JSON looks like a result file of CompressAI's."""
    return isinstance(data, dict) and (
        isinstance(data.get("results"), dict) or _is_old(data)
    )


def _is_old(data: dict[str, Any]) -> bool:
    return isinstance(data.get("bpp"), list) and bool(data.keys() & _OLD_NAMES.keys())


def from_compressai(data: dict[str, Any], path: Path, statements: Statements) -> Result:
    """Turn CompressAI's JSON into a result with one curve.

    A file over several videos or images is their unweighted mean and becomes the
    sequence ``mean`` of the set ``compressai``, or of the one that the user states; one
    with a ``source`` is that video's. PSNR YUV is computed from the planes with the
    weights 6:1:1; CompressAI's own ``psnr-yuv`` has 4:1:1 and is left out.

    Raises:
        ResultError: It has no bits per pixel and no way to get them, or no metric.
    """
    name = " ".join(str(data.get("name") or "").split()) or path.stem
    if _is_old(data):
        old = {_OLD_NAMES.get(key, key): values for key, values in data.items()}
        data = {"results": old}
    try:
        columns = {
            name: [float(v) for v in (values if isinstance(values, list) else [values])]
            for name, values in data["results"].items()
            if name in (*_METRICS, "bpp", "bitrate")
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise ResultError(
            f"{path} is a damaged file of CompressAI's: {error}"
        ) from error
    known = [name for name in _METRICS if name in columns]
    if not known:
        found = ", ".join(data["results"]) or "nothing"
        raise ResultError(
            f"{path} has none of {', '.join(_METRICS)} (its results: {found})"
        )
    if len({len(values) for values in columns.values()}) > 1:
        raise ResultError(f"{path} has lists of different lengths")
    given = statements.content(path, name)
    sequence, used = _sequence(data.get("source"), given)
    for index, bpp in enumerate(_bits_per_pixel(columns, sequence, path)):
        metrics = {_METRICS[name]: columns[name][index] for name in known}
        if {"psnr_y", "psnr_u", "psnr_v"} <= metrics.keys():
            y, u, v = (metrics[f"psnr_{plane}"] for plane in "yuv")
            metrics["psnr_yuv"] = (6 * y + u + v) / 8
        sequence.points.append(Point(rate=float(index), bpp=bpp, metrics=metrics))
    description = str(data.get("description") or "")
    result = Result.imported(
        path,
        name,
        {
            "name": name,
            "description": description,
            "note": "CompressAI's result file; psnr-yuv (4:1:1) is left out",
        },
        [sequence],
        _definition,
        rate="estimate" if "entropy-estimation" in description else None,
    )
    return statements.complete(result, used)


def _definition(metric: str) -> str:
    if metric.startswith("ms_ssim"):
        return "CompressAI's ms-ssim-rgb (pytorch_msssim), 8-bit output"
    return (
        f"CompressAI's {metric}, 8-bit output, mean over frames or of the frames' "
        "error (not stated)"
    )


def _sequence(source: Any, given: dict[str, Any]) -> tuple[SequenceResult, list[str]]:
    """Return a sequence without points, and what of ``given`` is in it."""
    key = set_key(given.get("set", "compressai"))
    entries = STANDARD_SETS.get(key, ())
    name, size, fps = MEAN, given.get("size"), given.get("fps")
    if isinstance(source, str):
        stated = parse_name(source)
        standard = find_standard(key, source)
        name = standard.name if standard else source
        entries = (standard,) if standard else ()
        known = {"size": stated.size, "fps": stated.fps}
        given = {k: v for k, v in given.items() if not known.get(k)}
        size, fps = stated.size or size, stated.fps or fps
    shapes = {(entry.height, entry.width) for entry in entries}
    rates = {entry.fps for entry in entries}
    # A mean bitrate says no bits per pixel unless all of the set have one rate.
    size = size or (shapes.pop() if len(shapes) == 1 else (0, 0))
    fps = fps or Fraction(rates.pop() if len(rates) == 1 else 0)
    frames = given.get("frames", 0)
    return SequenceResult(key, name, size[1], size[0], fps, frames), list(given)


def _bits_per_pixel(
    columns: dict[str, list[float]], sequence: SequenceResult, path: Path
) -> list[float]:
    if "bpp" in columns:
        return columns["bpp"]
    pixels_per_second = sequence.width * sequence.height * float(sequence.fps)
    if "bitrate" not in columns or not pixels_per_second:
        raise ResultError(
            f"{path} has no bpp, and a bitrate in kbit/s is none without the size and "
            f"frame rate: give --state {path.stem}:set=uvg, or another standard set, "
            f"or {path.stem}:size=WxH and {path.stem}:fps=F"
        )
    return [1000 * kbps / pixels_per_second for kbps in columns["bitrate"]]
