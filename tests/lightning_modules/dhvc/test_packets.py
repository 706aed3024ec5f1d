"""DHVC's packets: one per scale, lambda in them, and what cannot be decoded."""

import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_modules.packets import DesyncError


def test_a_frame_is_one_packet_per_scale_and_the_last_completes_it(dhvc, full):
    groups, own = dhvc.coded(full, dhvc.scene(3), intra_period=2)
    assert [[p.frames for p in group] for group in groups] == [[0, 0, 0, 1]] * 3
    assert [[len(p.x_hat) for p in group] for group in groups] == [[0, 0, 0, 1]] * 3
    heads = [[p.payload[0] for p in group] for group in groups]
    assert heads == [[8, 9, 10, 11], [0, 1, 2, 3], [8, 9, 10, 11]]
    assert dhvc.same(dhvc.received(full, groups), own) == [True] * 3
    assert all(p.estimated_bits > 0 for group in groups for p in group)


def test_lambda_travels_with_the_frame(dhvc, parallel):
    clip = dhvc.scene(2)
    for lmbda in (256.0, 300.3, 2048.0):
        packets = list(parallel.compress(clip, lmbda, reconstruct=True))
        frames = list(parallel.decompress(packets, *dhvc.SIZE))
        assert torch.equal(frames[1], packets[-1].x_hat[0])
        found = np.frombuffer(packets[0].payload[1:5], dtype="<f4")[0]
        assert found == pytest.approx(lmbda, rel=1e-6)


def test_lambdas_that_float32_rounds_over_the_range_decode_and_others_do_not(dhvc):
    codec = dhvc.lively(lmbda_range=(0.1, 0.7), auxiliary=False)
    groups, own = dhvc.coded(codec, dhvc.scene(1))
    assert dhvc.same(dhvc.received(codec, groups), own) == [True]
    (first, *rest) = groups[0]
    for lmbda in (1e-3, 2.0, math.nan):
        head = first.payload[:1] + struct.pack("<f", lmbda)
        damaged = replace(first, payload=head + first.payload[5:])
        with pytest.raises(DesyncError, match="lambda is"):
            dhvc.received(codec, [[damaged, *rest]])


def test_every_frame_that_is_not_intra_anyway_is_asked_for(dhvc, parallel):
    asked = []
    dhvc.coded(
        parallel, dhvc.scene(7), intra_period=3, resync=lambda n: asked.append(n) or 0
    )
    assert asked == [1, 2, 4, 5]


def test_packets_out_of_order_are_an_error(dhvc, parallel):
    groups, _ = dhvc.coded(parallel, dhvc.scene(2))
    packets = [p for group in groups for p in group]
    for wrong, words in (
        ([packets[1], *packets[1:]], "scale 1"),
        ([*packets[:2], *packets[3:]], "scale 3"),
        (packets[:6], "ends after 2 of 4"),
        (packets[4:], "not there"),
    ):
        with pytest.raises(DesyncError, match=words):
            list(parallel.decompress(wrong, *dhvc.SIZE))


def test_other_weights_are_an_error_and_not_noise(dhvc, parallel):
    groups, _ = dhvc.coded(parallel, dhvc.scene(2))
    other = dhvc.lively(auxiliary=False)
    other.network.scale(3)[0].prior.bias.data += 0.2
    with pytest.raises(DesyncError, match="scale 3"):
        dhvc.received(other, groups)


def test_a_nan_in_the_weights_is_named_and_not_coded(dhvc):
    codec = dhvc.lively()
    codec.network.scale(2)[0].posterior[1].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        dhvc.coded(codec, dhvc.scene(1))


def test_an_intra_period_of_zero_is_refused(dhvc, parallel):
    with pytest.raises(ValueError, match="intra_period is 0"):
        dhvc.coded(parallel, dhvc.scene(2), intra_period=0)


@pytest.mark.gpu
def test_cuda_bytes_decode_on_cuda(dhvc):
    codec = dhvc.lively(auxiliary=False).cuda()
    groups, own = dhvc.coded(codec, dhvc.scene(5))
    assert dhvc.same(dhvc.received(codec, groups), own) == [True] * 5
