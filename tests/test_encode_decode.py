import math
import os
import re
import struct
import subprocess
import sys
import weakref
import zlib
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import ClassVar

import pytest
import torch

import lightning_modules
from datamodules.frames import open_video
from datamodules.writing import create_video
from experiments import coding, decode, encode
from lightning_modules.bitstream import BitstreamReader
from lightning_modules.codec import DesyncError, Packet, RateKnob, VideoCodec

SIZE = (5, 7)


class ZipCodec(VideoCodec):
    """Eight-bit frames, two to a unit, without loss."""

    rate_knob = RateKnob("qp", 0, 63, (0, 63))
    frames_per_unit = 2
    pad_multiple = 1

    def __init__(self, seed=0, drift=0, interrupt=False):
        super().__init__(seed=seed)
        self.drift = drift
        self.interrupt = interrupt

    def forward(self, clip, rate, **conditions):
        raise NotImplementedError

    def build_tables(self):
        return {}

    def passes(self, height, width):
        return {}

    def compress(self, frames, rate, *, intra_period=-1, reconstruct=False):
        source = iter(frames)
        while group := list(islice(source, 2)):
            codes = (torch.stack(group) * 255).round().to(torch.uint8)
            raw = codes.numpy().tobytes()
            x_hat = codes.float() / 255 if reconstruct else None
            yield Packet(zlib.compress(raw), len(group), zlib.crc32(raw), x_hat)
            if self.interrupt:
                raise KeyboardInterrupt

    def decompress(self, packets, height, width):
        for number, packet in enumerate(packets):
            raw = zlib.decompress(packet.payload)
            if zlib.crc32(raw) != packet.checksum or (self.drift and number):
                raise DesyncError(f"unit {number} has desynchronised")
            codes = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
            yield from codes.reshape(-1, 3, height, width).float() / 255


class OtherCodec(ZipCodec):
    pass


class RatedCodec(ZipCodec):
    """Has something to search: the higher the rate, the more padding."""

    passes_begun: ClassVar = []

    def compress(self, frames, rate, **options):
        self.passes_begun.append(rate)
        for packet in super().compress(frames, rate, **options):
            padding = bytes(round(500 * math.exp(rate / 20)))
            yield replace(packet, payload=packet.payload + padding)


@pytest.fixture(autouse=True)
def codec(monkeypatch):
    """Make every checkpoint load a ``ZipCodec``; give its arguments to change."""
    arguments = {"kind": ZipCodec}

    def load_codec(path, device="cpu", dtype=torch.float32):
        options = dict(arguments)
        return options.pop("kind")(**options).eval()

    monkeypatch.setattr(lightning_modules, "load_codec", load_codec)
    return arguments


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, *SIZE), generator=generator) / 255


@pytest.fixture
def source(tmp_path, frames):
    folder = tmp_path / "in"
    folder.mkdir()
    with create_video(folder / "frames", SIZE[1], SIZE[0], Fraction(25)) as video:
        for frame in frames:
            video.write(frame)
    return folder / "frames"


@pytest.fixture
def out(tmp_path):
    """A directory that holds nothing but what the commands leave."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def stream(source, tmp_path):
    path = tmp_path / "in" / "v.lvc"
    assert run_encode(source, path) == 0
    return path


def run_encode(source, target, *more):
    return encode.main([str(source), str(target), "--checkpoint=c", "--rate=9", *more])


def run_search(source, target, *more):
    return encode.main([str(source), str(target), "--checkpoint=c", *more])


def run_decode(source, target, *more):
    return decode.main([str(source), str(target), "--checkpoint=c", *more])


def read(path):
    with open_video(path) as video:
        return torch.stack(list(video))


def only_error(capsys):
    """Return the one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


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


def test_every_flipped_byte_is_an_error_and_leaves_nothing(stream, out, capsys):
    whole = stream.read_bytes()
    capsys.readouterr()
    for position in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        stream.write_bytes(flipped)
        assert run_decode(stream, out / "frames") == 2, position
        assert str(stream) in only_error(capsys)
        assert list(out.iterdir()) == []


def test_a_cut_file_gives_its_whole_units_only_if_asked(stream, out, frames, capsys):
    whole = stream.read_bytes()
    capsys.readouterr()
    recovered = set()
    for length in range(0, len(whole), 7):
        stream.write_bytes(whole[:length])
        assert run_decode(stream, out / "frames") == 2
        only_error(capsys)
        assert list(out.iterdir()) == []

        target = out.parent / f"part{length}"
        code = run_decode(stream, target, "--partial")
        message = capsys.readouterr().err
        if code == 0:
            part = read(target)
            assert torch.equal(part, frames[: len(part)])
            assert f"warning: {len(part)} frames recovered" in message
            recovered.add(len(part))
        else:
            assert code == 2
            assert not target.exists()
    assert recovered == {2, 4, 5}


def test_partial_stops_before_a_damaged_unit(stream, out, frames, capsys):
    damaged = bytearray(stream.read_bytes())
    damaged[-20] ^= 1
    stream.write_bytes(damaged)
    capsys.readouterr()
    assert run_decode(stream, out / "frames", "--partial") == 0
    assert torch.equal(read(out / "frames"), frames[:4])
    assert "unit 2" in capsys.readouterr().err


def test_partial_does_not_warn_about_a_whole_file(stream, out, capsys):
    capsys.readouterr()
    assert run_decode(stream, out / "frames", "--partial") == 0
    assert capsys.readouterr().err == ""


def test_a_desync_is_an_error_and_no_noise(stream, out, codec, capsys):
    codec["drift"] = 1
    assert run_decode(stream, out / "v.y4m") == 2
    assert "desynchronised" in only_error(capsys)
    assert list(out.iterdir()) == []


def test_other_weights_are_refused_and_both_are_named(stream, out, codec, capsys):
    codec["seed"] = 1
    assert run_decode(stream, out / "v.y4m") == 2
    line = only_error(capsys)
    for seed in (0, 1):
        assert ZipCodec(seed=seed).fingerprint().hex() in line
    assert list(out.iterdir()) == []


def test_another_codec_is_refused(stream, out, codec, capsys):
    codec["kind"] = OtherCodec
    assert run_decode(stream, out / "v.y4m") == 2
    assert "ZipCodec, but c is a OtherCodec" in only_error(capsys)


def with_header(stream, offset, data):
    """Change header bytes and mend the header's checksum."""
    whole = bytearray(stream.read_bytes())
    whole[offset : offset + len(data)] = data
    end = 6 + whole[5]
    whole[end : end + 4] = struct.pack("<I", zlib.crc32(whole[:end]))
    stream.write_bytes(whole)


def test_an_absurd_size_is_refused(stream, out, capsys):
    with_header(stream, 14, struct.pack("<HH", 65535, 65535))
    assert run_decode(stream, out / "v.y4m") == 2
    assert "65535x65535" in only_error(capsys)


def test_another_version_is_refused(stream, out, capsys):
    with_header(stream, 4, b"\x63")
    assert run_decode(stream, out / "v.y4m") == 2
    assert "version 99" in only_error(capsys)


def test_a_stream_of_another_device_is_decoded_with_a_warning(stream, out, capsys):
    whole = stream.read_bytes()
    with_header(stream, whole.index(b"cpu"), b"xpu")
    capsys.readouterr()
    assert run_decode(stream, out / "v.y4m", "--device=cpu") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "encoded on xpu" in line
    assert "cpu is not guaranteed" in line


@pytest.mark.parametrize("name", ["no/such/v.y4m", "v.gif", "full", "full/v.mp4/x.yuv"])
def test_an_output_that_cannot_be_written_is_an_error(stream, out, name, capsys):
    (out / "full").mkdir()
    (out / "full" / "precious.txt").touch()
    assert run_decode(stream, out / name) == 2
    assert "cannot write" in only_error(capsys)
    assert sorted(p.name for p in out.rglob("*")) == ["full", "precious.txt"]


@pytest.mark.parametrize("name", ["no/v.lvc", "full"])
def test_a_bitstream_that_cannot_be_written_is_an_error(source, out, name, capsys):
    (out / "full").mkdir()
    assert run_encode(source, out / name) == 2
    assert "cannot write" in only_error(capsys)


def test_a_missing_input_is_an_error_of_both_commands(out, capsys):
    assert run_encode(out / "no.mp4", out / "v.lvc") == 2
    assert "no file" in only_error(capsys)
    assert run_decode(out / "no.lvc", out / "v.y4m") == 2
    assert "no file" in only_error(capsys)


def test_an_impossible_rate_is_an_error(source, out, capsys):
    assert run_encode(source, out / "v.lvc", "--rate=64") == 2
    assert "qp is a number from 0" in only_error(capsys)
    assert list(out.iterdir()) == []


@pytest.fixture
def rated(codec):
    codec["kind"] = RatedCodec
    RatedCodec.passes_begun.clear()
    return RatedCodec


@pytest.mark.parametrize(
    ("unit", "target", "scale"), [("bpp", 600, 8 / 175), ("kbps", 99, 25 / 5 / 125)]
)
def test_a_target_is_met_with_all_bytes_counted(
    source, out, rated, frames, capsys, unit, target, scale
):
    path = out / "v.lvc"
    assert run_search(source, path, f"--target_{unit}={target}") == 0
    printed = capsys.readouterr()
    assert path.stat().st_size * scale == pytest.approx(target, rel=0.01)
    with path.open("rb") as file:
        rate = BitstreamReader(file).header.rate
    assert f"{path.stat().st_size} bytes" in printed.out
    assert f", qp {rate:.6g}, " in printed.out
    *others, last = printed.err.splitlines()
    assert len(others) + 1 == len(rated.passes_begun) <= 8
    assert rate == rated.passes_begun[-1]
    deviation = path.stat().st_size * scale / target - 1
    assert last.startswith(f"qp {rate:.6g}: {path.stat().st_size} bytes, ")
    assert last.endswith(f" {unit}, {deviation:+.2%}")
    assert [p.name for p in out.iterdir()] == ["v.lvc"]
    assert run_decode(path, out / "frames") == 0
    assert torch.equal(read(out / "frames"), frames)


def test_a_target_that_is_not_met_gives_the_closest_file_and_a_warning(
    source, out, rated, monkeypatch, capsys
):
    sizes = iter([2000, 900, 1500, 1100, 1300, 1050, 1400, 2000])
    kept = {}

    def compress(self, frames, rate, **options):
        (size,) = islice(sizes, 1)
        kept[size] = rate
        yield Packet(bytes(size), len(list(frames)), 0)

    monkeypatch.setattr(rated, "compress", compress)
    assert run_search(source, out / "v.lvc", "--target_bpp=54.5") == 0
    *_, warning = capsys.readouterr().err.splitlines()
    assert "warning: 8 encodes came no closer than " in warning
    assert "54.5 bpp" in warning
    with (out / "v.lvc").open("rb") as file:
        reader = BitstreamReader(file)
        (unit,) = reader
    assert len(unit.payload) == 1100
    assert reader.header.rate == kept[1100]
    assert [p.name for p in out.iterdir()] == ["v.lvc"]


@pytest.mark.parametrize("target", ["1", "1e6"])
def test_a_target_out_of_reach_is_an_error_and_leaves_what_was_there(
    source, stream, out, rated, target, capsys
):
    before = stream.read_bytes()
    capsys.readouterr()
    assert run_search(source, stream, f"--target_kbps={target}") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    for part in ("error: a target of", "out of the codec's reach", "qp 0", "qp 63"):
        assert part in line
    assert stream.read_bytes() == before
    assert sorted(p.name for p in stream.parent.iterdir()) == ["frames", "v.lvc"]


def test_a_searched_file_is_verified_like_any_other(
    source, out, rated, in_process, monkeypatch, capsys
):
    assert run_search(source, out / "v.lvc", "--target_bpp=600", "--verify") == 0
    assert re.search(
        r"qp \d+\.\d+, PSNR 99\.90 dB, .*verified", capsys.readouterr().out
    )

    def decompress(self, packets, height, width):
        for packet in packets:
            yield from torch.zeros(packet.frames, 3, height, width)

    monkeypatch.setattr(rated, "decompress", decompress)
    assert run_search(source, out / "no.lvc", "--target_bpp=600", "--verify") == 2
    assert "decoded frames differ" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["v.lvc"]


def test_an_interrupted_search_leaves_nothing(source, out, codec, rated, capsys):
    codec["interrupt"] = True
    assert run_search(source, out / "v.lvc", "--target_bpp=600") == 130
    assert list(out.iterdir()) == []


def test_a_source_that_can_be_read_once_has_no_target(
    source, out, rated, monkeypatch, capsys
):
    monkeypatch.setattr("datamodules.frames.open_video", lambda *_, **__: open_frames)
    open_frames = open_video(source)
    os.mkfifo(out / "pipe.y4m")
    assert run_search(out / "pipe.y4m", out / "v.lvc", "--target_bpp=600") == 2
    assert "only once" in only_error(capsys)
    assert rated.passes_begun == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--rate=9", "--target_bpp=1"],
        ["--rate=9", "--target_kbps=1"],
        ["--target_bpp=1", "--target_kbps=1"],
    ],
)
def test_exactly_one_of_rate_and_targets_is_given(source, out, options, capsys):
    with pytest.raises(SystemExit) as caught:
        run_search(source, out / "v.lvc", *options)
    assert caught.value.code == 2
    assert "--target_bpp" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["0", "-1", "nan", "inf"])
def test_an_impossible_target_is_an_error(source, out, rated, target, capsys):
    assert run_search(source, out / "v.lvc", f"--target_bpp={target}") == 2
    assert "not possible" in only_error(capsys)
    assert rated.passes_begun == []
    assert list(out.iterdir()) == []


def test_the_input_is_never_the_output(stream, capsys):
    before = stream.read_bytes()
    assert run_encode(stream, stream) == 2
    assert "same file" in only_error(capsys)
    assert stream.read_bytes() == before


def test_an_interrupted_encoder_leaves_nothing(source, out, codec, capsys):
    codec["interrupt"] = True
    assert run_encode(source, out / "v.lvc") == 130
    assert list(out.iterdir()) == []


def test_an_older_result_survives_a_failure(source, stream, out, codec):
    before = stream.read_bytes()
    codec["interrupt"] = True
    assert run_encode(source, stream) == 130
    assert stream.read_bytes() == before


def test_a_bug_keeps_its_traceback():
    def command():
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        coding.run_command(command)


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Run the verifying process within this one, where the codec is replaced."""

    def run(command, **options):
        capsys.readouterr()
        code = decode.main(command[3:])
        return subprocess.CompletedProcess(command, code, *capsys.readouterr())

    monkeypatch.setattr(encode.subprocess, "run", run)


def test_verify_reports_psnr_if_all_frames_are_equal(source, out, in_process, capsys):
    assert run_encode(source, out / "v.lvc", "--verify") == 0
    assert "PSNR 99.90 dB" in capsys.readouterr().out
    assert [p.name for p in out.iterdir()] == ["v.lvc"]


def test_verify_refuses_a_decoder_that_differs(
    source, out, in_process, monkeypatch, capsys
):
    def decompress(self, packets, height, width):
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
        encode._verify(tmp_path / "no.lvc", tmp_path / "no.ckpt", "cpu", "")


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


def test_psnr_is_that_of_eight_bit_frames():
    black = torch.zeros(3, 4, 4)
    assert coding.psnr(black, black + 0.4 / 255) == coding.MAX_PSNR
    assert coding.psnr(black, black + 0.6 / 255) == pytest.approx(48.1308, abs=1e-4)


def test_coding_mode_restores_what_it_changed():
    before = torch.backends.cudnn.deterministic
    with coding.coding_mode(torch.device("cpu")):
        assert torch.is_inference_mode_enabled()
    with coding.coding_mode(torch.device("cuda")):
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


def test_decode_needs_something_to_do(stream):
    with pytest.raises(SystemExit) as caught:
        decode.main([str(stream), "--checkpoint=c"])
    assert caught.value.code == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys, experiments.encode, experiments.decode;"
        "print(sorted({'torch', 'av', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True).stdout == "[]\n"
