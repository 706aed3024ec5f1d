"""The channel of a stream: which packets are lost, and which echoes come back."""

from collections import Counter

import pytest

from experiments.stream.channel import Echoes, Losses


def test_echoes_of_what_was_mended_change_nothing():
    def resyncs(losses, delay, count=12, intra=()):
        echoes = Echoes(delay)
        found = []
        for frame in range(1, count + 1):
            first = 1 if frame in intra else echoes.first_scale(frame)
            echoes.note(frame, first)
            found.append(first)
            if frame in losses:
                echoes.add(frame, losses[frame])
        return {n: first for n, first in enumerate(found, 1) if first}

    assert resyncs({3: 4, 4: 4}, 3) == {6: 4}
    assert resyncs({3: 4, 4: 2}, 3) == {6: 4, 7: 2}
    assert resyncs({3: 2, 4: 4}, 3) == {6: 2}
    assert resyncs({3: 4, 6: 4}, 3) == {6: 4, 9: 4}
    assert resyncs({3: 4, 6: 3, 7: 4}, 3) == {6: 4, 9: 3}
    assert resyncs({3: 4}, 3, intra=[5]) == {5: 1}
    assert resyncs({3: 4}, None) == {}
    both = Echoes(2)
    both.add(1, 4)
    both.add(1, 2)
    assert both.first_scale(3) == 2


def test_protected_scales_are_never_lost(run):
    losses = Losses(frozenset({(5, 1), (5, 3)}), 1.0, "packet", protected=2)
    for frame in range(1, 40):
        lost = losses.of_unit(frame, 1, [9, 9, 9, 9])
        assert lost == ({3, 4} if 4 <= frame <= 28 else set())
    arguments = ("--loss_rate", "1", "--loss_mode", "packet", "--protect", "2")
    arguments = (*arguments, "--loss_first", "3", "--loss_last", "6")
    runs = run(*arguments, "--echo_delay", "none")
    expected = [[]] * 2 + [[3, 4]] * 4 + [[]] * 5
    assert runs["no echo", 0].column("lost") == expected
    assert min(runs["no echo", 0].column("scales")) == 2


def draw(count=3000, sizes=(1, 10, 20, 70), **options):
    losses = Losses(rate=0.4, first=1, last=count, **options)
    return [losses.of_unit(frame, 1, sizes) for frame in range(1, count + 1)]


def test_what_is_drawn_has_the_rates_that_were_asked_for():
    frame = Counter(draw())
    assert set(map(len, frame)) == {0, 1}
    for scale in (2, 3, 4):
        assert frame[frozenset({scale})] / 3000 == pytest.approx(0.4 / 3, abs=0.02)
    weighted = Counter(draw(mode="bytes"))
    for scale, share in ((2, 0.1), (3, 0.2), (4, 0.7)):
        found = weighted[frozenset({scale})] / 3000
        assert found == pytest.approx(0.4 * share, abs=0.03)
    packets = draw(mode="packet")
    for scale in (2, 3, 4):
        share = sum(scale in lost for lost in packets) / 3000
        assert share == pytest.approx(0.4, abs=0.03)
    both = sum({2, 3} <= lost for lost in packets) / 3000
    assert both == pytest.approx(0.16, abs=0.03)


def test_a_seed_draws_the_same_again_and_another_one_does_not():
    assert draw(seed=4) == draw(seed=4) != draw(seed=5)
    # A frame's luck does not depend on what was asked before.
    losses = Losses(rate=0.4, last=100)
    alone = losses.of_unit(50, 1, [1] * 4)
    assert [losses.of_unit(n, 1, [1] * 4) for n in range(1, 51)][-1] == alone


def test_seeds_are_runs_of_their_own_and_can_be_repeated(run):
    arguments = ("--loss_rate", "0.6", "--seeds", "2", "--echo_delay", "2")
    arguments = (*arguments, "--loss_first", "2", "--max_frames", "6")
    runs = run(*arguments, "--seed", "3")
    again = run(*arguments, "--seed", "4")
    label = "echo, 2 frames later"
    assert runs[label, 4] == again[label, 4] and (label, 5) in again
    assert runs[label, 3].column("lost") != runs[label, 4].column("lost")
