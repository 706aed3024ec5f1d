"""How VideoVAE cuts a video into groups of pictures, and joins them again."""

from itertools import islice

import pytest
import torch

from lightning_modules.video_vae.gops import cut, join, padded_length


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("length", [5, 9])
def test_every_frame_is_shown_once_and_shared_frames_are_coded_twice(length, overlap):
    for count in range(1, 40):
        gops = list(cut(range(count), length, overlap))
        wanted = -(-(count - overlap) // (length - overlap))
        assert len(gops) == max(1, wanted)
        shown = 0
        for number, gop in enumerate(gops):
            assert gop.frames == list(
                range(gop.frames[0], gop.frames[0] + len(gop.frames))
            )
            assert gop.frames[0] == shown
            assert gop.blends == (overlap and number > 0)
            last = number == len(gops) - 1
            assert last or len(gop.frames) == length
            shared = len(gop.frames) - gop.shown
            assert shared == (overlap and not last)
            shown += gop.shown
        assert shown == count


def test_96_frames_are_the_papers_12_groups_against_11():
    assert len(list(cut(range(96), 9, True))) == 12
    assert len(list(cut(range(96), 9, False))) == 11


def test_cutting_looks_one_frame_ahead_and_no_further():
    pulled = []
    source = (pulled.append(i) or i for i in range(1000))
    for number, _ in enumerate(islice(cut(source, 9, True), 3), 1):
        assert len(pulled) == 8 * number + 2
    pulled.clear()
    next(cut((pulled.append(i) or i for i in range(1000)), 9, False))
    assert len(pulled) == 9


def test_lengths_are_padded_to_the_next_4n_plus_1():
    assert [padded_length(n) for n in range(1, 11)] == [1, 5, 5, 5, 5, 9, 9, 9, 9, 13]


def test_a_shared_frame_is_the_mean_of_both_copies_before_any_clamp():
    first = torch.full((5, 3, 2, 2), 1.6)
    complete, held = join(first, 4, False, None, 0.5)
    assert complete.shape[0] == 4 and held.shape[0] == 1
    second = torch.full((5, 3, 2, 2), 0.2)
    complete, held = join(second, 5, True, held, 0.5)
    torch.testing.assert_close(complete[0], torch.full((3, 2, 2), 0.9))
    assert torch.equal(complete[1:], second[1:])
    assert held.shape[0] == 0
    complete, _ = join(second, 5, True, torch.full((1, 3, 2, 2), 1.6), 0.25)
    torch.testing.assert_close(complete[0], torch.full((3, 2, 2), 0.55))
    alone, _ = join(second, 5, True, None, 0.5)
    assert torch.equal(alone, second)


def test_boundaries_are_where_the_groups_that_a_frame_is_from_change(video_vae):
    with_overlap, without = video_vae.lively(), video_vae.lively(overlap=False)
    assert with_overlap.boundaries(12) == [4, 5, 8, 9]
    assert without.boundaries(12) == [5, 10]
    assert with_overlap.boundaries(5) == without.boundaries(5) == []
    assert with_overlap.boundaries(6) == [4, 5]


def test_the_bits_of_overlap_are_the_ratio_of_coded_groups(video_vae, codec):
    still = video_vae.scene(1).expand(25, -1, -1, -1)
    sizes = {}
    for overlap in (True, False):
        codec.configure(gop_overlap=overlap)
        packets, _ = video_vae.coded(codec, still)
        sizes[overlap] = [len(packet.payload) for packet in packets]
        assert sum(packet.frames for packet in packets) == 25
    assert len(sizes[True]) == 6 and len(sizes[False]) == 5
    # Of a still picture all groups are alike.
    assert sum(sizes[True]) * 5 == sum(sizes[False]) * 6


def test_estimated_bits_are_spread_over_the_frames_that_a_group_completes(
    video_vae, codec
):
    clip = video_vae.scene(7)
    with torch.inference_mode():
        out = codec(clip[None], torch.tensor([0.2]))
    packets = list(codec.compress(clip, 0.2, reconstruct=True))
    assert [packet.frames for packet in packets] == [4, 3]
    shares = [p.estimated_bits / p.frames for p in packets for _ in range(p.frames)]
    torch.testing.assert_close(out.bits[0], torch.tensor(shares), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(out.parts["y"] + out.parts["z"], out.bits)
