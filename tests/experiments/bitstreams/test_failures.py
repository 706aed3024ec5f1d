"""What encode and decode refuse, and what they leave when they fail or are stopped."""

import os
import signal
import struct
import sys
import time
import zlib

import pytest
import torch

from datamodules.whole_files import whole_or_nothing
from experiments.cli.command import run_command
from experiments.cli.progress import track

pytestmark = pytest.mark.usefixtures("codec")


def test_every_flipped_byte_is_an_error_and_leaves_nothing(
    only_error, commands, stream, out, capsys
):
    whole = stream.read_bytes()
    capsys.readouterr()
    for position in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        stream.write_bytes(flipped)
        assert commands.decode(stream, out / "frames") == 2, position
        assert str(stream) in only_error()
        assert list(out.iterdir()) == []


def test_a_cut_file_gives_its_whole_units_only_if_asked(
    only_error, commands, stream, out, frames, capsys
):
    whole = stream.read_bytes()
    capsys.readouterr()
    recovered = set()
    for length in range(0, len(whole), 7):
        stream.write_bytes(whole[:length])
        assert commands.decode(stream, out / "frames") == 2
        only_error()
        assert list(out.iterdir()) == []

        target = out.parent / f"part{length}"
        code = commands.decode(stream, target, "--partial")
        message = capsys.readouterr().err
        if code == 0:
            part = commands.read(target)
            assert torch.equal(part, frames[: len(part)])
            assert f"warning: {len(part)} frames recovered" in message
            recovered.add(len(part))
        else:
            assert code == 2
            assert not target.exists()
    assert recovered == {2, 4, 5}


def test_partial_stops_before_a_damaged_unit(commands, stream, out, frames, capsys):
    damaged = bytearray(stream.read_bytes())
    damaged[-20] ^= 1
    stream.write_bytes(damaged)
    capsys.readouterr()
    assert commands.decode(stream, out / "frames", "--partial") == 0
    assert torch.equal(commands.read(out / "frames"), frames[:4])
    assert "unit 2" in capsys.readouterr().err


def test_partial_does_not_warn_about_a_whole_file(commands, stream, out, capsys):
    capsys.readouterr()
    assert commands.decode(stream, out / "frames", "--partial") == 0
    assert capsys.readouterr().err == ""


def test_a_desync_is_an_error_and_no_noise(only_error, commands, stream, out, codec):
    codec["drift"] = 1
    assert commands.decode(stream, out / "v.y4m") == 2
    assert "desynchronised" in only_error()
    assert list(out.iterdir()) == []


def test_a_frame_that_is_no_picture_is_refused(
    only_error, commands, stream, out, codec, frames, capsys
):
    codec["overflows_at"] = 1
    assert commands.decode(stream, out / "v.y4m") == 2
    line = only_error()
    assert f"{stream}: frame 3 holds NaN" in line and "rate 9" in line
    assert list(out.iterdir()) == []
    assert commands.decode(stream, out / "frames", "--partial") == 0
    assert torch.equal(commands.read(out / "frames"), frames[:3])
    assert "warning: 3 frames recovered" in capsys.readouterr().err


def test_verify_leaves_no_stream_that_is_no_picture(
    only_error, commands, source, out, codec
):
    codec["overflows_at"] = 1
    assert commands.encode(source, out / "v.lvc", "--verify") == 2
    assert "frame 3 holds NaN" in only_error()
    assert list(out.iterdir()) == []


def test_other_weights_are_refused_and_both_are_named(
    only_error, zip_codec, commands, stream, out, codec
):
    codec["seed"] = 1
    assert commands.decode(stream, out / "v.y4m") == 2
    line = only_error()
    for seed in (0, 1):
        assert zip_codec(seed=seed).fingerprint().hex() in line
    assert list(out.iterdir()) == []


def test_another_codec_is_refused(only_error, zip_codec, commands, stream, out, codec):
    codec["kind"] = type("OtherCodec", (zip_codec,), {})
    assert commands.decode(stream, out / "v.y4m") == 2
    assert "was encoded with Zip, but c.ckpt is of Other" in only_error()


def with_header(stream, offset, data):
    """Change header bytes and mend the header's checksum."""
    whole = bytearray(stream.read_bytes())
    whole[offset : offset + len(data)] = data
    end = 6 + whole[5]
    whole[end : end + 4] = struct.pack("<I", zlib.crc32(whole[:end]))
    stream.write_bytes(whole)


def test_an_absurd_size_is_refused(only_error, commands, stream, out):
    with_header(stream, 14, struct.pack("<HH", 65535, 65535))
    assert commands.decode(stream, out / "v.y4m") == 2
    assert "65535x65535" in only_error()


def test_another_version_is_refused(only_error, commands, stream, out):
    with_header(stream, 4, b"\x63")
    assert commands.decode(stream, out / "v.y4m") == 2
    assert "version 99" in only_error()


@pytest.mark.parametrize("name", ["no/such/v.y4m", "v.gif", "full", "full/v.mp4/x.yuv"])
def test_an_output_that_cannot_be_written_is_an_error(
    only_error, commands, stream, out, name
):
    (out / "full").mkdir()
    (out / "full" / "precious.txt").touch()
    assert commands.decode(stream, out / name) == 2
    assert "cannot write" in only_error()
    assert sorted(p.name for p in out.rglob("*")) == ["full", "precious.txt"]


@pytest.mark.parametrize("name", ["no/v.lvc", "full"])
def test_a_bitstream_that_cannot_be_written_is_an_error(
    only_error, commands, source, out, name
):
    (out / "full").mkdir()
    assert commands.encode(source, out / name) == 2
    assert "cannot write" in only_error()


def test_the_checkpoint_is_not_overwritten(only_error, commands, source, out, codec):
    checkpoint = out / "c.ckpt"
    checkpoint.write_text("weights")
    assert commands.encode(source, checkpoint, f"--checkpoint={checkpoint}") == 2
    assert f"OUT is the checkpoint, {checkpoint}" in only_error()
    assert checkpoint.read_text() == "weights"


def test_a_bitstream_is_not_called_a_video(only_error, commands, source, out):
    assert commands.encode(source, out / "v.MP4") == 2
    assert "a bitstream is no .MP4 file: call it" in only_error()
    assert not any(out.iterdir())


@pytest.mark.parametrize("ends", [True, False])
def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path, ends, capsys):
    signal.signal(signal.SIGTERM, signal.SIG_DFL if ends else signal.SIG_IGN)

    def command():
        with whole_or_nothing(tmp_path / "result") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    # Whoever handles the signal already goes on doing so.
    assert run_command(command) == (130 if ends else 0)
    assert ("interrupted" in capsys.readouterr().err) is ends
    assert len(list(tmp_path.iterdir())) == (not ends)
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert handler == (signal.SIG_DFL if ends else signal.SIG_IGN)


def test_progress_needs_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(track([1, 2], "coding", 2)) == [1, 2]


def test_a_missing_input_is_an_error_of_both_commands(only_error, commands, out):
    assert commands.encode(out / "no.mp4", out / "v.lvc") == 2
    assert "no file" in only_error()
    assert commands.decode(out / "no.lvc", out / "v.y4m") == 2
    assert "no file" in only_error()


def test_an_impossible_rate_is_an_error(only_error, commands, source, out):
    assert commands.encode(source, out / "v.lvc", "--rate=64") == 2
    assert "qp is a number from 0" in only_error()
    assert list(out.iterdir()) == []


def test_the_input_is_never_the_output(only_error, commands, stream):
    before = stream.read_bytes()
    assert commands.encode(stream, stream) == 2
    assert "same file" in only_error()
    assert stream.read_bytes() == before


def test_an_interrupted_encoder_leaves_nothing(commands, source, out, codec):
    codec["interrupt"] = True
    assert commands.encode(source, out / "v.lvc") == 130
    assert list(out.iterdir()) == []


def test_an_older_result_survives_a_failure(commands, source, stream, codec):
    before = stream.read_bytes()
    codec["interrupt"] = True
    assert commands.encode(source, stream) == 130
    assert stream.read_bytes() == before


def test_a_bug_keeps_its_traceback():
    def command():
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        run_command(command)
