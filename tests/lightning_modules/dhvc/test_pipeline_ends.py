"""Several workers end as one does: after errors, when stopped, on Ctrl-C."""

import os
import signal
from itertools import count as count_up

import pytest
import torch

from dhvc_pipeline_samples import (
    LMBDA,
    SIZE,
    expected,
    outcome,
    pipelined,
    same_frames,
    scene,
    shared_codec,
    workers,
)
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.packets import Packet


@pytest.fixture
def codec():
    return shared_codec()


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert workers() == []


def damaged(packet):
    payload = bytearray(packet.payload)
    payload[-1] ^= 0x10
    return Packet(bytes(payload), packet.frames, packet.checksum)


def breaks(frames):
    yield from frames
    raise OSError("the camera is gone")


COMPRESS = {
    "a source that breaks": (lambda: breaks(scene(3)), {}),
    "a source that breaks at once": (lambda: breaks([]), {}),
    "another size": (lambda: [*scene(3), torch.zeros(3, 8, 8), *scene(3)], {}),
    "not a number": (
        lambda: [*scene(3), torch.full((3, *SIZE), float("nan")), *scene(5)],
        {},
    ),
    "an intra period of 0": (lambda: scene(3), {"intra_period": 0}),
    "a scale that is not there": (lambda: scene(3), {"resync": lambda _: 5}),
    "nothing": (lambda: [], {}),
}


@pytest.mark.parametrize("case", COMPRESS)
def test_coding_ends_as_with_one_worker(codec, case):
    frames, options = COMPRESS[case]
    alone = outcome(codec.compress(frames(), LMBDA, **options))
    assert alone[1] is not None or case == "nothing"
    for number in (1, 3):
        pipeline = pipelined(codec, number)
        assert outcome(pipeline.compress(frames(), LMBDA, **options)) == alone


def test_a_rate_out_of_range_is_refused(codec):
    with pytest.raises(ValueError, match="lmbda"):
        list(pipelined(codec).compress(scene(1), 1.0))


DECOMPRESS = {
    "damaged": lambda p: [*p[:9], damaged(p[9]), *p[10:]],
    "damaged at once": lambda p: [damaged(p[0]), *p[1:]],
    "damaged twice": lambda p: [*p[:9], damaged(p[9]), *p[10:14], damaged(p[14])],
    "cut": lambda p: p[:10],
    "out of order": lambda p: [*p[:8], p[9], p[8], *p[10:]],
    "not the beginning": lambda p: p[4:],
    "a source that breaks": lambda p: breaks(p[:10]),
}


@pytest.mark.parametrize("case", DECOMPRESS)
def test_decoding_ends_as_with_one_worker(codec, case):
    packets, _ = expected(7, -1)
    change = DECOMPRESS[case]
    shown, ended, why = outcome(codec.decompress(change(packets), *SIZE))
    assert ended is not None
    for number in (1, 3):
        decoded = pipelined(codec, number).decompress(change(packets), *SIZE)
        frames, *end = outcome(decoded)
        assert end == [ended, why]
        assert same_frames(frames, shown)


def test_whatever_ends_a_worker_is_heard_of(codec):
    def leave(*_):
        raise SystemExit("somebody left")

    hook = codec.network.scale(3).register_forward_hook(leave)
    try:
        with pytest.raises(SystemExit, match="somebody left"):
            list(pipelined(codec).compress(scene(4), LMBDA))
    finally:
        hook.remove()


@pytest.mark.parametrize("close", [True, False])
def test_whoever_stops_early_ends_the_workers(codec, close):
    packets = pipelined(codec, 3).compress(scene(9), LMBDA)
    next(packets)
    assert len(workers()) == 3
    if close:
        packets.close()
    else:
        del packets
    assert workers() == []


def test_ctrl_c_ends_the_workers(codec):
    calls = count_up(1)

    def interrupt(*_):
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    hook = codec.network.scale(2).register_forward_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(pipelined(codec).compress(scene(40), LMBDA))
    finally:
        hook.remove()
    assert workers() == []
    assert next(calls) < 40


def test_ctrl_c_while_a_frame_is_read_is_not_put_off(codec):
    def frames():
        yield from scene(2)
        raise KeyboardInterrupt

    packets = pipelined(codec).compress(frames(), LMBDA)
    with pytest.raises(KeyboardInterrupt):
        next(packets)


def test_a_lost_first_packet_holds_up_no_worker(codec):
    packets = [None, *expected(2, -1)[0][1:]]
    shown = list(codec.decompress(packets, *SIZE))
    assert same_frames(list(pipelined(codec).decompress(packets, *SIZE)), shown)


def test_an_auxiliary_path_is_refused():
    with pytest.raises(ValueError, match="auxiliary: false"):
        pipelined(DHVCCodec("tiny"))


def test_no_workers_are_refused(codec):
    with pytest.raises(ValueError, match="at least one"):
        pipelined(codec, 0)
