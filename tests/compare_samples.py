"""Results of codecs whose BD-rate is known, and the comparison of them."""

from dataclasses import replace
from fractions import Fraction

from callbacks.metrics.table import METRICS
from experiments.compare.assemble import compare_results
from experiments.results.result import Point, Protocol, Result, SequenceResult

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_d": ("BQSquare",)}
RATES = (0.0, 21.0, 42.0, 63.0)


def make_sequence(set, name, cost, rates=RATES, metrics=("psnr_yuv",), frames=96):
    """Return points whose quality is the knob's and whose bits are scaled."""
    points = []
    for i, rate in enumerate(rates):
        bpp = cost * 0.01 * 2**i * (1 + len(name) / 10)
        values = {"psnr_yuv": 30 + 2.0 * i, "psnr_rgb": 29 + 2.0 * i}
        values |= {"lpips_alex": 0.4 - 0.1 * i, "psnr_y": 31 + 2.0 * i}
        chosen = {metric: values[metric] for metric in metrics}
        points.append(Point(rate, bpp, metrics=chosen))
    return SequenceResult(set, name, 416, 240, Fraction(50), frames, points, "stored")


def make_result(name, cost=1.0, sets=SETS, metrics=("psnr_yuv",), codec=None, **kwargs):
    sequences = [
        make_sequence(set, member, cost, metrics=metrics, **kwargs)
        for set, members in sets.items()
        for member in members
    ]
    definitions = {metric: METRICS[metric].definition for metric in metrics}
    protocol = Protocol("yuv420", 96, -1, "bitstream", definitions=definitions)
    described = {"name": codec or name, "kind": "learned"}
    return Result(name, described, protocol, sequences=sequences)


def compare(*results, anchor="a", **kwargs):
    return compare_results(list(results), anchor, **kwargs)


def value(comparison, kind, set=None, sequence=None, codec="b", metric="psnr_yuv"):
    return comparison.row(codec, metric, kind, set, sequence).rate.value


def kinds(row):
    return {flag.kind for flag in row.flags}


def with_protocol(result, **changes):
    return replace(result, protocol=replace(result.protocol, **changes))
