"""DHVC without some packets: fewer scales, losses, scales that begin anew."""

import pytest
import torch

from lightning_modules.dhvc.entropy_model import split_prior
from lightning_modules.dhvc.walk import State
from lightning_modules.packets import DesyncError


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_progressive_decoding_reads_the_first_scales_only(dhvc, parallel, scales):
    groups, own = dhvc.coded(parallel, dhvc.scene(4), intra_period=3)
    shown = dhvc.received(parallel, groups, scales=scales)
    assert [r.scales for r in shown] == [scales] * 4
    lost = [(frame, s) for frame in range(1, 5) for s in range(scales + 1, 5)]
    without = dhvc.received(parallel, groups, lost)
    assert all(
        torch.equal(a.frame, b.frame) for a, b in zip(shown, without, strict=True)
    )
    assert dhvc.same(shown, own) == [False] * 4
    more = dhvc.received(parallel, groups, scales=scales + 1)
    assert not any(
        torch.equal(a.frame, b.frame) for a, b in zip(shown, more, strict=True)
    )
    # At an intra frame, predictions of finer scales begin anew as well.
    alone = dhvc.received(parallel, groups[3:], scales=scales)
    assert torch.equal(alone[0].frame, shown[3].frame)


def test_all_scales_are_the_whole_frame(dhvc, parallel):
    groups, own = dhvc.coded(parallel, dhvc.scene(3))
    assert dhvc.same(dhvc.received(parallel, groups, scales=4), own) == [True] * 3


def test_scales_that_were_not_decoded_are_the_priors_mean(dhvc, parallel):
    """The first frame from two scales, by hand."""
    groups, _ = dhvc.coded(parallel, dhvc.scene(1))
    network, means = parallel.network, []
    hooks = [
        network.scale(n)[0].prior.register_forward_hook(
            lambda m, i, o: means.append(split_prior(o)[0])
        )
        for n in (3, 4)
    ]
    added = []
    hooks += [
        network.scale(n)[0].restore.register_forward_pre_hook(
            lambda m, i: added.append(i[0])
        )
        for n in (3, 4)
    ]
    dhvc.received(parallel, groups, scales=2)
    for hook in hooks:
        hook.remove()
    assert len(means) == 2
    assert all(torch.equal(a, b) for a, b in zip(means, added, strict=True))


@pytest.mark.parametrize(("echo", "slot_kept"), [(8, False), (12, False), (8, True)])
def test_a_lost_scale_spoils_frames_until_it_begins_anew(
    dhvc, parallel, monkeypatch, echo, slot_kept
):
    if slot_kept:
        whole = State.without

        def without(self, first):
            fresh = whole(self, first)
            if first == 1:
                return fresh
            kept = tuple(old[:1] for old in self.past[first - 1 :])
            return State((*fresh.past[: first - 1], *kept), fresh.previous)

        monkeypatch.setattr(State, "without", without)
    frames = dhvc.scene(14)
    again = lambda number: 4 if number == echo - 1 else 0  # noqa: E731
    groups, own = dhvc.coded(parallel, frames, resync=again)
    if slot_kept:
        # An old feature in the older slot: the decoder never has the encoder's.
        with pytest.raises(DesyncError):
            dhvc.received(parallel, groups, {(5, 4)})
        return
    shown = dhvc.received(parallel, groups, {(5, 4)})
    spoilt = range(5, echo)
    expected = [frame not in spoilt for frame in range(1, 15)]
    assert dhvc.same(shown, own) == expected
    assert [r.scales for r in shown] == [4 if good else 3 for good in expected]
    # Without the loss nothing differs, and the encoder's frames are those of one that
    # was never asked, until it was.
    assert dhvc.same(dhvc.received(parallel, groups), own) == [True] * 14
    _, never = dhvc.coded(parallel, frames)
    before = [torch.equal(a, b) for a, b in zip(own, never, strict=True)]
    assert before == [frame < echo for frame in range(1, 15)]


def test_without_an_echo_a_lost_scale_stays_lost(dhvc, parallel):
    groups, own = dhvc.coded(parallel, dhvc.scene(8))
    shown = dhvc.received(parallel, groups, {(3, 4)})
    assert dhvc.same(shown, own) == [True] * 2 + [False] * 6
    assert [r.scales for r in shown] == [4, 4] + [3] * 6


def test_a_lost_coarse_scale_takes_the_finer_ones_with_it(dhvc, parallel):
    again = {7: 2, 9: 3}
    groups, own = dhvc.coded(parallel, dhvc.scene(12), resync=lambda n: again.get(n, 0))
    shown = dhvc.received(parallel, groups, {(5, 2)})
    assert [r.scales for r in shown] == [4] * 4 + [1] * 3 + [4] * 5
    assert dhvc.same(shown, own) == [True] * 4 + [False] * 3 + [True] * 5
    # The frame that begins anew loses a scale itself: the next echo mends it.
    shown = dhvc.received(parallel, groups, {(5, 2), (8, 3)})
    assert [r.scales for r in shown] == [4] * 4 + [1] * 3 + [2] * 2 + [4] * 3
    assert dhvc.same(shown, own) == [True] * 4 + [False] * 5 + [True] * 3
    # Beginning anew at a finer scale than the lost one mends nothing.
    shown = dhvc.received(parallel, groups, {(5, 2), (8, 2)})
    assert [r.scales for r in shown] == [4] * 4 + [1] * 8


@pytest.mark.parametrize("period", [-1, 4])
def test_losing_the_first_scale_shows_a_frame_all_the_same(dhvc, parallel, period):
    groups, own = dhvc.coded(parallel, dhvc.scene(6), intra_period=period)
    shown = dhvc.received(parallel, groups, {(1, 1)})
    assert [r.scales for r in shown] == [0] * 4 + [0 if period < 0 else 4] * 2
    assert all(r.frame.isfinite().all() for r in shown)
    assert dhvc.same(shown, own)[-1] == (period > 0)


def test_losses_at_one_scale_leave_the_coarser_ones_exact(dhvc, parallel):
    groups, _ = dhvc.coded(parallel, dhvc.scene(6))
    symbols = []
    block = parallel.network.scale(3)[0]
    hook = block.prior.register_forward_hook(lambda m, i, o: symbols.append(o))
    for lost in ((), {(2, 4), (4, 4)}):
        dhvc.received(parallel, groups, lost)
    hook.remove()
    for whole, with_loss in zip(symbols[:6], symbols[6:], strict=True):
        assert torch.equal(whole, with_loss)


def test_with_the_auxiliary_path_one_loss_spoils_every_scale(dhvc, full):
    groups, own = dhvc.coded(full, dhvc.scene(7), intra_period=5)
    shown = dhvc.received(full, groups, {(2, 4)})
    assert [r.scales for r in shown] == [4, 3, 0, 0, 0, 4, 4]
    assert dhvc.same(shown, own) == [True] + [False] * 4 + [True] * 2
    priors = []
    hook = full.network.scale(1)[0].prior.register_forward_hook(
        lambda m, i, o: priors.append(o)
    )
    for lost in ((), {(2, 4)}):
        dhvc.received(full, groups, lost)
    hook.remove()
    # Even the coarsest scale's, in the frame after the loss.
    assert torch.equal(priors[1], priors[8])
    assert not torch.equal(priors[2], priors[9])


def test_with_the_auxiliary_path_scales_alone_are_refused(dhvc, full):
    groups, _ = dhvc.coded(full, dhvc.scene(2))
    with pytest.raises(ValueError, match="auxiliary: false"):
        dhvc.received(full, groups, scales=3)
    with pytest.raises(ValueError, match=r"scale 4 cannot begin anew.*\[0, 1\]"):
        dhvc.coded(full, dhvc.scene(2), resync=lambda number: 4)
    groups, own = dhvc.coded(
        full, dhvc.scene(4), resync=lambda number: int(number == 2)
    )
    assert [g[0].payload[0] for g in groups] == [8, 0, 8, 0]
    assert dhvc.same(dhvc.received(full, groups, {(2, 1)}), own) == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("scales", [0, 5])
def test_scales_that_are_not_there_are_refused(dhvc, parallel, scales):
    with pytest.raises(ValueError, match="1 to 4"):
        dhvc.received(parallel, [], scales=scales)
    with pytest.raises(ValueError, match="cannot begin anew"):
        dhvc.coded(parallel, dhvc.scene(2), resync=lambda number: 5)
