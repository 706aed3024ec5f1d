"""Several workers overlap, wait for what they refer to, and keep no more than that."""

import gc
import threading
import weakref
from collections import Counter

import pytest

from lightning_modules.dhvc.workers import Handover

PATIENCE = 30.0
"""Seconds until a test fails that should not have to wait."""


def worker():
    """Return the number of the worker that this is."""
    return int(threading.current_thread().name.split()[-1])


class Gate:
    """Holds the first frame before a scale until the second has done another."""

    def __init__(self, codec, hold, until):
        self.opened = threading.Event()
        self.in_time = None

        def before(*_):
            if worker() == 0 and self.in_time is None:
                self.in_time = self.opened.wait(PATIENCE)

        def after(*_):
            if worker() == 1:
                self.opened.set()

        network = codec.network
        self.hooks = [
            network.scale(hold).register_forward_pre_hook(before),
            network.scale(until).register_forward_hook(after),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


@pytest.mark.parametrize("decode", [False, True])
def test_a_frame_begins_before_the_one_before_it_is_done(dhvc, expected, codec, decode):
    packets, _ = expected(7, -1)
    pipeline = dhvc.pipelined(codec)
    with Gate(codec, hold=4, until=3) as gate:
        if decode:
            list(pipeline.decompress(packets, *dhvc.SIZE))
        else:
            list(pipeline.compress(dhvc.scene(7), dhvc.LMBDA))
    assert gate.in_time


@pytest.mark.parametrize("decode", [False, True])
def test_a_scale_that_begins_too_early_gives_other_bytes(
    dhvc, expected, codec, monkeypatch, decode
):
    missed = Counter()

    def take_at_once(self, device):
        while missed[self] and not self.empty():
            self.get()
            missed[self] -= 1
        if not self.empty():
            return self.get() or ()
        missed[self] += 1
        gate.opened.set()
        return ()

    packets, shown = expected(7, -1)
    monkeypatch.setattr(Handover, "take", take_at_once)
    pipeline = dhvc.pipelined(codec)
    with Gate(codec, hold=2, until=4) as gate:
        if decode:
            frames, ended, _ = dhvc.outcome(pipeline.decompress(packets, *dhvc.SIZE))
            assert ended is not None or not dhvc.same_frames(frames, shown)
        else:
            assert list(pipeline.compress(dhvc.scene(7), dhvc.LMBDA)) != packets
    assert gate.in_time


def test_a_start_without_references_waits_for_nobody(dhvc, codec):
    # The second frame would wait for the first one's scale 1, which waits for it.
    pipeline = dhvc.pipelined(codec)
    with Gate(codec, hold=1, until=4) as gate:
        list(pipeline.compress(dhvc.scene(2), dhvc.LMBDA, intra_period=1))
    assert gate.in_time


def test_no_more_frames_are_taken_than_announced(dhvc, codec):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield from dhvc.scene(1)

    pipeline = dhvc.pipelined(codec, 3)
    packets = pipeline.compress(endless(), dhvc.LMBDA)
    for given in range(4):
        for _ in range(codec.scales):
            next(packets)
        assert taken <= given + pipeline.ahead == given + 5
    packets.close()


def test_nothing_of_older_frames_is_kept(dhvc, codec):
    features = {}

    def remember(module, inputs, output):
        frame = 2 * len([n for n in features if n % 2 == worker()]) + worker()
        features[frame] = weakref.ref(output[1][0])

    hook = codec.network.scale(3).register_forward_hook(remember)
    packets = dhvc.pipelined(codec).compress(dhvc.scene(16), dhvc.LMBDA)
    for _ in range(12 * codec.scales):
        next(packets)
    hook.remove()
    # Frame 11 came last: it refers to frames 9 and 10, and frame 10 to frame 8.
    gc.collect()
    assert [number for number in range(8) if features[number]() is not None] == []
    packets.close()
