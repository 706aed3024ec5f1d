"""Coding is exact whatever the process allows to training, and leaves that alone."""

import threading
from contextlib import nullcontext

import pytest
import torch

from lightning_modules import float32
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.float32 import allow, exact, in_float32, restored
from lightning_modules.ui2c.codec import UI2CCodec

EXACT = ("highest", False, False, False)


def allowed():
    """What the process allows: TF32 in products and convolutions, timing, autocast."""
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.is_autocast_enabled("cpu"),
    )


@pytest.fixture(autouse=True)
def _tf32():
    """Allow all of it, as training may."""
    with restored(), torch.autocast("cpu", dtype=torch.bfloat16):
        allow("high", benchmark=True)
        yield


@pytest.fixture(scope="module")
def clip():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def watched(codec, monkeypatch):
    """Note what is allowed while a codec computes; return the notes."""
    seen = []
    for method in ("_compress", "_receive"):
        steps = getattr(codec, method)

        def noting(*args, steps=steps, **kwargs):
            seen.append(allowed())
            for item in steps(*args, **kwargs):
                seen.append(allowed())
                yield item
            seen.append(allowed())

        monkeypatch.setattr(codec, method, noting)
    return seen


def code(codec, clip):
    """Code and decode, and look at what the caller may do in between."""
    mine = allowed()
    packets = []
    for packet in codec.compress(clip, 21):
        assert allowed() == mine
        packets.append(packet)
    for _ in codec.decompress(packets, 32, 32):
        assert allowed() == mine
    assert allowed() == mine == ("high", True, True, True)


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return UI2CCodec("tiny").eval()


def test_packets_are_made_and_read_exactly(codec, clip, monkeypatch):
    seen = watched(codec, monkeypatch)
    code(codec, clip)
    assert set(seen) == {EXACT}


def test_without_the_context_it_would_be_seen(codec, clip, monkeypatch):
    monkeypatch.setattr(float32, "exact", lambda device: nullcontext())
    seen = watched(codec, monkeypatch)
    code(codec, clip)
    assert EXACT not in seen


def test_packets_are_those_of_a_process_that_allows_nothing(codec, clip):
    with exact():
        own = [packet.payload for packet in codec.compress(clip, 21)]
    assert own == [packet.payload for packet in codec.compress(clip, 21)]


def test_who_stops_amid_a_clip_gets_its_settings_back(codec, clip):
    mine = allowed()
    packets = codec.compress(clip, 21)
    next(packets)
    packets.close()
    assert allowed() == mine
    with pytest.raises(ValueError, match="rate 99"):
        next(codec.compress(clip, 99))
    assert allowed() == mine


def test_workers_go_on_exactly_while_the_caller_has_the_process(clip):
    codec = DHVCCodec("tiny", auxiliary=False).eval()
    codec.configure(pipeline=2)
    packets = codec.compress(clip, 512)
    next(packets)
    assert allowed()[:3] == EXACT[:3]
    packets.close()
    assert allowed()[:3] == ("high", True, True)


def test_the_last_of_several_threads_restores():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with exact():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with exact():
        thread.start()
        inside.wait()
    assert allowed()[:3] == EXACT[:3]
    leave.set()
    thread.join()
    assert allowed()[:3] == ("high", True, True)


@pytest.mark.parametrize("kernels", ["cuda.matmul", "cudnn.conv", "mkldnn.matmul", ""])
def test_what_was_set_torchs_newer_way_is_held_and_restored(kernels):
    place = torch.backends
    for name in kernels.split(".") if kernels else []:
        place = getattr(place, name)
    with restored():
        place.fp32_precision = "tf32"
        with exact():
            inside = [each.fp32_precision for each in float32._kernels()]
            assert set(inside) <= {"ieee", "none"}
        assert place.fp32_precision == "tf32"
        place.fp32_precision = "none" if not kernels else "ieee"


def test_half_precision_of_its_own_has_no_islands():
    layer = torch.nn.Linear(2, 2).bfloat16()
    x = torch.ones(1, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", enabled=False):
        assert in_float32(layer, x).dtype == torch.bfloat16


def test_integer_networks_compute_exactly_in_training_too(codec, clip, monkeypatch):
    codec.configure(arithmetic="integer")
    seen = []
    units = UI2CCodec._units

    def noting(*args, **kwargs):
        seen.append(allowed())
        return units(*args, **kwargs)

    monkeypatch.setattr(UI2CCodec, "_units", noting)
    with torch.no_grad():
        own = codec(clip[None], torch.tensor([21]))
    with exact(), torch.no_grad():
        expected = codec(clip[None], torch.tensor([21]))
    assert seen == [EXACT, EXACT] and torch.equal(own.bits, expected.bits)
