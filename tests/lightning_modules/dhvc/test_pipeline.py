"""Several workers do what one does, bit by bit."""

import threading

import pytest
import torch


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize(("frames", "period"), [(1, -1), (2, -1), (7, -1), (7, 3)])
def test_packets_and_frames_are_those_of_one_worker(
    dhvc, expected, codec, number, frames, period
):
    packets, shown = expected(frames, period)
    pipeline = dhvc.pipelined(codec, number)
    coded = list(
        pipeline.compress(
            dhvc.scene(frames),
            dhvc.LMBDA,
            intra_period=period,
            reconstruct=True,
        )
    )
    assert dhvc.same_packets(coded, packets)
    decoded = list(pipeline.decompress(packets, *dhvc.SIZE))
    assert dhvc.same_frames(decoded, shown)
    assert not any(frame.requires_grad for frame in decoded)


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ({"reference_frames": 1}, torch.float32),
        ({"reference_frames": 3}, torch.bfloat16),
        ({}, torch.float16),
        (
            {
                "structure": "dhvc1",
                "variable_rate": False,
                "lmbda_range": (1024.0, 1024.0),
                "predictor": "unet",
                "reference": "spatial",
            },
            torch.float32,
        ),
    ],
)
def test_so_they_are_for_other_networks_and_dtypes(dhvc, arguments, dtype):
    codec = dhvc.lively(gain=1.0, auxiliary=False, **arguments).to(dtype)
    packets = list(codec.compress(dhvc.scene(6), dhvc.LMBDA, reconstruct=True))
    pipeline = dhvc.pipelined(codec, 3)
    assert dhvc.same_packets(
        list(pipeline.compress(dhvc.scene(6), dhvc.LMBDA, reconstruct=True)),
        packets,
    )
    shown = list(codec.decompress(packets, *dhvc.SIZE))
    assert dhvc.same_frames(list(pipeline.decompress(packets, *dhvc.SIZE)), shown)
    assert dhvc.same_frames(shown, [p.x_hat[0] for p in packets if p.frames])


@pytest.mark.parametrize("scales", [None, 2])
def test_lost_packets_and_scales_that_begin_anew_change_nothing(dhvc, codec, scales):
    def resync(number):
        return 3 if number == 4 else 0

    packets = list(codec.compress(dhvc.scene(8), dhvc.LMBDA, resync=resync))
    pipeline = dhvc.pipelined(codec, 3)
    assert list(pipeline.compress(dhvc.scene(8), dhvc.LMBDA, resync=resync)) == packets
    for frame, scale in ((1, 3), (5, 4), (6, 1)):
        packets[4 * frame + scale - 1] = None
    alone = list(codec.receive(packets, *dhvc.SIZE, scales=scales))
    together = list(pipeline.receive(packets, *dhvc.SIZE, scales=scales))
    assert [r.scales for r in together] == [r.scales for r in alone]
    assert dhvc.same_frames([r.frame for r in together], [r.frame for r in alone])


def test_another_device_works_on_a_copy(dhvc, expected, codec):
    pipeline = dhvc.pipelined(
        codec, devices=[torch.device("cpu"), torch.device("cpu", 0)]
    )
    assert pipeline.coders[0].network is codec.network
    assert pipeline.coders[1].network is not codec.network
    packets, _ = expected(7, -1)
    assert list(pipeline.compress(dhvc.scene(7), dhvc.LMBDA)) == packets


def test_workers_use_as_many_torch_threads_as_the_caller(dhvc, codec):
    seen = set()
    before = torch.get_num_threads()
    hook = codec.network.scale(1).register_forward_hook(
        lambda *_: seen.add((threading.current_thread().name, torch.get_num_threads()))
    )
    torch.set_num_threads(before + 1)
    try:
        list(dhvc.pipelined(codec).compress(dhvc.scene(2), dhvc.LMBDA))
    finally:
        torch.set_num_threads(before)
        hook.remove()
    assert seen == {(f"pipeline worker {i}", before + 1) for i in range(2)}
