"""How well a codec's rate obeys: three tests, none of them short.

Source: the experiments on rate control for arXiv 2512.10450.
"""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from statistics import fmean, median

from experiments.bitstreams.rate_search import search_rate
from experiments.propagation.bench import Bench, LeftOut, check_range, less, rises
from experiments.propagation.findings import Measured
from experiments.propagation.numbers import TRIALS
from lightning_modules.codec import RateKnob

LEVELS = 4
"""Rates of a sawtooth."""


def rates_of_sweep(knob: RateKnob, points: int) -> list[float]:
    """Return rates from one end of a knob to the other.

    They are evenly spaced; of a knob that does not reach 0, such as a lambda, by one
    factor from each to the next.

    Raises:
        LeftOut: The codec has one rate only.
    """
    check_range(knob)
    shares = [i / (points - 1) for i in range(1, points - 1)]
    low, high = knob.low, knob.high
    if low > 0:
        return [low, *(low * (high / low) ** share for share in shares), high]
    return [low, *(low + (high - low) * share for share in shares), high]


def sweep(bench: Bench, points: int) -> Measured:
    """Code a sequence at many rates; nothing is decoded.

    Raises:
        LeftOut: The codec has one rate only.
    """
    rates = rates_of_sweep(bench.codec.rate_knob, points)
    bpp = [bench.bpp(bench.bits(rate)) for rate in rates]
    return of_sweep(rates, bpp), {"rate": rates, "bpp": bpp}


def of_sweep(rates: Sequence[float], bpp: Sequence[float]) -> dict[str, float]:
    """Return the numbers of a sweep, of a sequence or of the mean of several."""
    from scipy.stats import spearmanr

    steps = [100 * (b / a - 1) for a, b in pairwise(bpp)]
    same = len(set(bpp)) == 1
    return {
        "distinct": len(set(bpp)),
        "violations": sum(step <= 0 for step in steps),
        "step_median": median(steps),
        "step_max": max(map(abs, steps)),
        "range": bpp[-1] / bpp[0],
        # Constant bits have no ranks.
        "spearman": 0.0 if same else float(spearmanr(rates, bpp).statistic),
    }


def target_rate(bench: Bench) -> Measured:
    """Search the rate of three targets, in few encodes each.

    The targets divide the range from the cheapest to the dearest encode evenly, on a
    logarithmic scale.

    Raises:
        LeftOut: The codec has one rate only, or the highest does not cost more than
            the lowest.
    """
    knob = bench.codec.rate_knob
    check_range(knob)

    @cache
    def encode(rate: float) -> float:
        return bench.bpp(bench.bits(rate))

    least, most = encode(knob.low), encode(knob.high)
    if not least < most:
        raise LeftOut(
            f"{knob.name} {knob.high:g} costs {most:.4g} bpp, no more than the "
            f"{least:.4g} bpp of {knob.low:g}"
        )
    targets = [least * (most / least) ** (i / 4) for i in (1, 2, 3)]
    errors, trials = [], []
    for target in targets:
        search = search_rate(encode, knob, target, tolerance=0.0, max_encodes=TRIALS)
        found = [trial.cost for trial in search.trials]
        # One that meets a target exactly ends the search.
        found += found[-1:] * (TRIALS - len(found))
        trials.append(found)
        errors.append(list(accumulate((100 * abs(c / target - 1) for c in found), min)))
    values = {f"error_{n + 1}": fmean(e[n] for e in errors) for n in range(TRIALS)}
    series = {f"trial_{n + 1}": [t[n] for t in trials] for n in range(TRIALS)}
    return values, {"target": targets, **series}


def sawtooth(bench: Bench, rate: float, low: float) -> Measured:
    """Let the rate rise unit by unit and drop, and compare with rates that are held.

    Raises:
        LeftOut: The codec has one rate only, the low one is not below the rate, or
            there are not enough frames.
    """
    check_range(bench.codec.rate_knob, low, rate)
    unit = bench.grid.unit
    if bench.frames <= unit:
        raise LeftOut(f"it needs {unit + 1} frames, and there are {bench.frames}")
    levels = [low + (rate - low) * i / (LEVELS - 1) for i in range(LEVELS - 1)]
    levels.append(rate)

    def rate_at(first: int) -> float:
        return levels[first // unit % LEVELS]

    toothed = bench.trace(rate, rate_at=rate_at)
    held = {level: bench.trace(level) for level in levels}
    rates = [rate_at(number) for number in range(bench.frames)]
    psnr_held = [held[level].psnr[t] for t, level in enumerate(rates)]
    bits_held = [held[level].bits[t] for t, level in enumerate(rates)]
    # The first unit has no history.
    transients = [abs(each) for each in less(toothed.psnr, psnr_held)[unit:]]
    dearer = rises(toothed.bits, bits_held)[unit:]
    values = {
        "transient": fmean(transients),
        "transient_max": max(transients),
        "rate_transient": fmean(dearer),
    }
    series = {
        "rate": rates,
        "psnr": toothed.psnr,
        "psnr_held": psnr_held,
        "bits": toothed.bits,
        "bits_held": bits_held,
    }
    return values, series
