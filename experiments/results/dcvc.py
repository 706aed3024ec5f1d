"""DCVC's result files: read as curves, and written so that its tools read ours.

They are ``{set: {sequence: {rate: entry}}}``; an entry has the mean bpp, PSNR and
MS-SSIM of its I frames, its P frames and all of them, and with ``--verbose_json``
lists over the frames.

Source: microsoft/DCVC, ``test_video.py``, ``compare_bd_rate.py`` and ``anchors/``.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import compress
from pathlib import Path
from statistics import fmean
from typing import Any

from callbacks.metrics.table import METRICS
from datamodules.sequences.standard_sets import (
    STANDARD_SETS,
    find_standard,
    parse_name,
    set_key,
)
from experiments.results.result import Point, Result, ResultError, SequenceResult

_METRICS: dict[str, dict[str, str | None]] = {
    "yuv420": {
        "psnr": "psnr_yuv_unrounded",
        "msssim": None,
        "psnr_y": "psnr_y_unrounded",
        "psnr_u": "psnr_u_unrounded",
        "psnr_v": "psnr_v_unrounded",
        "msssim_y": "ms_ssim_y",
        "msssim_u": None,
        "msssim_v": None,
    },
    "rgb": {"psnr": "psnr_rgb_unrounded", "msssim": "ms_ssim_rgb"},
}
"""DCVC's names and ours, by colour; None where this suite computes none."""

_MS_SSIM = "MS-SSIM by DCVC's own numpy code, unrounded output"

_ANCHOR_PSNR = (
    "PSNR per frame of an anchor file of DCVC's, bit depth of the decoder's output "
    "not stated (10 bits inside)"
)

_NOTE = "DCVC's result file: PSNR of unrounded output, protocol not in the file"

_ANCHOR_NOTE = (
    "DCVC's anchor file: marks every frame as an I frame, so that only means over all "
    "frames are true; the suggested command codes with 10 bits inside and does not "
    "say at which depth the PSNR was measured. DCVC compares it with the unrounded "
    "PSNR of its codecs"
)


def is_dcvc(data: Any) -> bool:
    """Return whether parsed JSON looks like a result file of DCVC's."""
    return any(True for _ in _entries(data))


def _entries(data: Any) -> Any:
    """Give set, sequence, rate and entry of everything that is an entry."""
    if not isinstance(data, dict):
        return
    for set_name, sequences in data.items():
        for name, rates in sequences.items() if isinstance(sequences, dict) else ():
            for rate, entry in rates.items() if isinstance(rates, dict) else ():
                if isinstance(entry, dict) and "ave_all_frame_bpp" in entry:
                    yield set_name, name, rate, entry


def from_dcvc(data: Any, path: Path) -> Result:
    """Turn DCVC's JSON into a result; what the file does not state stays unknown.

    Sequences of the standard sets get this suite's names. PSNR becomes the unrounded
    metrics, which is what DCVC computes; a MS-SSIM of 0 was not computed. The curve is
    called after the file.

    Raises:
        ResultError: Keys are missing, or its values contradict each other.
    """
    sequences: dict[tuple[str, str], SequenceResult] = {}
    colours, periods, is_anchor = set(), set(), False
    for set_name, name, rate, entry in _entries(data):
        where = f"{path}: {set_name}/{name}/{rate}"
        try:
            colour = "yuv420" if "ave_all_frame_psnr_y" in entry else "rgb"
            sequence = _sequence(set_name, name, entry)
            point = _point(entry, rate, colour, sequence)
            periods.add(_intra_period(entry))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ResultError(f"{where} is no entry of DCVC's: {error!r}") from error
        colours.add(colour)
        known = sequences.setdefault(sequence.key, sequence)
        if replace(known, points=[]) != sequence:
            raise ResultError(f"{where} has other frames than the rates before it")
        known.points.append(point)
        is_anchor |= "qp" in entry and "rate_idx" not in entry
    if len(colours) != 1:
        raise ResultError(f"{path} mixes results of YUV 4:2:0 and of RGB")
    return Result.imported(
        path,
        path.stem,
        {"name": _codec_name(path.stem), "note": _ANCHOR_NOTE if is_anchor else _NOTE},
        list(sequences.values()),
        lambda metric: _definition(metric, is_anchor),
        colour=colours.pop(),
        intra_period=periods.pop() if len(periods) == 1 else None,
    )


def _codec_name(stem: str) -> str:
    vtm = re.match(r"vtm[_-]?(\d+\.\d+)", stem, re.IGNORECASE)
    return f"VTM-{vtm[1]}" if vtm else stem


def _definition(metric: str, is_anchor: bool) -> str:
    if metric.startswith("ms_ssim"):
        return _MS_SSIM
    return _ANCHOR_PSNR if is_anchor else METRICS[metric].definition


def _sequence(set_name: str, name: str, entry: Mapping[str, Any]) -> SequenceResult:
    stem = re.sub(r"\.(yuv|y4m)$", "", name, flags=re.IGNORECASE)
    standard = find_standard(set_name, stem)
    stated = parse_name(stem)
    height, width = stated.size or (0, 0)
    fps = stated.fps or Fraction(0)
    if standard:
        height, width = standard.height, standard.width
        stem, fps = standard.name, Fraction(standard.fps)
    pixels = int(entry["frame_pixel_num"])
    if pixels < 1:
        raise ValueError(f"its frame_pixel_num is {pixels}, it must be at least 1")
    if width * height != pixels:
        # Lines are what people crop; any other size is not known from its area.
        whole = width and pixels % width == 0
        height, width = (pixels // width, width) if whole else (0, 0)
    frames = int(entry["i_frame_num"]) + int(entry["p_frame_num"])
    return SequenceResult(set_key(set_name), stem, width, height, fps, frames)


def _point(
    entry: Mapping[str, Any], key: str, colour: str, sequence: SequenceResult
) -> Point:
    bpp = float(entry["ave_all_frame_bpp"])
    pixels = int(entry["frame_pixel_num"])
    metrics, per_frame = {}, {}
    for theirs, ours in _METRICS[colour].items():
        value = entry.get(f"ave_all_frame_{theirs}")
        if theirs.startswith("psnr") and value is None:
            raise ValueError(f"it has no ave_all_frame_{theirs}")
        if ours and value:
            metrics[ours] = float(value)
            if f"frame_{theirs}" in entry:
                per_frame[ours] = [float(v) for v in entry[f"frame_{theirs}"]]
    if "frame_bpp" in entry:
        per_frame["bits"] = [float(v) * pixels for v in entry["frame_bpp"]]
    if colour == "yuv420":
        _check_weights(entry)
    rate = entry.get("qp", entry.get("qp_i"))
    seconds = {
        name: float(entry[f"avg_frame_{name[:2]}coding_time"])
        for name in ("encode", "decode")
        if entry.get(f"avg_frame_{name[:2]}coding_time") is not None
    }
    return Point(
        rate=float(key if rate is None else rate),
        bpp=bpp,
        kbps=bpp * pixels * float(sequence.fps) / 1000 if sequence.fps else None,
        metrics=metrics,
        per_frame=per_frame,
        seconds=seconds,
    )


def _check_weights(entry: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if the mean PSNR is not weighted 6:1:1."""
    mean, y, u, v = (
        float(entry[f"ave_all_frame_psnr{plane}"]) for plane in ("", "_y", "_u", "_v")
    )
    if abs((6 * y + u + v) / 8 - mean) > 1e-3:
        raise ValueError(f"its PSNR {mean:g} is not (6 Y + U + V) / 8")


def _intra_period(entry: Mapping[str, Any]) -> int | None:
    """Return the intra period if the kinds of the frames tell it."""
    if entry["i_frame_num"] == 1 and entry["p_frame_num"] > 0:
        return -1
    starts = [i for i, kind in enumerate(entry.get("frame_type", ())) if kind == 0]
    if len(starts) < 2 or not entry["p_frame_num"]:
        return None
    period = starts[1]
    frames = len(entry["frame_type"])
    return period if starts == list(range(0, frames, period)) else None


def to_dcvc(result: Result) -> dict[str, Any]:
    """Turn a result into DCVC's JSON: its keys and names, its unrounded PSNR.

    Sequences of the standard sets are called what DCVC's configurations and anchors
    call them, so that its tools match them.

    Bits that belong to no frame, such as a stream's header, are the first frame's, as
    in DCVC's own files. Without lists over frames, or without an intra period, every
    frame is an I frame, as in DCVC's own anchor file: then only means over all frames
    are true.

    Raises:
        ValueError: The result lacks the colour, a size or an unrounded PSNR.
    """
    names = _METRICS.get(result.protocol.colour or "")
    if names is None:
        raise ValueError(
            f"{result.name} does not state its colour, which DCVC's keys depend on"
        )
    data: dict[str, Any] = {}
    for sequence in result.sequences:
        if not (sequence.width and sequence.height and sequence.frames):
            raise ValueError(
                f"{result.name} does not state size and frames of {sequence.set}/"
                f"{sequence.name}, which DCVC's files hold"
            )
        set_name, name = _their_names(sequence, result.protocol.colour == "yuv420")
        rates = data.setdefault(set_name, {}).setdefault(name, {})
        for index, point in enumerate(sequence.points):
            missing = [
                ours
                for theirs, ours in names.items()
                if theirs.startswith("psnr") and ours not in point.metrics
            ]
            if missing:
                raise ValueError(
                    f"{result.name}, {sequence.set}/{sequence.name} at rate "
                    f"{point.rate:g} lacks {', '.join(map(str, missing))}, which is "
                    "what DCVC calls PSNR: evaluate it again"
                )
            entry = _entry(sequence, point, names, result.protocol.intra_period)
            entry |= {
                "ds_name": set_name,
                "seq": name,
                "rate_idx": index,
                "qp_i": _whole(point.rate),
                "qp_p": _whole(point.rate),
            }
            rates[f"{index:03d}"] = entry
    return data


def _their_names(sequence: SequenceResult, is_yuv: bool) -> tuple[str, str]:
    members = STANDARD_SETS.get(sequence.set, ())
    size = (sequence.width, sequence.height)
    if not any((m.name, m.width, m.height) == (sequence.name, *size) for m in members):
        return sequence.set, sequence.name
    name = f"{sequence.name}_{size[0]}x{size[1]}_{sequence.fps}"
    if sequence.set == "uvg":
        name += "fps_420_8bit_YUV"
    set_name = sequence.set.upper().replace("MCL_JCV", "MCL-JCV")
    return set_name, f"{name}.yuv" if is_yuv else name


def _whole(rate: float) -> int | float:
    return int(rate) if rate.is_integer() else rate


def _entry(
    sequence: SequenceResult,
    point: Point,
    names: Mapping[str, str | None],
    intra_period: int | None,
) -> dict[str, Any]:
    frames, pixels = sequence.frames, sequence.width * sequence.height
    lists = _lists(point, names, frames, pixels)
    if lists and intra_period is not None:
        period = frames if intra_period < 1 else intra_period
        kinds = [0 if frame % period == 0 else 1 for frame in range(frames)]
    else:
        kinds = [0] * frames
    means = {"bpp": point.bpp}
    means |= {t: point.metrics.get(o or "", 0.0) for t, o in names.items()}
    entry: dict[str, Any] = {
        "frame_pixel_num": pixels,
        "i_frame_num": kinds.count(0),
        "p_frame_num": kinds.count(1),
    }
    for prefix, kind in (("i", 0), ("p", 1)):
        chosen = [each == kind for each in kinds]
        for name, mean in means.items():
            own = [*compress(lists.get(name, ()), chosen)]
            value = fmean(own) if own else 0.0
            entry[f"ave_{prefix}_frame_{name}"] = mean if all(chosen) else value
    entry |= {f"ave_all_frame_{name}": mean for name, mean in means.items()}
    if lists:
        entry |= {f"frame_{name}": values for name, values in lists.items()}
        entry["frame_type"] = kinds
    both = [point.seconds.get(name) for name in ("encode", "decode")]
    entry["test_time"] = frames * sum(s for s in both if s is not None)
    if None not in both:
        entry["avg_frame_encoding_time"], entry["avg_frame_decoding_time"] = both
    return entry


def _lists(
    point: Point, names: Mapping[str, str | None], frames: int, pixels: int
) -> dict[str, list[float]]:
    """Return what DCVC lists over frames, or nothing if one of its PSNRs is missing."""
    bits = point.per_frame.get("bits", [])
    lists = {
        theirs: point.per_frame[ours]
        for theirs, ours in names.items()
        if ours in point.per_frame and ours is not None
    }
    complete = all(name in lists for name in names if name.startswith("psnr"))
    if not complete or any(len(v) != frames for v in [bits, *lists.values()]):
        return {}
    header = point.bpp * pixels * frames - sum(bits)
    bpp = [b / pixels for b in bits]
    bpp[0] += header / pixels
    return {"bpp": bpp, **lists}
