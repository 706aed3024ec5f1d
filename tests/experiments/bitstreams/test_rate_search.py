"""A rate is found in few encodes, whatever the codec's costs look like."""

import math
import random

import pytest

from experiments.bitstreams.rate_search import search_rate
from lightning_modules.codec import RateKnob

QP = RateKnob("qp", 0, 63, (0, 21, 42, 63))
LMBDA = RateKnob("lmbda", 256, 2048, (256, 512, 1024, 2048))
QUALITY = RateKnob("quality", 0, 1, (0, 0.25, 0.5, 0.75, 1))


def steps(units, growth=5.5):
    """Costs of units that have whole qps only, the first of them four times as dear."""

    def cost(rate):
        low, share = divmod(rate, 1)
        total = 60
        for k in range(units):
            qp = low + (share * (k + 1) + 0.5) // 1 - (share * k + 0.5) // 1
            total += math.exp(growth * qp / 63) * (400 if k == 0 else 100) + 17
        return total

    return cost


def jittery(rate):
    return steps(15)(rate) * math.exp(random.Random(rate).gauss(0, 0.005))


CODECS = {
    "exponential": (QP, lambda rate: math.exp(rate / 10)),
    "fifteen units": (QP, steps(15)),
    "forty-eight units": (QP, steps(48)),
    "hardly anything to tell": (QP, steps(15, 0.5)),
    "convex": (QP, lambda rate: 1000 + math.exp(rate / 7)),
    "concave": (QP, lambda rate: 100 + 30 * rate**0.8),
    "flat, then steep": (QP, lambda rate: 1000 + math.exp(max(0, rate - 40) * 0.3)),
    "power law": (LMBDA, lambda rate: 300 + rate**0.6),
    "unit range": (QUALITY, lambda rate: 300 + 5000 * math.exp(4 * rate)),
    "jittery": (QP, jittery),
    "wavy": (QP, lambda rate: math.exp(rate / 20 + math.sin(rate / 3) / 10)),
    "reversed": (QP, lambda rate: math.exp(-rate / 20)),
}


def targets(knob, cost, count=25):
    low, high = sorted([cost(knob.low), cost(knob.high)])
    return [low * (high / low) ** ((i + 0.5) / count) for i in range(count)]


@pytest.mark.parametrize(("knob", "cost"), CODECS.values(), ids=CODECS.keys())
def test_every_target_within_the_range_is_met_in_eight_encodes(knob, cost):
    encodes = []
    for target in targets(knob, cost):
        found = search_rate(cost, knob, target)
        assert found.met, target
        assert abs(found.cost / target - 1) <= 0.01
        assert cost(found.rate) == found.cost
        assert found.deviation == found.cost / target - 1
        assert all(knob.low <= trial.rate <= knob.high for trial in found.trials)
        encodes.append(len(found.trials))
    assert max(encodes) <= 8
    assert sum(encodes) / len(encodes) < 7


def test_exponential_costs_are_hit_by_the_first_secant():
    def cost(rate):
        return math.exp(rate / 10)

    for target in (1.2, 30, 500):
        assert len(search_rate(cost, QP, target).trials) <= 3


@pytest.mark.parametrize("target", [0.5, 600])
def test_a_target_out_of_reach_is_an_error_that_says_the_reach(target):
    tried = []

    def cost(rate):
        tried.append(rate)
        return math.exp(rate / 10)

    with pytest.raises(ValueError, match="out of the codec's reach") as caught:
        search_rate(cost, QP, target, unit="kbps")
    for part in (f"{target:g} kbps", "1 kbps at qp 0", "544.6 kbps at qp 63"):
        assert part in str(caught.value)
    assert set(tried) >= {0, 63}
    assert len(tried) <= 5


def test_a_target_just_out_of_reach_is_met_at_the_end():
    found = search_rate(lambda rate: math.exp(rate / 10), QP, 0.995)
    assert found.met
    assert found.rate == 0


def test_the_ends_are_not_encoded_without_need():
    for target in targets(QP, steps(15))[3:-3]:
        rates = {trial.rate for trial in search_rate(steps(15), QP, target).trials}
        assert not rates & {0, 63}


def test_a_guess_comes_first_and_stays_on_the_knob():
    found = search_rate(lambda rate: math.exp(rate / 10), QP, math.e, guess=10)
    assert [trial.rate for trial in found.trials] == [10]
    found = search_rate(lambda rate: math.exp(rate / 10), QP, math.e, guess=99)
    assert found.trials[0].rate == 63
    assert found.met


def test_a_coarse_codec_gives_its_closest_rate_and_says_so():
    target = math.sqrt(steps(1)(30) * steps(1)(31))
    found = search_rate(steps(1), QP, target)
    assert not found.met
    assert len(found.trials) == 8
    assert round(found.rate) in (30, 31)
    errors = [abs(trial.cost / target - 1) for trial in found.trials]
    assert abs(found.deviation) == min(errors)


def test_the_closest_is_kept_even_if_it_came_first():
    costs = iter([1.04, 0.5, 0.7, 2.0, 0.6, 1.5, 0.8, 1.2])
    found = search_rate(lambda rate: next(costs), QP, 1.0)
    assert (found.cost, found.rate) == (1.04, found.trials[0].rate)
    assert found.deviation == pytest.approx(0.04)


def test_fewer_encodes_and_another_tolerance_are_obeyed():
    assert len(search_rate(steps(15), QP, 15000, max_encodes=2).trials) == 2
    found = search_rate(steps(15), QP, 15000, tolerance=0.5)
    assert found.met
    assert len(found.trials) < len(search_rate(steps(15), QP, 15000).trials)


def test_a_codec_of_one_rate_has_no_target():
    def cost(rate):
        raise AssertionError("nothing may be coded")

    knob = RateKnob("lmbda", 256, 256, (256,))
    with pytest.raises(ValueError, match="one rate, lmbda 256; leave the target out"):
        search_rate(cost, knob, 7.0, unit="kbps")


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_target_is_refused_before_anything_is_coded(target):
    def cost(rate):
        raise AssertionError("nothing may be coded")

    with pytest.raises(ValueError, match="not possible"):
        search_rate(cost, QP, target)
