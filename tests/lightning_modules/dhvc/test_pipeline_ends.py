"""Several workers end as one does: after errors, when stopped, on Ctrl-C."""

import os
import signal
import threading
from itertools import count as count_up

import pytest
import torch

from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.packets import Packet


def workers():
    return [t.name for t in threading.enumerate() if t.name.startswith("pipeline")]


def damaged(packet):
    payload = bytearray(packet.payload)
    payload[-1] ^= 0x10
    return Packet(bytes(payload), packet.frames, packet.checksum)


def breaks(frames):
    yield from frames
    raise OSError("the camera is gone")


COMPRESS = {
    "a source that breaks": (lambda scene: breaks(scene(3)), {}),
    "a source that breaks at once": (lambda scene: breaks([]), {}),
    "another size": (
        lambda scene: [*scene(3), torch.zeros(3, 8, 8), *scene(3)],
        {},
    ),
    "not a number": (
        lambda scene: [*scene(3), scene(1)[0] * float("nan"), *scene(5)],
        {},
    ),
    "an intra period of 0": (lambda scene: scene(3), {"intra_period": 0}),
    "a scale that is not there": (lambda scene: scene(3), {"resync": lambda _: 5}),
    "nothing": (lambda scene: [], {}),
}


@pytest.mark.parametrize("case", COMPRESS)
def test_coding_ends_as_with_one_worker(dhvc, codec, case):
    frames, options = COMPRESS[case]
    alone = dhvc.outcome(codec.compress(frames(dhvc.scene), dhvc.LMBDA, **options))
    assert alone[1] is not None or case == "nothing"
    for number in (1, 3):
        pipeline = dhvc.pipelined(codec, number)
        assert (
            dhvc.outcome(pipeline.compress(frames(dhvc.scene), dhvc.LMBDA, **options))
            == alone
        )


def test_a_rate_out_of_range_is_refused(dhvc, codec):
    with pytest.raises(ValueError, match="lmbda"):
        list(dhvc.pipelined(codec).compress(dhvc.scene(1), 1.0))


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
def test_decoding_ends_as_with_one_worker(dhvc, expected, codec, case):
    packets, _ = expected(7, -1)
    change = DECOMPRESS[case]
    shown, ended, why = dhvc.outcome(codec.decompress(change(packets), *dhvc.SIZE))
    assert ended is not None
    for number in (1, 3):
        decoded = dhvc.pipelined(codec, number).decompress(change(packets), *dhvc.SIZE)
        frames, *end = dhvc.outcome(decoded)
        assert end == [ended, why]
        assert dhvc.same_frames(frames, shown)


def test_whatever_ends_a_worker_is_heard_of(dhvc, codec):
    def leave(*_):
        raise SystemExit("somebody left")

    hook = codec.network.scale(3).register_forward_hook(leave)
    try:
        with pytest.raises(SystemExit, match="somebody left"):
            list(dhvc.pipelined(codec).compress(dhvc.scene(4), dhvc.LMBDA))
    finally:
        hook.remove()


@pytest.mark.parametrize("close", [True, False])
def test_whoever_stops_early_ends_the_workers(dhvc, codec, close):
    packets = dhvc.pipelined(codec, 3).compress(dhvc.scene(9), dhvc.LMBDA)
    next(packets)
    assert len(workers()) == 3
    if close:
        packets.close()
    else:
        del packets
    assert workers() == []


def test_ctrl_c_ends_the_workers(dhvc, codec):
    calls = count_up(1)

    def interrupt(*_):
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    hook = codec.network.scale(2).register_forward_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(dhvc.pipelined(codec).compress(dhvc.scene(40), dhvc.LMBDA))
    finally:
        hook.remove()
    assert workers() == []
    assert next(calls) < 40


def test_ctrl_c_while_a_frame_is_read_is_not_put_off(dhvc, codec):
    def frames():
        yield from dhvc.scene(2)
        raise KeyboardInterrupt

    packets = dhvc.pipelined(codec).compress(frames(), dhvc.LMBDA)
    with pytest.raises(KeyboardInterrupt):
        next(packets)


def test_a_lost_first_packet_holds_up_no_worker(dhvc, expected, codec):
    packets = [None, *expected(2, -1)[0][1:]]
    shown = list(codec.decompress(packets, *dhvc.SIZE))
    decoded = list(dhvc.pipelined(codec).decompress(packets, *dhvc.SIZE))
    assert dhvc.same_frames(decoded, shown)


def test_an_auxiliary_path_is_refused(dhvc):
    with pytest.raises(ValueError, match="auxiliary: false"):
        dhvc.pipelined(DHVCCodec("tiny"))


def test_no_workers_are_refused(dhvc, codec):
    with pytest.raises(ValueError, match="at least one"):
        dhvc.pipelined(codec, 0)
