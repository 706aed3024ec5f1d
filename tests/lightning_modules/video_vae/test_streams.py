"""VideoVAE's streams: what packets say, groups side by side, lost and damaged ones."""

import pytest
import torch

from lightning_modules.packets import DesyncError, Packet
from lightning_modules.video_vae.packets import Head


@pytest.mark.parametrize("count", [1, 5, 6, 14])
def test_any_number_of_groups_side_by_side_gives_the_same_bits(video_vae, codec, count):
    frames = video_vae.scene(count)
    packets, own = video_vae.coded(codec, frames)
    for batch in (2, 4):
        codec.configure(gop_batch=batch)
        again, same = video_vae.coded(codec, frames)
        assert again == packets
        assert torch.equal(same, own)
        assert torch.equal(video_vae.decoded(codec, packets), own)


def test_a_stream_says_itself_whether_groups_overlap(video_vae, codec):
    packets, own = video_vae.coded(codec, video_vae.scene(9))
    codec.configure(gop_overlap=False)
    assert torch.equal(video_vae.decoded(codec, packets), own)
    packets, apart = video_vae.coded(codec, video_vae.scene(9))
    codec.configure(gop_overlap=True)
    assert torch.equal(video_vae.decoded(codec, packets), apart)
    assert not torch.equal(own, apart)


def test_overlap_changes_the_shared_frame_alone(video_vae):
    """Both groups code the same frames here; only one shows a mean."""
    codec = video_vae.lively()
    frames = video_vae.scene(6)
    _, own = video_vae.coded(codec, frames)
    copies = [video_vae.coded(codec, part)[1] for part in (frames[:5], frames[4:])]
    assert torch.equal(own[:4], copies[0][:4])
    assert torch.equal(own[5:], copies[1][1:])
    mean = (copies[0][4] + copies[1][0]) / 2
    # The copies are clamped already, which the mean of what was decoded is not.
    inside = ((copies[0][4] - 0.5).abs() < 0.5) & ((copies[1][0] - 0.5).abs() < 0.5)
    torch.testing.assert_close(own[4][inside], mean[inside])
    assert inside.any()


@pytest.mark.parametrize("theta", [0.0, 0.35, 1.0])
def test_a_stream_says_itself_how_copies_are_weighed(video_vae, codec, theta):
    frames = video_vae.scene(6)
    usual, half = video_vae.coded(codec, frames)
    codec.configure(gop_theta=theta)
    packets, own = video_vae.coded(codec, frames)
    codec.configure(gop_theta=0.5)
    assert torch.equal(video_vae.decoded(codec, packets), own)
    shown = codec(frames[None], torch.tensor([0.2]))
    assert torch.allclose(shown.x_hat[0], half, atol=1e-5)
    # Nothing else changes, and only packets whose frame is shared say it.
    assert not torch.equal(own[4], half[4])
    assert torch.equal(own[[0, 1, 2, 3, 5]], half[[0, 1, 2, 3, 5]])
    assert packets[0] == usual[0]
    assert len(packets[1].payload) == len(usual[1].payload) + 3


def test_tiles_and_weights_share_a_head():
    for tile in (0, 576):
        for blends, percent in ((True, 50), (True, 35), (False, 50)):
            head = Head(9, blends, tile, percent)
            assert Head.read(Packet(head.to_bytes(), 8, 0)) == head


def test_a_head_that_no_encoder_writes_is_refused():
    weighed = Head(9, True, 0, 35).to_bytes()
    for payload, message in (
        (weighed[:-1] + bytes([101]), "cannot be 101 % of a copy"),
        (weighed[:-1], "3 bytes has no whole head"),
    ):
        with pytest.raises(DesyncError, match=message):
            Head.read(Packet(payload, 8, 0))


@pytest.mark.parametrize("theta", [-0.01, 1.01, 0.355, float("nan")])
def test_a_weight_that_no_stream_can_say_is_refused(codec, theta):
    with pytest.raises(ValueError, match="two decimals"):
        codec.configure(gop_theta=theta)


def test_a_stream_says_itself_how_large_tiles_are(video_vae, codec):
    frames = video_vae.scene(5, 64, 64)
    whole = list(codec.compress(frames, 0.2))
    codec.configure(tile=40)
    packets = list(codec.compress(frames, 0.2, reconstruct=True))
    assert [p.payload for p in packets] != [p.payload for p in whole]
    codec.configure(tile=0)
    shown = torch.stack(list(codec.decompress(packets, 64, 64)))
    assert torch.equal(shown, packets[0].x_hat)


def test_an_intra_period_changes_nothing(video_vae, codec):
    assert (
        video_vae.coded(codec, video_vae.scene(9), intra_period=3)[0]
        == video_vae.coded(codec, video_vae.scene(9))[0]
    )
    with pytest.raises(ValueError, match="intra_period is 0"):
        list(codec.compress(video_vae.scene(1), 0.2, intra_period=0))


def test_real_bytes_are_what_was_estimated(video_vae, codec):
    packets = list(codec.compress(video_vae.scene(9), 0.2, reconstruct=True))
    for packet in packets:
        bits = 8 * len(packet.payload)
        # The head's byte, 16 bits of the coder's state, rounding up to a byte or word.
        assert abs(bits - packet.estimated_bits) < 0.02 * packet.estimated_bits + 56


@pytest.mark.parametrize("batch", [1, 3])
def test_a_lost_packet_spoils_its_group_and_the_shared_frames(video_vae, codec, batch):
    source = video_vae.scene(17)
    packets, own = video_vae.coded(codec, source)
    codec.configure(gop_batch=batch)
    frames = video_vae.decoded(codec, [packets[0], None, *packets[2:]])
    assert len(frames) == 17
    assert torch.equal(frames[:4], own[:4])
    # The frame that the lost group shares with the one before was decoded there.
    held = video_vae.coded(codec, source[:5])[1][4]
    assert all(torch.equal(frame, held) for frame in frames[4:8])
    # The next group's own copy, and nothing of the lost one.
    assert torch.equal(frames[8], video_vae.coded(codec, source[8:13])[1][0])
    assert torch.equal(frames[9:], own[9:])


def test_a_lost_beginning_is_grey_and_a_lost_end_long_enough(video_vae, codec):
    packets, own = video_vae.coded(codec, video_vae.scene(9))
    frames = video_vae.decoded(codec, [None, packets[1]])
    assert len(frames) == 9
    assert (frames[:4] == 0.5).all()
    assert torch.equal(frames[5:], own[5:])
    assert len(video_vae.decoded(codec, [packets[0], None])) == 9
    codec.configure(gop_overlap=False)
    packets, _ = video_vae.coded(codec, video_vae.scene(10))
    assert len(video_vae.decoded(codec, [packets[0], None])) == 10


def test_frames_before_damage_are_shown_however_many_groups_run(video_vae, codec):
    packets, own = video_vae.coded(codec, video_vae.scene(17))
    bad = Packet(packets[2].payload, packets[2].frames, packets[2].checksum ^ 1)
    codec.configure(gop_batch=4)
    frames = codec.decompress([*packets[:2], bad, packets[3]], *video_vae.SIZE)
    shown = []
    with pytest.raises(DesyncError, match="checksum"):
        for frame in frames:
            shown.append(frame)
    assert torch.equal(torch.stack(shown), own[:8])


@pytest.mark.parametrize(
    ("payload", "frames", "message"),
    [
        (b"", 1, "no whole head"),
        (b"\x41\x00", 1, "no whole head"),
        (b"\xc1\x01\x00", 1, "no whole head"),
        (b"\xc1\x01\x00\x65", 1, "cannot be 101 %"),
        (b"\x01\x00", 6, "5 coded frames cannot complete 6"),
        (b"\x01\x00", 0, "cannot complete 0"),
        (b"\x01", 5, r"cannot be read \(.*\): no encoder wrote these bytes"),
    ],
)
def test_a_packet_that_is_none_is_refused(video_vae, codec, payload, frames, message):
    with pytest.raises(DesyncError, match=message):
        list(codec.decompress([Packet(payload, frames, 0)], *video_vae.SIZE))


def test_the_checksum_covers_the_head(video_vae, codec):
    packets, _ = video_vae.coded(codec, video_vae.scene(6))
    payload = bytes([packets[1].payload[0] ^ 128, *packets[1].payload[1:]])
    assert Head.read(packets[1]).blends
    changed = Packet(payload, packets[1].frames, packets[1].checksum)
    with pytest.raises(DesyncError, match="checksum"):
        list(codec.decompress([packets[0], changed], *video_vae.SIZE))
