"""CompressAI's result files, read as curves."""

from fractions import Fraction
from pathlib import Path
from typing import Any

from datamodules.sequences.standard_sets import parse_name
from experiments.results.result import Point, Result, SequenceResult
from experiments.results.typed_json import ResultError

_METRICS = {
    "psnr-y": "psnr_y",
    "psnr-u": "psnr_u",
    "psnr-v": "psnr_v",
    "psnr-rgb": "psnr_rgb",
    "ms-ssim-rgb": "ms_ssim_rgb",
}


def from_compressai(data: dict[str, Any], path: Path) -> Result:
    """Turn CompressAI's JSON into a result with one curve.

    A file over several videos or images is their unweighted mean and becomes the
    sequence ``compressai/mean``; one with a ``source`` is that video's. PSNR YUV is
    computed from the planes with the weights 6:1:1; CompressAI's own ``psnr-yuv`` has
    4:1:1 and is left out.

    Raises:
        ResultError: It has no bits per pixel and no way to get them, or no metric.
    """
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
    sequence = _sequence(data.get("source"))
    for index, bpp in enumerate(_bits_per_pixel(columns, sequence, path)):
        metrics = {_METRICS[name]: columns[name][index] for name in known}
        if {"psnr_y", "psnr_u", "psnr_v"} <= metrics.keys():
            y, u, v = (metrics[f"psnr_{plane}"] for plane in "yuv")
            metrics["psnr_yuv"] = (6 * y + u + v) / 8
        sequence.points.append(Point(rate=float(index), bpp=bpp, metrics=metrics))
    name = str(data.get("name") or path.stem)
    description = str(data.get("description") or "")
    return Result.imported(
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


def _definition(metric: str) -> str:
    if metric.startswith("ms_ssim"):
        return "CompressAI's ms-ssim-rgb (pytorch_msssim), 8-bit output"
    return (
        f"CompressAI's {metric}, 8-bit output, mean over frames or of the frames' "
        "error (not stated)"
    )


def _sequence(source: Any) -> SequenceResult:
    if not isinstance(source, str):
        return SequenceResult("compressai", "mean", 0, 0, Fraction(0), 0)
    stated = parse_name(source)
    height, width = stated.size or (0, 0)
    fps = stated.fps or Fraction(0)
    return SequenceResult("compressai", source, width, height, fps, 0)


def _bits_per_pixel(
    columns: dict[str, list[float]], sequence: SequenceResult, path: Path
) -> list[float]:
    if "bpp" in columns:
        return columns["bpp"]
    pixels_per_second = sequence.width * sequence.height * float(sequence.fps)
    if "bitrate" not in columns or not pixels_per_second:
        raise ResultError(
            f"{path} has no bpp, and a bitrate in kbit/s is none without the size and "
            "frame rate, which only a file of one video has, in its source's name"
        )
    return [1000 * kbps / pixels_per_second for kbps in columns["bitrate"]]
