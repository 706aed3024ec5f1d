"""The commands encode and decode: what they write, print, verify and accept."""

import os
import re
import weakref
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

import lightning_modules
from experiments import decode
from experiments.bitstreams import coding_mode, encoding
from experiments.bitstreams.files import open_stream
from lightning_modules.bitstream import BitstreamReader

pytestmark = pytest.mark.usefixtures("codec")


def test_what_is_encoded_decodes_to_the_same_frames(
    commands, stream, out, frames, capsys
):
    assert commands.decode(stream, out / "frames") == 0
    assert torch.equal(commands.read(out / "frames"), frames)
    line = capsys.readouterr().out.splitlines()[-1]
    nbytes = stream.stat().st_size
    assert f"5 frames of 7x5, {nbytes} bytes, {8 * nbytes / 175:.4f} bpp" in line
    assert f"{8 * nbytes * 25 / 5 / 1000:.1f} kbps" in line
    assert re.search(r"\d frames/s, \d+\.\d s, checked$", line)
    assert [p.name for p in out.iterdir()] == ["frames"]


def test_the_header_says_how_it_was_encoded(zip_codec, commands, source, out):
    assert (
        commands.encode(source, out / "v.lvc", "--dtype=bfloat16", "--fps=30000/1001")
        == 0
    )
    with (out / "v.lvc").open("rb") as file:
        header = BitstreamReader(file).header
    assert (header.codec, header.dtype, header.device) == (
        "ZipCodec",
        "bfloat16",
        "cpu",
    )
    assert (header.height, header.width, header.rate) == (5, 7, 9)
    assert header.fps == Fraction(30000, 1001)
    assert header.fingerprint == zip_codec().fingerprint()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_decoding_follows_the_encoders_dtype(
    zip_codec, commands, source, out, monkeypatch, dtype
):
    commands.encode(source, out / "v.lvc", f"--dtype={dtype}")
    seen = []

    def load_codec(path, device, dtype):
        seen.append(dtype)
        return zip_codec().eval()

    monkeypatch.setattr(lightning_modules, "load_codec", load_codec)
    assert commands.decode(out / "v.lvc", out / "v.y4m") == 0
    assert seen == [getattr(torch, dtype)]


def test_max_frames_stops_early(commands, source, out):
    assert commands.encode(source, out / "v.lvc", "--max_frames=3") == 0
    assert commands.decode(out / "v.lvc", out / "v.yuv") == 0
    assert (out / "v.yuv").stat().st_size == 3 * (35 + 2 * 12)


def test_raw_video_is_encoded_with_its_size_and_rate(only_error, commands, out, capsys):
    raw = out / "v.yuv"
    raw.write_bytes(bytes(range(59)) * 2)
    options = ["--size=7x5", "--fps=50"]
    assert commands.encode(raw, out / "v.lvc", *options) == 0
    assert "2 frames of 7x5" in capsys.readouterr().out
    assert commands.encode(raw, out / "again.lvc") == 2
    assert "give both" in only_error()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".y4m"])
def test_every_kind_of_video_can_be_written(commands, stream, out, suffix, frames):
    assert commands.decode(stream, out / f"v{suffix}") == 0
    assert commands.read(out / f"v{suffix}").shape == frames.shape


def test_verify_reports_psnr_if_all_frames_are_equal(
    commands, source, out, in_process, capsys
):
    assert commands.encode(source, out / "v.lvc", "--verify") == 0
    assert "PSNR 99.90 dB" in capsys.readouterr().out
    assert [p.name for p in out.iterdir()] == ["v.lvc"]


def test_verify_refuses_a_decoder_that_differs(
    only_error, zip_codec, commands, source, out, in_process, monkeypatch
):
    def decompress(self, packets, height, width, *, scales):
        for packet in packets:
            yield from torch.zeros(packet.frames, 3, height, width)

    monkeypatch.setattr(zip_codec, "decompress", decompress)
    assert commands.encode(source, out / "v.lvc", "--verify") == 2
    assert "decoded frames differ" in only_error()
    assert list(out.iterdir()) == []


def test_verify_refuses_a_decoder_that_fails(
    only_error, commands, source, out, codec, in_process
):
    codec["drift"] = 1
    assert commands.encode(source, out / "v.lvc", "--verify") == 2
    assert "verification failed" in only_error()
    assert list(out.iterdir()) == []


def test_the_verifying_process_starts_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no file or directory"):
        encoding._verify(tmp_path / "no.lvc", tmp_path / "no.ckpt", "cpu", "")


def test_memory_does_not_grow_with_the_number_of_frames(
    zip_codec, commands, out, monkeypatch
):
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
                frame = torch.rand(3, 5, 7)
                alive.add(frame)
                most = max(most, len(alive))
                yield frame

    monkeypatch.setattr("datamodules.frames.open_video", lambda *_, **__: Endless())
    (out / "v.any").touch()
    assert commands.encode(out / "v.any", out / "v.lvc") == 0
    assert most <= 2 * zip_codec.frames_per_unit


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
def test_a_malformed_option_is_explained(commands, source, out, option, capsys):
    with pytest.raises(SystemExit) as caught:
        commands.encode(source, out / "v.lvc", option)
    assert caught.value.code == 2
    assert option.split("=")[1] in capsys.readouterr().err


def test_decode_needs_something_to_do(stream, capsys):
    assert decode.main([str(stream), "--checkpoint=c.ckpt"]) == 2
    assert "give OUT, or --hash" in capsys.readouterr().err


def test_the_name_of_a_raw_file_says_what_it_holds(
    codec, commands, out, capsys, tmp_path
):
    raw = tmp_path / "a_16x12_120fps_420_10bit.yuv"
    raw.write_bytes(np.full(288 * 3, 800, "<u2").tobytes())
    assert commands.encode(raw, out / "v.lvc") == 0
    with open_stream(out / "v.lvc") as reader:
        header = reader.header
    assert (header.width, header.height, header.fps) == (16, 12, 120)
    given = ["--size=16x12", "--fps=120", "--depth=10"]
    assert commands.encode(raw, out / "w.lvc", *given) == 0
    assert (out / "v.lvc").read_bytes() == (out / "w.lvc").read_bytes()


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("a_16x12_120fps.yuv", "--size=12x16", "says 16x12, not 12x16: leave"),
        ("a_16x12_120fps.yuv", "--fps=60", "says 120 fps, not 60: leave that option"),
        ("a_16x12_120fps_10bit.yuv", "--depth=8", "says 10 bits, not 8: leave"),
        ("a_16x12_120fps_444.yuv", "--depth=8", "has 444 chroma by its name, only 420"),
        ("a_16x12.yuv", "--depth=8", "does not say its size and fps: give both, or"),
    ],
)
def test_an_option_that_contradicts_a_raw_file_s_name_is_refused(
    codec, commands, out, capsys, tmp_path, name, option, message
):
    (tmp_path / name).write_bytes(bytes(288 * 4))
    assert commands.encode(tmp_path / name, out / "v.lvc", option) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(out.iterdir()) == []


def test_a_rounded_rate_in_a_name_contradicts_nothing(codec, commands, out, tmp_path):
    raw = tmp_path / "a_16x12_29.97fps.yuv"
    raw.write_bytes(bytes(288))
    assert commands.encode(raw, out / "v.lvc", "--fps=30000/1001") == 0
    with open_stream(out / "v.lvc") as reader:
        assert reader.header.fps == Fraction(30000, 1001)


def test_files_whose_names_are_not_utf8_are_coded(codec, commands, tmp_path, capsys):
    names = [os.fsdecode(b"caf\xe9" + end) for end in (b".yuv", b".lvc", b".y4m")]
    raw, coded, decoded = (tmp_path / name for name in names)
    raw.write_bytes(bytes(288))
    assert commands.encode(raw, coded, "--size=16x12", "--fps=25") == 0
    assert commands.decode(coded, decoded) == 0
    assert "caf\\xe9.y4m: 1 frames of 16x12" in capsys.readouterr().out


def test_jpeg_frames_are_coded_and_one_that_is_cut_is_refused(
    codec, commands, out, tmp_path, capsys
):
    for number in range(3):
        picture = np.full((12, 16, 3), 80 * number, np.uint8)
        (tmp_path / "bear").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "bear" / f"{number:05}.jpg"), picture)
    assert commands.encode(tmp_path / "bear", out / "v.lvc") == 0
    last = tmp_path / "bear" / "00002.jpg"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert commands.encode(tmp_path / "bear", out / "w.lvc") == 2
    assert "00002.jpg cannot be decoded: it is cut" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["v.lvc"]
