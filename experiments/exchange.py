"""Other suites' result files: ``python -m experiments.exchange RESULT OUT``.

``compare`` reads them through :func:`load_any`; the command writes DCVC's format.
"""

import argparse
import json
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from experiments.cli import run_command
from experiments.results.result import (
    SCHEMA,
    Point,
    Protocol,
    Result,
    ResultError,
    SequenceResult,
)
from experiments.results.typed_json import read_json

EPILOG = """\
examples:
  python -m experiments.exchange results/ui2c.json ui2c.dcvc.json

OUT can be given to compare_bd_rate.py of microsoft/DCVC, beside its anchors. RESULT is
a result of evaluate or anchor, or a file of DCVC's or CompressAI's.
"""

_COMPRESSAI = {
    "psnr-y": "psnr_y",
    "psnr-u": "psnr_u",
    "psnr-v": "psnr_v",
    "psnr-rgb": "psnr_rgb",
    "ms-ssim-rgb": "ms_ssim_rgb",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(partial(export, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.exchange",
        description="Write a result file in the format of DCVC's tools.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("result", metavar="RESULT", type=Path, help="file to read")
    parser.add_argument("output", metavar="OUT", type=Path, help="file to write")
    return parser


def export(options: argparse.Namespace) -> None:
    """Write ``options.result`` as DCVC's JSON to ``options.output``.

    Raises:
        ValueError: The file cannot be read, or lacks what DCVC's format needs.
    """
    from datamodules.whole_files import whole_or_nothing
    from experiments.cli import check_paths
    from experiments.results.dcvc import to_dcvc

    check_paths(options.result, options.output)
    data = to_dcvc(load_any(options.result).with_scales(None))
    count = sum(
        len(rates) for sequences in data.values() for rates in sequences.values()
    )
    if not count:
        raise ValueError(
            f"{options.result} has no point to export (of codecs with scales, only "
            "points with all of them are)"
        )
    with whole_or_nothing(options.output) as temporary:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    print(
        f"{options.output}: {count} points in DCVC's format, PSNR of unrounded output"
    )


def load_any(path: Path) -> Result:
    """Read a result file: this suite's, DCVC's or CompressAI's.

    Args:
        path: JSON; its content tells the format.

    Raises:
        ResultError: It is none of them, or damaged.
    """
    from experiments.results.dcvc import from_dcvc, is_dcvc

    data = read_json(path)
    if isinstance(data, dict) and data.get("schema") == SCHEMA:
        return Result.from_json(data, path)
    if isinstance(data, dict) and isinstance(data.get("results"), dict):
        return from_compressai(data, path)
    if is_dcvc(data):
        return from_dcvc(data, path)
    raise ResultError(
        f"{path} is no result file: not of this suite (schema {SCHEMA}), not of DCVC "
        "({set: {sequence: {rate: {ave_all_frame_bpp: ...}}}}), not of CompressAI "
        "({name, results: {bpp: [...], psnr-rgb: [...]}})"
    )


def from_compressai(data: dict[str, Any], path: Path) -> Result:
    """Turn CompressAI's JSON into a result with one curve.

    A file over several videos or images is their unweighted mean and becomes the
    sequence ``compressai/mean``; one with a ``source`` is that video's. PSNR YUV is
    computed from the planes with the weights 6:1:1; CompressAI's own ``psnr-yuv`` has
    4:1:1 and is left out.

    Args:
        data: Parsed content.
        path: Where it was, for messages.

    Raises:
        ResultError: It has no bits per pixel and no way to get them, or no metric.
    """
    try:
        columns = {
            name: [float(v) for v in (values if isinstance(values, list) else [values])]
            for name, values in data["results"].items()
            if name in (*_COMPRESSAI, "bpp", "bitrate")
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise ResultError(
            f"{path} is a damaged file of CompressAI's: {error}"
        ) from error
    known = [name for name in _COMPRESSAI if name in columns]
    if not known:
        found = ", ".join(data["results"]) or "nothing"
        raise ResultError(
            f"{path} has none of {', '.join(_COMPRESSAI)} (its results: {found})"
        )
    if len({len(values) for values in columns.values()}) > 1:
        raise ResultError(f"{path} has lists of different lengths")
    sequence = _compressai_sequence(data.get("source"))
    bpps = _bits_per_pixel(columns, sequence, path)
    for index, bpp in enumerate(bpps):
        metrics = {_COMPRESSAI[name]: columns[name][index] for name in known}
        planes = [metrics.get(f"psnr_{plane}") for plane in "yuv"]
        if None not in planes:
            y, u, v = (value for value in planes if value is not None)
            metrics["psnr_yuv"] = (6 * y + u + v) / 8
        sequence.points.append(Point(rate=float(index), bpp=bpp, metrics=metrics))
    sequence.points.sort(key=lambda point: point.bpp)
    name = str(data.get("name") or path.stem)
    description = str(data.get("description") or "")
    codec = {"name": name, "kind": "imported", "description": description}
    codec["note"] = "CompressAI's result file; psnr-yuv (4:1:1) is left out"
    estimated = "estimate" if "entropy-estimation" in description else None
    result = Result(
        name,
        codec,
        Protocol(
            None,
            None,
            None,
            estimated,
            matrix=None,
            chroma_up=None,
            chroma_down=None,
            crop=None,
        ),
        sequences=[sequence],
        path=path.absolute(),
    )
    result.protocol.definitions.update(
        {metric: _definition(metric) for metric in result.metric_names()}
    )
    return result.checked()


def _definition(metric: str) -> str:
    if metric.startswith("ms_ssim"):
        return "CompressAI's ms-ssim-rgb (pytorch_msssim), 8-bit output"
    return (
        f"CompressAI's {metric}, 8-bit output, mean over frames or of the frames' "
        "error (not stated)"
    )


def _compressai_sequence(source: Any) -> SequenceResult:
    from datamodules.sequences.standard_sets import parse_name

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


if __name__ == "__main__":
    raise SystemExit(main())
