"""Streams of few bytes that claim large frames are refused before networks run."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_modules
from lightning_modules.entropy import rans
from lightning_modules.entropy.ports import DecodePort
from lightning_modules.entropy.symbols import SymbolEncoder
from lightning_modules.packets import DesyncError

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LARGE = 4096, 8192
"""A frame of which has 384 MiB."""
CODECS = [(name, {}) for name in lightning_modules.CODECS]
CODECS += [("UI2C", {"frames_per_unit": 1, "divided": True})]
needs_linux = pytest.mark.skipif(
    not RESET.exists(), reason="Linux tells the peak of memory"
)


def memory(name):
    """Return one of this process's figures of memory, in MiB."""
    return int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1]) // 1024


@pytest.fixture
def coded(lively_module):
    """Return a tiny codec with two small frames as packets."""

    def code(name, **arguments):
        codec = lively_module(name, size="tiny", **arguments).codec.eval()
        clip = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return codec, list(codec.compress(clip, codec.rate_knob.points[0]))

    return code


def assert_refused(codec, packets, sizes, message):
    """Decode them as frames of other sizes; errors must come before memory is taken."""
    # Writing 5 sets the peak back to what is used now.
    RESET.write_text("5")
    before = memory("VmRSS")
    for size in sizes:
        with pytest.raises(DesyncError, match=message):
            list(codec.decompress(packets, *size))
    grown = memory("VmHWM") - before
    assert grown < 200, f"{grown} MiB"


@needs_linux
@pytest.mark.parametrize(("name", "arguments"), CODECS)
def test_few_bytes_that_claim_large_frames_take_little_memory(coded, name, arguments):
    codec, packets = coded(name, **arguments)
    assert len(list(codec.decompress(packets, 64, 64))) == 2
    assert_refused(codec, packets, [LARGE, (2048, 2048)], r"were asked for|ends")


@needs_linux
@pytest.mark.parametrize(
    ("name", "arguments"), [each for each in CODECS if each[0] != "DHVC"]
)
def test_a_crafted_hyper_latent_is_too_little_for_a_large_latent(
    coded, monkeypatch, name, arguments
):
    """Its values are the most probable ones, and nothing follows them."""
    codec, (packet, *_) = coded(name, **arguments)
    seen = {}

    class Reader(rans.Reader):
        def __init__(self, data):
            super().__init__(data)
            seen["stream"] = len(data)

        def read(self, rows, tables):
            seen.setdefault("first", (np.unique(rows), tables))
            return super().read(rows, tables)

    def expect(port, counts):
        seen["count"] = next(iter(counts.values()))
        raise ValueError("told")

    with monkeypatch.context() as patch:
        patch.setattr(rans, "Reader", Reader)
        next(codec.decompress([packet], 64, 64))
        patch.setattr(DecodePort, "expect", expect)
        with pytest.raises(DesyncError, match="told"):
            next(codec.decompress([packet], *LARGE))
        # As if all symbols followed.
        patch.setattr(rans, "MANY", 1)
        rows, tables = seen["first"]
        rows = np.repeat(rows, seen["count"] // len(rows))
        encoder = SymbolEncoder()
        cheapest = np.diff(tables.cdf, axis=1).argmax(1) + tables.offset
        encoder.push(cheapest[rows], rows, tables)
        head = packet.payload[: len(packet.payload) - seen["stream"]]
        bomb = replace(packet, payload=head + encoder.finish())
    assert_refused(codec, [bomb], [LARGE], r"\d more values take \d+ bytes at least")


@pytest.mark.parametrize(("name", "arguments"), CODECS)
def test_what_is_expected_is_what_is_read(coded, monkeypatch, name, arguments):
    codec, packets = coded(name, **arguments)
    ports, expect = [], DecodePort.expect

    def note(port, counts):
        ports.append(port)
        expect(port, counts)
        assert port.expected.total() > 0

    monkeypatch.setattr(DecodePort, "expect", note)
    list(codec.decompress(packets, 64, 64))
    assert len(ports) == len(packets)
    assert not any(any(port.expected.values()) for port in ports)
