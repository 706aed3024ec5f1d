"""DualDomain's modes, what its packets hold, and what follows a lost one."""

import pytest
import torch

from lightning_modules.dual_domain.entropy_model import FRACTIONS
from lightning_modules.dual_domain.network import Mode
from lightning_modules.dual_domain.packets import Head, read_head
from lightning_modules.dual_domain.ports import Doubt
from lightning_modules.packets import DesyncError, Packet

FIRST_BYTE_MODE = 3


@torch.inference_mode()
def test_the_smallest_packet_is_taken_whatever_the_mode(dual_domain, codec):
    clip = dual_domain.scene(2)
    coder, state = dual_domain.coded_after(codec, clip[:1])
    (best,) = coder.encode(clip[1], 0.33, state)[0].make()
    sizes = []
    for mode in Mode:
        coder.modes = lambda state, mode=mode: [mode]
        (packet,) = coder.encode(clip[1], 0.33, state)[0].make()
        assert packet.payload[0] & FIRST_BYTE_MODE == mode
        sizes.append(len(packet.payload))
    assert len(best.payload) == min(sizes) < max(sizes)


def test_estimated_decisions_cost_about_what_real_ones_do(dual_domain, codec):
    clip = dual_domain.scene(4)
    estimated = dual_domain.make(mode_decision="estimated")
    real = sum(len(p.payload) for p in codec.compress(clip, 0.5))
    other = sum(len(p.payload) for p in estimated.compress(clip, 0.5))
    assert abs(real - other) <= 0.01 * real


def test_always_inter_is_never_intra_after_a_start(dual_domain):
    codec = dual_domain.make(mode_decision="inter")
    packets = list(codec.compress(dual_domain.scene(4), 0.5, intra_period=3))
    modes = [packet.payload[0] & FIRST_BYTE_MODE for packet in packets]
    assert modes == [Mode.INTRA, Mode.INTER, Mode.INTER, Mode.INTRA]
    references = [packet.payload[0] >> 2 & 3 for packet in packets]
    assert references == [0, 1, 2, 0]


def test_quality_is_in_the_packet_and_any_is_possible(dual_domain, codec):
    frame = dual_domain.scene(1)
    payloads = []
    for quality in (0.0, 0.37, 0.370004, 1.0):
        (packet,) = codec.compress(frame, quality)
        assert read_head(packet)[0].quality == pytest.approx(quality, abs=1e-5)
        payloads.append(packet.payload)
    assert payloads[1] == payloads[2]
    with pytest.raises(ValueError, match="quality is a number from 0"):
        list(codec.compress(frame, 0.5, rate_at=lambda t: 1.5))


def test_a_head_reads_back_whatever_it_holds():
    doubts = [Doubt(0, -3, 63), Doubt(700, 2**20 * FRACTIONS, 0), Doubt(701, -129, 1)]
    for mode, references in ((Mode.INTRA, 0), (Mode.INTER, 3), (Mode.STILL, 1)):
        for held in ([], doubts):
            head = Head(mode, references, 12345 / 65535, "float32", held)
            payload = head.to_bytes()
            assert read_head(Packet(payload + b"xyz", 1, 0)) == (head, len(payload))
    for payload in (
        b"",
        b"\x01\x00",
        b"\x03\x00\x00",
        b"\x01\x00\x00",
        b"\x10\0\0\xff",
    ):
        with pytest.raises(DesyncError):
            read_head(Packet(payload, 1, 0))


@pytest.mark.parametrize("missing", [1, 4])
def test_a_loss_that_is_not_marked_is_an_error(dual_domain, missing):
    codec = dual_domain.make(mode_decision="inter")
    packets = list(codec.compress(dual_domain.scene(6), 0.5))
    del packets[missing]
    with pytest.raises(DesyncError):
        list(codec.decompress(packets, *dual_domain.SIZE))


def test_after_a_loss_the_last_frame_stays_until_an_intra_frame(dual_domain):
    codec = dual_domain.make(mode_decision="inter")
    packets = list(codec.compress(dual_domain.scene(6), 0.5, intra_period=4))
    whole = list(codec.decompress(packets, *dual_domain.SIZE))
    packets[1] = None
    shown = list(codec.decompress(packets, *dual_domain.SIZE))
    assert all(torch.equal(shown[t], whole[0]) for t in (1, 2, 3))
    assert all(torch.equal(shown[t], whole[t]) for t in (4, 5))
