"""Results that look real, and a comparison of them: what the report's tests show."""

import math
import random
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from callbacks.metrics.table import METRICS
from experiments.compare.comparison import (
    Comparison,
    Curve,
    Delta,
    Flag,
    PaperNumber,
    Row,
)
from experiments.results.result import Point, Protocol, Result, SequenceResult

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_e": ("Johnny",)}
CODECS = {"x265": (1.0, (37, 32, 27, 22)), "UI2C": (0.74, (0, 21, 42, 63))}
CODECS["SVT-AV1"] = (0.85, (55, 45, 35, 25))
ANCHOR = "x265"
QUALITIES = ("psnr_yuv", "psnr_yuv_unrounded", "ms_ssim_y", "ms_ssim_y_db", "tof")
FRAMES = 12


def make_results(folder, *, size=(64, 48), codecs=CODECS, sets=SETS, frames=FRAMES):
    """Return one result per codec, with pictures of the first and a middle frame."""
    results = []
    for name, (cost, rates) in codecs.items():
        folder.mkdir(parents=True, exist_ok=True)
        sequences = [
            _sequence(folder, set, sequence, name, cost, rates, size, frames)
            for set, members in sets.items()
            for sequence in members
        ]
        kind = "learned" if name == "UI2C" else "anchor"
        definitions = {metric: METRICS[metric].definition for metric in QUALITIES}
        results.append(
            Result(
                name,
                {"name": name, "kind": kind, "fingerprint": f"{name} 0123abcd"},
                Protocol("yuv420", frames, -1, "bitstream", definitions=definitions),
                {"device": "cpu", "threads": 1},
                sequences,
                folder / f"{name}.json",
            )
        )
    return results


def _sequence(folder, set, sequence, codec, cost, rates, size, frames):
    seed = f"{set}/{sequence}/{codec}"
    rng = random.Random(seed)
    width, height = size
    hardness = 1 + 2 * random.Random(sequence).random()
    shown = ("0", str(frames // 2))
    stem = f"{set}_{sequence}"
    sources = {f: f"{stem}_{f}.png" for f in shown}
    points = []
    for step, rate in enumerate(rates):
        bpp = 0.02 * cost * hardness * 2.3**step * rng.uniform(0.93, 1.07)
        bits = [bpp * width * height * rng.uniform(0.5, 1.3) for _ in range(frames)]
        bits[0] *= 4
        bits = [b * bpp * width * height * frames / sum(bits) for b in bits]
        psnr = [33 + 2.6 * step - hardness + rng.gauss(0, 0.2) for _ in range(frames)]
        fraction = [1 - 10 ** (-(9 + 2 * step + rng.gauss(0, 0.1)) / 10) for _ in psnr]
        values = {
            "psnr_yuv": psnr,
            "psnr_yuv_unrounded": [p - 1.2 for p in psnr],
            "ms_ssim_y": fraction,
            "ms_ssim_y_db": [-10 * math.log10(1 - f) for f in fraction],
            "tof": [0.4 / (step + 1) + rng.random() / 50 for _ in psnr[1:]],
        }
        pictures = {f: f"{stem}_{codec}_{step}_{f}.png" for f in shown}
        for frame in shown:
            noise = 40 / (step + 1)
            _picture(folder / sources[frame], size, sequence, frame, 0)
            _picture(folder / pictures[frame], size, sequence, frame, noise)
        points.append(
            Point(
                rate,
                bpp,
                nbytes=round(bpp * width * height * frames / 8),
                estimated_bpp=bpp * 0.99 if codec == "UI2C" else None,
                kbps=bpp * width * height * 30 / 1000,
                metrics={name: sum(v) / len(v) for name, v in values.items()},
                per_frame={"bits": bits, **values},
                seconds={"encode": 0.2 * (step + 1), "decode": 0.05},
                peak_memory={"encode": 512 << 20, "decode": 256 << 20},
                pictures=pictures,
            )
        )
    fps = Fraction(30)
    return SequenceResult(
        set, sequence, width, height, fps, frames, points, "stored planes", sources
    )


def _picture(path, size, sequence, frame, noise):
    import cv2

    width, height = size
    y, x = np.mgrid[:height, :width]
    base = random.Random(sequence).random() * 6 + int(frame) / 10
    waves = [
        128 + 90 * np.sin(x / (9 + c) + base) * np.cos(y / 11 + c) for c in range(3)
    ]
    coarse = noise * np.sign(np.sin(x * 0.8) * np.sin(y * 0.8))
    pixels = np.stack(waves, -1) + coarse[..., None]
    if not path.exists():
        cv2.imwrite(str(path), pixels.clip(0, 255).astype(np.uint8))


def compare(results, *, differences=(), notes=()):
    """Return what ``compare`` would say, with a cruder integral."""
    sets = {}
    for sequence in results[0].sequences:
        sets.setdefault(sequence.set, []).append(sequence.name)
    curves = [curve for result in results for curve in _curves(result, QUALITIES, sets)]
    anchor = results[0].name
    codecs = tuple(result.name for result in results[1:])
    rows = [
        row
        for metric in QUALITIES
        for codec in codecs
        for row in _rows(curves, metric, codec, anchor, sets)
    ]
    paper = PaperNumber(
        "UI²C", "HM-16.25", "uvg", "psnr_yuv", -31.5, "arXiv 2510.14431, Table 1",
        {"frames": "all", "intra period": "-1"}, ("UI2C", "psnr_yuv", "uvg"),
    )  # fmt: skip
    return Comparison(
        anchor,
        codecs,
        "pchip",
        QUALITIES,
        "psnr_yuv",
        {name: tuple(members) for name, members in sets.items()},
        tuple(curves),
        tuple(rows),
        (paper,),
        tuple(differences),
        tuple(notes),
    )


def _curves(result, metrics, sets):
    for metric in metrics:
        for set, members in sets.items():
            own = [s for s in result.sequences if s.set == set and s.name in members]
            for sequence in own:
                yield _curve(result.name, metric, set, sequence.name, [sequence])
            yield _curve(result.name, metric, set, None, own)


def _curve(codec, metric, set, name, sequences):
    columns = list(zip(*(sequence.points for sequence in sequences), strict=True))
    bpp = [sum(p.bpp for p in column) / len(column) for column in columns]
    quality = [sum(p.metrics[metric] for p in c) / len(c) for c in columns]
    rates = [column[0].rate for column in columns]
    left_out = (2,) if name == "Jockey" and codec == "SVT-AV1" else ()
    return Curve(
        codec, metric, set, name, tuple(rates), tuple(bpp), tuple(quality), left_out
    )


def _rows(curves, metric, codec, anchor, sets):
    found = {(c.codec, c.set, c.sequence): c for c in curves if c.metric == metric}

    def delta(set, sequence):
        a, b = found[anchor, set, sequence], found[codec, set, sequence]
        rate = (
            100 * (sum(map(math.log, b.bpp)) - sum(map(math.log, a.bpp))) / len(a.bpp)
        )
        return rate, sum(b.quality) / len(b.quality) - sum(a.quality) / len(a.quality)

    def row(kind, set, sequence, rate, quality):
        flags = []
        if abs(rate) < 1:
            flags.append(Flag("noise", f"{rate:.2f} % is below 1 %"))
        if sequence == "Jockey":
            flags.append(Flag("low_overlap", "the curves share 61 % of their quality"))
        return Row(
            codec,
            metric,
            kind,
            set,
            sequence,
            Delta(rate, rate - 2, rate + 1.5, 90.0),
            Delta(quality, quality - 0.1, quality + 0.1, 88.0),
            tuple(flags),
        )

    means = []
    for set, members in sets.items():
        numbers = [delta(set, name) for name in members]
        for name, (rate, quality) in zip(members, numbers, strict=True):
            yield row("sequence", set, name, rate, quality)
        means.append(tuple(sum(v) / len(v) for v in zip(*numbers, strict=True)))
        yield row("set_mean", set, None, *means[-1])
        yield row("set_curve", set, None, *delta(set, None))
    overall = [sum(v) / len(v) for v in zip(*means, strict=True)]
    yield row("overall_mean", None, None, *overall)
    yield row("overall_curve", None, None, *overall)


@pytest.fixture(scope="session")
def samples():
    """Results that look real, and a comparison of them."""
    return SimpleNamespace(CODECS=CODECS, make_results=make_results, compare=compare)
