"""Results of codecs whose BD-rate is known, and the comparison of them."""

from fractions import Fraction

import pytest

from callbacks.metrics.table import METRICS
from experiments.compare.assemble import compare_results
from experiments.results.result import Point, Protocol, Result, SequenceResult

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_d": ("BQSquare",)}
RATES = (0.0, 21.0, 42.0, 63.0)


@pytest.fixture(scope="session")
def make_sequence():
    """Return points whose quality is the knob's and whose bits are scaled."""

    def make(set, name, cost, rates=RATES, metrics=("psnr_yuv",), frames=96):
        points = []
        for i, rate in enumerate(rates):
            bpp = cost * 0.01 * 2**i * (1 + len(name) / 10)
            values = {"psnr_yuv": 30 + 2.0 * i, "psnr_rgb": 29 + 2.0 * i}
            values |= {"lpips_alex": 0.4 - 0.1 * i, "psnr_y": 31 + 2.0 * i}
            chosen = {metric: values[metric] for metric in metrics}
            points.append(Point(rate, bpp, metrics=chosen))
        fps = Fraction(50)
        return SequenceResult(set, name, 416, 240, fps, frames, points, "stored")

    return make


@pytest.fixture(scope="session")
def make_result(make_sequence):
    """Return a result of all sets; what is left over are fields of its protocol."""

    def make(
        name,
        cost=1.0,
        sets=SETS,
        metrics=("psnr_yuv",),
        codec=None,
        rates=RATES,
        **protocol,
    ):
        sequences = [
            make_sequence(set, member, cost, rates, metrics)
            for set, members in sets.items()
            for member in members
        ]
        usual = {
            "colour": "yuv420",
            "max_frames": 96,
            "intra_period": -1,
            "rate": "bitstream",
            "definitions": {metric: METRICS[metric].definition for metric in metrics},
        }
        described = {"name": codec or name, "kind": "learned"}
        protocol = Protocol(**{**usual, **protocol})
        return Result(name, described, protocol, sequences=sequences)

    return make


@pytest.fixture(scope="session")
def compare():
    """Compare results with the one that is called ``a``."""

    def run(*results, anchor="a", **options):
        return compare_results(list(results), anchor, **options)

    return run


@pytest.fixture(scope="session")
def value():
    """Return a BD-rate of a comparison."""

    def of(comparison, kind, set=None, sequence=None, codec="b", metric="psnr_yuv"):
        return comparison.row(codec, metric, kind, set, sequence).rate.value

    return of
