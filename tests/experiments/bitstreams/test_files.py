"""Coding to a file and back, for those who do it without the commands."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from experiments.bitstreams.files import (
    StreamDecoder,
    StreamEncoder,
    load_decoder,
    open_stream,
)
from lightning_modules import clock
from lightning_modules.bitstream import StreamHeader
from lightning_modules.entropy import rans
from lightning_modules.numerics import current
from lightning_modules.ui2c.codec import UI2CCodec

SIZE = (32, 48)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(3)
    codec = UI2CCodec("tiny").eval().requires_grad_(False)
    # Of random weights, latents are too small to have anything to code.
    codec.network.encoder_down.weight *= 4
    return codec


@pytest.fixture
def frames():
    return torch.rand(5, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def header(codec, rate=42.0):
    return StreamHeader(
        codec="UI2CCodec",
        fingerprint=codec.fingerprint(),
        width=SIZE[1],
        height=SIZE[0],
        fps=Fraction(25),
        rate=rate,
        numerics=current(),
    )


@pytest.fixture
def coded(codec, frames, tmp_path):
    path = tmp_path / "v.lvc"
    return StreamEncoder(codec, header(codec), frames, path, reconstruct=True).run()


def test_the_decoder_has_the_digest_of_the_encoders_reconstruction(
    codec, coded, tmp_path
):
    with open_stream(tmp_path / "v.lvc") as reader:
        decoder = StreamDecoder(codec, reader)
        decoded = torch.stack(list(decoder))
    assert decoder.digest == coded.digest
    assert (decoder.frames, decoder.stopped) == (5, None)
    assert decoded.shape == (5, 3, *SIZE)


def test_the_encoder_gives_the_reconstruction_in_order(codec, coded, frames, tmp_path):
    path = tmp_path / "again.lvc"
    again = StreamEncoder(codec, header(codec), frames, path, reconstruct=True)
    shown = list(again)
    with open_stream(tmp_path / "v.lvc") as reader:
        decoded = list(StreamDecoder(codec, reader))
    assert torch.equal(torch.stack(shown), torch.stack(decoded))
    assert again.digest == coded.digest
    assert again.estimated_bits == coded.estimated_bits
    assert (tmp_path / "again.lvc").read_bytes() == (tmp_path / "v.lvc").read_bytes()


def test_reconstructing_changes_no_byte(codec, coded, frames, tmp_path):
    plain = StreamEncoder(codec, header(codec), frames, tmp_path / "plain.lvc")
    assert list(plain) == []
    assert (tmp_path / "plain.lvc").read_bytes() == (tmp_path / "v.lvc").read_bytes()
    assert plain.digest is None
    assert plain.estimated_bits is None
    assert plain.frame_bits == coded.frame_bits


def test_frames_share_their_units_bytes_and_only_header_and_end_are_left(
    codec, coded, tmp_path
):
    data = (tmp_path / "v.lvc").read_bytes()
    assert coded.nbytes == len(data)
    a, b, c, d, e = coded.frame_bits
    assert a == b != c == d != e
    units = []
    with open_stream(tmp_path / "v.lvc") as reader:
        for unit in reader:
            lengths = 1 + (len(unit.payload) > 127) + 1  # Two varints.
            units.append(8 * (1 + lengths + 4 + 2 + len(unit.payload) + 4))
    assert [2 * a, 2 * c, e] == units
    overhead = len(header(codec).to_bytes()) + 1 + 1 + 4
    assert coded.nbytes == overhead + sum(coded.frame_bits) / 8


def test_a_trial_has_the_size_of_the_file_without_its_reconstruction(
    codec, coded, frames, tmp_path, monkeypatch
):
    asked = []
    compress = codec.compress

    def watched(*given, reconstruct, **more):
        asked.append(reconstruct)
        return compress(*given, reconstruct=reconstruct, **more)

    monkeypatch.setattr(codec, "compress", watched)
    trial = tmp_path / "trial.lvc"
    sizes = {
        StreamEncoder(codec, header(codec), frames, trial, trial=it).run().nbytes
        for it in (True, False)
    }
    assert sizes == {coded.nbytes} and asked == [False, True]


def test_estimated_bits_are_near_the_real_ones(coded):
    assert coded.estimated_bits == pytest.approx(sum(coded.frame_bits), rel=0.2)


def test_seconds_have_two_parts_on_both_sides(codec, coded, tmp_path):
    with open_stream(tmp_path / "v.lvc") as reader:
        decoder = StreamDecoder(codec, reader)
        totals = [(decoder.seconds["decode"], decoder.frames) for _ in decoder]
    assert all(a < b for a, b in pairwise(totals))
    for name, seconds in (("encode", coded.seconds), ("decode", decoder.seconds)):
        assert set(seconds) == {name, f"{name}_network", f"{name}_entropy"}
        assert all(value > 0 for value in seconds.values())
        parts = seconds[f"{name}_network"] + seconds[f"{name}_entropy"]
        assert parts == pytest.approx(seconds[name])


@pytest.fixture
def now(monkeypatch):
    """Time that passes only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    return now


def test_what_gives_and_takes_frames_needs_none_of_the_codecs_time(
    codec, frames, tmp_path, now
):
    def slowly(items):
        for item in items:
            now[0] += 1
            yield item

    class SlowReader:
        def __init__(self, reader):
            self.header = reader.header
            self.reader = reader

        @property
        def frames(self):
            return self.reader.frames

        def __iter__(self):
            return slowly(self.reader)

    path = tmp_path / "v.lvc"
    source = slowly(frames)
    coded = StreamEncoder(codec, header(codec), source, path, reconstruct=True)
    for _ in slowly(coded):
        pass
    with open_stream(path) as reader:
        decoder = StreamDecoder(codec, SlowReader(reader))
        for _ in slowly(decoder):
            pass
    assert now[0] == 5 + 5 + 3 + 5
    assert {*coded.seconds.values(), *decoder.seconds.values()} == {0.0}


def test_all_that_coding_symbols_takes_is_the_entropy_coders_time(
    codec, frames, tmp_path, now, monkeypatch
):
    calls = []

    def slow(name, function):
        def run(*arguments, **options):
            now[0] += 1
            calls.append(name)
            return function(*arguments, **options)

        return run

    for owner, name in (
        (rans, "block_of"),
        (rans, "encode"),
        (rans.Reader, "read"),
        (rans.Reader, "finish"),
    ):
        monkeypatch.setattr(owner, name, slow(name, getattr(owner, name)))
    path = tmp_path / "v.lvc"
    seconds = StreamEncoder(codec, header(codec), frames, path).run().seconds
    assert set(calls) == {"block_of", "encode"}
    assert seconds["encode_entropy"] == seconds["encode"] == len(calls)
    calls.clear()
    with open_stream(path) as reader:
        decoder = StreamDecoder(codec, reader)
        list(decoder)
    assert set(calls) == {"read", "finish"}
    assert decoder.seconds["decode_entropy"] == len(calls)
    assert decoder.seconds["decode_network"] == 0


def test_a_damaged_stream_is_an_error_with_its_name(codec, coded, tmp_path):
    path = tmp_path / "v.lvc"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"v\.lvc: the file ends at byte"):
        with open_stream(path) as reader:
            list(StreamDecoder(codec, reader))
    with open_stream(path) as reader:
        decoder = StreamDecoder(codec, reader, partial=True, hashing=False)
        assert len(list(decoder)) == decoder.frames == 4
    assert "unit 2" in decoder.stopped


def test_another_checkpoints_weights_are_refused(codec, coded, tmp_path, monkeypatch):
    import lightning_modules

    other = UI2CCodec("tiny").eval()
    monkeypatch.setattr(lightning_modules, "load_codec", lambda *_, **__: other)
    with open_stream(tmp_path / "v.lvc") as reader:
        with pytest.raises(ValueError, match=other.fingerprint().hex()):
            load_decoder(reader.header, tmp_path / "c.ckpt", torch.device("cpu"))
