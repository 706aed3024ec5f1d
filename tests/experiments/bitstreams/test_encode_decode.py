"""The commands encode and decode: what they write, print, verify and accept."""

import re
import weakref
from fractions import Fraction

import pytest
import torch

import lightning_modules
from encode_decode_samples import (
    SIZE,
    ZipCodec,
    make_out,
    only_error,
    random_frames,
    read,
    replace_loading,
    run_decode,
    run_encode,
    verify_in_process,
    write_source,
    write_stream,
)
from experiments import decode
from experiments.bitstreams import coding_mode, encoding
from lightning_modules.bitstream import BitstreamReader


@pytest.fixture(autouse=True)
def codec(monkeypatch):
    return replace_loading(monkeypatch)


@pytest.fixture
def frames():
    return random_frames()


@pytest.fixture
def source(tmp_path, frames):
    return write_source(tmp_path, frames)


@pytest.fixture
def out(tmp_path):
    return make_out(tmp_path)


@pytest.fixture
def stream(source):
    return write_stream(source)


@pytest.fixture
def in_process(monkeypatch, capsys):
    return verify_in_process(monkeypatch, capsys)


def test_what_is_encoded_decodes_to_the_same_frames(stream, out, frames, capsys):
    assert run_decode(stream, out / "frames") == 0
    assert torch.equal(read(out / "frames"), frames)
    line = capsys.readouterr().out.splitlines()[-1]
    nbytes = stream.stat().st_size
    assert f"5 frames of 7x5, {nbytes} bytes, {8 * nbytes / 175:.4f} bpp" in line
    assert f"{8 * nbytes * 25 / 5 / 1000:.1f} kbps" in line
    assert re.search(r"\d frames/s, \d+\.\d s$", line)
    assert [p.name for p in out.iterdir()] == ["frames"]


def test_the_header_says_how_it_was_encoded(source, out):
    assert (
        run_encode(source, out / "v.lvc", "--dtype=bfloat16", "--fps=30000/1001") == 0
    )
    with (out / "v.lvc").open("rb") as file:
        header = BitstreamReader(file).header
    assert (header.codec, header.dtype, header.device) == (
        "ZipCodec",
        "bfloat16",
        "cpu",
    )
    assert (header.height, header.width, header.rate) == (*SIZE, 9)
    assert header.fps == Fraction(30000, 1001)
    assert header.fingerprint == ZipCodec().fingerprint()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_decoding_follows_the_encoders_dtype(source, out, monkeypatch, dtype):
    run_encode(source, out / "v.lvc", f"--dtype={dtype}")
    seen = []

    def load_codec(path, device, dtype):
        seen.append(dtype)
        return ZipCodec().eval()

    monkeypatch.setattr(lightning_modules, "load_codec", load_codec)
    assert run_decode(out / "v.lvc", out / "v.y4m") == 0
    assert seen == [getattr(torch, dtype)]


def test_max_frames_stops_early(source, out):
    assert run_encode(source, out / "v.lvc", "--max_frames=3") == 0
    assert run_decode(out / "v.lvc", out / "v.yuv") == 0
    assert (out / "v.yuv").stat().st_size == 3 * (35 + 2 * 12)


def test_raw_video_is_encoded_with_its_size_and_rate(out, capsys):
    raw = out / "v.yuv"
    raw.write_bytes(bytes(range(59)) * 2)
    options = ["--size=7x5", "--fps=50"]
    assert run_encode(raw, out / "v.lvc", *options) == 0
    assert "2 frames of 7x5" in capsys.readouterr().out
    assert run_encode(raw, out / "again.lvc") == 2
    assert "give both" in only_error(capsys)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m"])
def test_every_kind_of_video_can_be_written(stream, out, suffix, frames):
    assert run_decode(stream, out / f"v{suffix}") == 0
    assert read(out / f"v{suffix}").shape == frames.shape


def test_verify_reports_psnr_if_all_frames_are_equal(source, out, in_process, capsys):
    assert run_encode(source, out / "v.lvc", "--verify") == 0
    assert "PSNR 99.90 dB" in capsys.readouterr().out
    assert [p.name for p in out.iterdir()] == ["v.lvc"]


def test_verify_refuses_a_decoder_that_differs(
    source, out, in_process, monkeypatch, capsys
):
    def decompress(self, packets, height, width, *, scales):
        for packet in packets:
            yield from torch.zeros(packet.frames, 3, height, width)

    monkeypatch.setattr(ZipCodec, "decompress", decompress)
    assert run_encode(source, out / "v.lvc", "--verify") == 2
    assert "decoded frames differ" in only_error(capsys)
    assert list(out.iterdir()) == []


def test_verify_refuses_a_decoder_that_fails(source, out, codec, in_process, capsys):
    codec["drift"] = 1
    assert run_encode(source, out / "v.lvc", "--verify") == 2
    assert "verification failed" in only_error(capsys)
    assert list(out.iterdir()) == []


def test_the_verifying_process_starts_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no file or directory"):
        encoding._verify(tmp_path / "no.lvc", tmp_path / "no.ckpt", "cpu", "")


def test_memory_does_not_grow_with_the_number_of_frames(out, monkeypatch):
    alive = weakref.WeakSet()
    most = 0

    class Endless:
        width, height, fps, frames = 7, 5, Fraction(25), 100

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __iter__(self):
            nonlocal most
            for _ in range(100):
                frame = torch.rand(3, *SIZE)
                alive.add(frame)
                most = max(most, len(alive))
                yield frame

    monkeypatch.setattr("datamodules.frames.open_video", lambda *_, **__: Endless())
    (out / "v.any").touch()
    assert run_encode(out / "v.any", out / "v.lvc") == 0
    assert most <= 2 * ZipCodec.frames_per_unit


def test_coding_mode_restores_what_it_changed():
    before = torch.backends.cudnn.deterministic
    with coding_mode.coding_mode(torch.device("cpu")):
        assert torch.is_inference_mode_enabled()
    with coding_mode.coding_mode(torch.device("cuda")):
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_inference_mode_enabled()
    assert torch.backends.cudnn.deterministic == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    "option", ["--size=7", "--size=axb", "--fps=fast", "--fps=1/0", "--dtype=int8"]
)
def test_a_malformed_option_is_explained(source, out, option, capsys):
    with pytest.raises(SystemExit) as caught:
        run_encode(source, out / "v.lvc", option)
    assert caught.value.code == 2
    assert option.split("=")[1] in capsys.readouterr().err


def test_decode_needs_something_to_do(stream, capsys):
    assert decode.main([str(stream), "--checkpoint=c"]) == 2
    assert "give OUT, or --hash" in capsys.readouterr().err
