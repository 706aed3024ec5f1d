"""Bytes made in a thread are those made at once, in order, and so are the errors."""

import threading
import time
from functools import partial

import pytest
import torch

from lightning_modules.clock import CodingClock, entropy_coding
from lightning_modules.entropy import transfers
from lightning_modules.entropy.symbols import OverflowingError
from lightning_modules.overlap import AHEAD, THREAD, Pending, overlapped
from lightning_modules.packets import Packet
from lightning_modules.ui2c.codec import UI2CCodec

CODECS = {
    "UI2C": {},
    "UI2C single": {"frames_per_unit": 1, "skip_threshold": 0.12},
    "UI2C divided": {"frames_per_unit": 1, "divided": True},
    "DHVC": {},
    "DualDomain": {"mode_decision": "inter", "numeric": "float32"},
    "DualDomain real": {"numeric": "float32"},
    "ScaleSpaceFlow": {},
    "VideoVAE": {"backbone": "lean_vae", "lpips": "random", "frames_per_unit": 5},
}


@pytest.fixture(scope="module", params=CODECS)
def codec(request, lively_module):
    name = request.param.split()[0]
    return lively_module(name, **CODECS[request.param]).codec.eval()


@pytest.fixture(scope="module")
def small(lively_module):
    return lively_module("UI2C").codec.eval()


def middle(codec):
    return codec.rate_knob.points[len(codec.rate_knob.points) // 2]


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith(THREAD)]


class Late:
    """Copies that hold nothing until somebody waits for them, as a GPU's do."""

    def __init__(self):
        self.waits = []
        self.sizes = []

    def __call__(self, flat):
        assert flat.dtype == torch.uint8 and flat.ndim == 1
        held, host = flat.clone(), torch.full_like(flat, 171)
        self.sizes.append(len(flat))

        def wait():
            self.waits.append(threading.current_thread().name)
            host.numpy()[:] = held.numpy()

        return host, wait


@pytest.fixture
def far(monkeypatch):
    """Let the processor be a device that symbols have to leave."""
    late = Late()
    monkeypatch.setitem(transfers.COPIES, "cpu", late)
    return late


def code(codec, frames, overlap, **options):
    codec.configure(overlap=overlap)
    packets = list(codec.compress(frames, middle(codec), reconstruct=True, **options))
    assert threads() == []
    return packets


def same(one, other):
    assert one == other
    for a, b in zip(one, other, strict=True):
        assert a.histograms == b.histograms
        # A sum over elements in another layout.
        assert a.estimated_bits == pytest.approx(b.estimated_bits, rel=1e-6)
        assert torch.equal(a.x_hat, b.x_hat)


def test_the_thread_makes_the_same_packets(codec, scene, far, monkeypatch):
    frames = scene(5, 40, 38)
    with monkeypatch.context() as near:
        near.delitem(transfers.COPIES, "cpu")
        plain = code(codec, frames, "off", intra_period=2 * codec.start_multiple)
        same(code(codec, frames, "on", intra_period=2 * codec.start_multiple), plain)
        shown = list(codec.decompress(plain, 40, 38))
    assert far.waits == []
    same(code(codec, frames, "on", intra_period=2 * codec.start_multiple), plain)
    decoded = list(codec.decompress(plain, 40, 38))
    assert all(map(torch.equal, decoded, shown))


def test_an_encoder_waits_once_a_unit_and_not_itself(small, scene, far):
    code(small, scene(6, 64, 64), "on")
    assert len(far.waits) == 3
    assert all(name.startswith(THREAD) for name in far.waits)
    # A byte each for value and table; flags and estimates are the rest.
    symbols = sum(small.network.symbols(4, 4).values())
    assert all(0 <= size - 2 * symbols < 64 for size in far.sizes)


def test_a_decoder_waits_once_a_latent(small, scene, far):
    packets = code(small, scene(6, 64, 64), "off")
    far.waits.clear()
    list(small.decompress(packets, 64, 64))
    # z, of which a real device is not asked (the head tells its tables), and two steps.
    assert len(far.waits) == 3 * len(packets)


def test_units_wait_within_a_bound():
    begun, made, entered = [], [], threading.Event()

    def units():
        for number in range(9):
            begun.append(number)
            yield Pending(partial(make, number))

    def make(number):
        entered.wait(5)
        made.append(number)
        return [Packet(bytes([number]), 1, 0), Packet(bytes([number]), 0, 0)]

    packets = overlapped(units())
    entered.set()
    got = [next(packets).payload[0] for _ in range(3)]
    assert got == [0, 0, 1]
    assert len(begun) <= 2 + AHEAD
    assert [packet.payload[0] for packet in packets] == [1, *sorted([*range(2, 9)] * 2)]
    assert begun == made == list(range(9)) and threads() == []


def test_networks_go_on_while_bytes_are_made():
    order = []

    def units():
        for number in range(4):
            order.append(f"networks {number}")
            if number == 2:
                going_on.set()
            yield Pending(partial(make, number))

    def make(number):
        # Ends only when a later unit has begun: at once it would never.
        assert going_on.wait(5)
        order.append(f"bytes {number}")
        return [Packet(b"", 1, 0)]

    going_on = threading.Event()
    assert len(list(overlapped(units()))) == 4
    assert order.index("networks 2") < order.index("bytes 0")


@pytest.mark.parametrize("where", ["networks", "bytes"])
def test_an_error_comes_after_the_packets_before_it(where):
    def fail():
        raise ValueError("broken")

    def units():
        for number in range(2):
            yield Packet(bytes([number]), 1, 0)
        if where == "networks":
            fail()
        yield Pending(fail)
        yield Pending(lambda: pytest.fail("nobody wants it"))

    got = []
    with pytest.raises(ValueError, match="broken"):
        got.extend(overlapped(units()))
    packets = overlapped(units())
    assert [next(packets).payload[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(packets)
    assert threads() == []


@pytest.mark.parametrize("how", ["close", "interrupt", "drop"])
def test_the_thread_ends_with_its_caller(small, scene, how):
    def frames():
        yield from scene(9, 32, 32)
        raise KeyboardInterrupt

    small.configure(overlap="on")
    packets = small.compress(frames(), 21)
    next(packets)
    assert threads()
    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            list(packets)
    elif how == "close":
        packets.close()
    del packets
    assert threads() == []


@pytest.mark.parametrize("device", ["host", "far"])
def test_what_overflows_is_said_as_without_a_thread(small, scene, monkeypatch, device):
    calls = []

    def spoil(module, inputs, output):
        calls.append(None)
        return output * (float("nan") if len(calls) == 3 else 1)

    def outcome(overlap):
        calls.clear()
        small.configure(overlap=overlap)
        got = []
        with pytest.raises(OverflowingError) as raised:
            for packet in small.compress(scene(8, 32, 32), 21):
                got.append(packet)
        return str(raised.value), got

    hook = small.network.decoder.register_forward_hook(spoil)
    try:
        plain = outcome("off")
        if device == "far":
            monkeypatch.setitem(transfers.COPIES, "cpu", Late())
        assert outcome("on") == plain
    finally:
        hook.remove()
    assert plain[0].startswith("frame 4 holds NaN") and len(plain[1]) == 2


@pytest.mark.parametrize("option", ["rate_at", "resync"])
def test_answers_that_may_depend_on_packets_are_asked_in_time(
    lively_module, scene, option
):
    codec = lively_module("DHVC").codec.eval()
    codec.configure(overlap="on")
    asked = []
    answers = {"rate_at": lambda n: asked.append(n) or 512.0}
    answers["resync"] = lambda n: asked.append(n) or 0
    packets = codec.compress(scene(6, 64, 64), 512.0, **{option: answers[option]})
    for _ in range(codec.scales):
        next(packets)
    packets.close()
    assert max(asked, default=0) == 0


def test_on_a_processor_it_is_off_unless_asked_for(small):
    small.configure(overlap="auto")
    assert not small.overlaps
    small.configure(overlap="on")
    assert small.overlaps
    with pytest.raises(ValueError, match=r"overlap 'maybe' is unknown: choose from"):
        small.configure(overlap="maybe")
    assert UI2CCodec("tiny").execution.overlap == "auto"


def test_a_thread_that_works_while_nobody_counts_is_counted(monkeypatch):
    """With networks of 3 s, bytes of 5 s and a slow reader: bytes set the pace."""
    made = [threading.Event() for _ in range(6)]
    now = threading.local()
    monkeypatch.setattr(time, "perf_counter", lambda: getattr(now, "seconds", 0.0))

    def spend(seconds):
        now.seconds = getattr(now, "seconds", 0.0) + seconds

    def make(number):
        entropy_coding(spend)(5)
        made[number].set()
        return [Packet(b"", 1, 0)]

    def units():
        for number in range(6):
            spend(3)
            yield Pending(partial(make, number))

    clock = CodingClock(torch.device("cpu"))
    for number, _ in enumerate(clock.watch(overlapped(units()))):
        assert made[number].is_set()
        # Long enough for all bytes.
        spend(1000)
    # The first unit's networks, then one unit's bytes after the other's.
    assert clock.seconds == pytest.approx(3 + 6 * 5)
    assert clock.entropy_seconds == pytest.approx(6 * 5)
    assert clock.network_seconds == pytest.approx(6 * 3)
