"""Pipes: encode reads them in one pass, decode writes them, the rest says why not."""

import os
import pty
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Thread

import pytest
import torch

from datamodules.pipes import STDIN, STDOUT, as_input, as_output, open_piped_input
from datamodules.sequences.find import find_sequences
from datamodules.sources.folder import FolderSource
from datamodules.video_reader import VideoError
from datamodules.whole_files import whole_or_nothing
from datamodules.writing import create_video
from experiments.bitstreams.files import open_stream

WRITTEN_BEFORE = Path(__file__).parents[2] / "written_before"

pytestmark = pytest.mark.usefixtures("codec")


@pytest.fixture
def last_error(capsys):
    """Return the error, which is the last of two lines."""

    def read():
        said, error = capsys.readouterr().err.splitlines()
        assert "as long as something" in said
        assert error.startswith("error: ")
        return error

    return read


@pytest.fixture
def videos(tmp_path, frames):
    """The same five frames as files, by what they are in."""
    made = {}
    for name in ("v.y4m", "v.yuv", "v.mkv", "v.mp4"):
        made[name] = tmp_path / name
        with create_video(made[name], 7, 5, Fraction(25)) as append:
            for frame in frames:
                append(frame)
    return made


@pytest.fixture
def through_fifo(tmp_path):
    """Give the name of a FIFO, and write bytes into it as soon as it is opened."""
    threads = []

    def feed(data, name="pipe"):
        path = tmp_path / name
        os.mkfifo(path)

        def write():
            try:
                path.write_bytes(data)
            except BrokenPipeError:
                pass

        threads.append(Thread(target=write, daemon=True))
        threads[-1].start()
        return path

    yield feed
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def stdin():
    """Put bytes on the standard input, as a shell does."""
    before, opened = os.dup(0), []

    def put(data):
        out, into = os.pipe()
        os.write(into, data)
        os.close(into)
        os.dup2(out, 0)
        opened.append(out)

    yield put
    os.dup2(before, 0)
    for descriptor in (before, *opened):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("name", "fifo", "options"),
    [
        ("v.y4m", "pipe", []),
        ("v.mkv", "pipe.mkv", []),
        ("v.mkv", "other", ["--size=7x5"]),
        ("v.yuv", "pipe", ["--size=7x5", "--fps=25"]),
        ("v.yuv", "pipe.yuv", ["--size=7x5", "--fps=25"]),
    ],
)
def test_a_pipe_gives_the_stream_of_the_file(
    commands, videos, through_fifo, out, name, fifo, options, capsys
):
    given = options if name == "v.yuv" else []
    assert commands.encode(videos[name], out / "file.lvc", *given) == 0
    pipe = through_fifo(videos[name].read_bytes(), fifo)
    assert commands.encode(pipe, out / "pipe.lvc", *options) == 0
    assert (out / "pipe.lvc").read_bytes() == (out / "file.lvc").read_bytes()
    assert f"reading {pipe}, a pipe, as long as something writes" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["-", "pipe:0", "/dev/stdin"])
def test_the_standard_input_is_read(commands, videos, out, stdin, name):
    stdin(videos["v.y4m"].read_bytes())
    assert commands.encode(name, out / "pipe.lvc", "--fps=50") == 0
    assert commands.encode(videos["v.y4m"], out / "file.lvc", "--fps=50") == 0
    assert (out / "pipe.lvc").read_bytes() == (out / "file.lvc").read_bytes()
    stdin((out / "file.lvc").read_bytes())
    assert commands.decode(name, out / "v.y4m") == 0


def test_a_file_at_the_standard_input_is_that_file(videos, tmp_path, monkeypatch):
    before = os.dup(0)
    with videos["v.mp4"].open("rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        assert as_input(STDIN) == videos["v.mp4"]
    finally:
        os.dup2(before, 0)
        os.close(before)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").touch()
    assert str(as_input(Path("-"))) == "-"
    assert as_output(Path("-")) == STDOUT


def test_verify_and_max_frames_work_on_a_pipe(
    commands, videos, through_fifo, out, in_process, capsys
):
    pipe = through_fifo(videos["v.y4m"].read_bytes())
    assert commands.encode(pipe, out / "v.lvc", "--verify", "--max_frames=3") == 0
    assert "3 frames" in (said := capsys.readouterr().out)
    assert "verified" in said


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda data: data[:-9], "frame 4 (from 0): the file ends within a frame"),
        (lambda data: b"", "ended at once: nothing was written into it"),
        (lambda data: b"x" * 999, "raw video needs --size and --fps, and an MP4"),
    ],
)
def test_a_pipe_that_breaks_off_or_holds_no_video_is_refused(
    last_error, commands, videos, through_fifo, out, cut, message
):
    pipe = through_fifo(cut(videos["v.y4m"].read_bytes()))
    assert commands.encode(pipe, out / "v.lvc") == 2
    assert message in last_error()
    assert list(out.iterdir()) == []


def test_a_cut_matroska_in_a_pipe_is_noticed(
    last_error, commands, videos, through_fifo, out
):
    pipe = through_fifo(videos["v.mkv"].read_bytes()[:-20])
    assert commands.encode(pipe, out / "v.lvc") == 2
    assert "is truncated: it has" in last_error()


def test_what_takes_several_passes_is_refused_before_the_pipe_is_opened(
    only_error, encode_main, out, tmp_path
):
    os.mkfifo(tmp_path / "pipe")
    command = [str(tmp_path / "pipe"), str(out / "v.lvc"), "--checkpoint=c.ckpt"]
    assert encode_main([*command, "--target_bpp=0.1"]) == 2
    assert "several encodes, and" in (error := only_error())
    assert "save it to a file first, or give --rate" in error


@pytest.fixture
def encode_main():
    from experiments import encode

    return encode.main


def test_sequences_and_folders_refuse_a_pipe(samples_folder):
    os.mkfifo(samples_folder / "b.y4m")
    for spec in (samples_folder / "b.y4m", samples_folder):
        with pytest.raises(ValueError, match="is a pipe, which can be read only once"):
            find_sequences([str(spec)])
    source = FolderSource(samples_folder)
    assert [source.label(item) for item in range(len(source))] == ["a.y4m"]
    assert "it is a pipe" in source.skipped["b.y4m"]
    (frames := samples_folder / "frames").mkdir()
    os.mkfifo(frames / "im1.png")
    with pytest.raises(ValueError, match="cannot be decoded: it is cut, damaged or no"):
        find_sequences([str(frames)])
    assert "not a PNG file" in FolderSource(samples_folder).skipped["frames"]


@pytest.fixture
def samples_folder(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    frame = b"FRAME\n" + bytes(59)
    (folder / "a.y4m").write_bytes(b"YUV4MPEG2 W7 H5 F25:1 C420\n" + frame)
    return folder


def test_a_bitstream_is_read_from_a_pipe(
    commands, stream, rewritten, through_fifo, out, capsys
):
    assert commands.decode(stream, out / "file.y4m") == 0
    capsys.readouterr()
    assert commands.decode(through_fifo(stream.read_bytes()), out / "v.y4m") == 0
    assert (out / "v.y4m").read_bytes() == (out / "file.y4m").read_bytes()
    (_,) = capsys.readouterr().err.splitlines()
    # Its kernels would have to be chosen before torch is imported.
    with open_stream(stream) as reader:
        own = replace(reader.header.numerics, isa="native-other")
    path = rewritten(stream, out.parent / "native.lvc", numerics=own)
    pipe = through_fifo(path.read_bytes(), "native")
    assert commands.decode(pipe, out / "v.y4m") == 0
    _, line = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "decode it from a file" in line


def test_a_bitstream_of_version_1_is_not_read_from_a_pipe(
    commands, through_fifo, out, last_error
):
    pipe = through_fifo((WRITTEN_BEFORE / "ui2c/clip.lvc").read_bytes())
    assert commands.decode(pipe, out / "v.y4m") == 2
    assert "is of an earlier version" in last_error()
    assert not list(out.iterdir())


def test_a_fifo_gets_the_file_that_decode_writes(commands, stream, out):
    for name in ("v.y4m", "v.yuv"):
        assert commands.decode(stream, out / name) == 0
        os.mkfifo(pipe := out / f"pipe.{name}")
        got = []
        reader = Thread(
            target=lambda p=pipe, got=got: got.append(p.read_bytes()), daemon=True
        )
        reader.start()
        assert commands.decode(stream, pipe) == 0
        reader.join(10)
        assert got == [(out / name).read_bytes()]


def test_the_standard_output_gets_nothing_but_the_video(stream, out, commands, capfd):
    assert commands.decode(stream, out / "v.y4m") == 0
    capfd.readouterr()
    assert commands.decode(stream, "-", "--hash") == 0
    captured = capfd.readouterr()
    assert captured.out.encode("latin-1", "replace")[:10] == b"YUV4MPEG2 "
    assert "/dev/stdout: 5 frames of 7x5" in captured.err


def test_a_pipe_takes_no_container(only_error, commands, stream, out):
    os.mkfifo(out / "v.mp4")
    assert commands.decode(stream, out / "v.mp4") == 2
    assert "a pipe takes only .y4m and .yuv" in only_error()


def test_a_reader_that_has_gone_is_said(tmp_path):
    os.mkfifo(path := tmp_path / "v.y4m")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(VideoError, match=r"who read from .*v\.y4m has gone before its"):
        with create_video(path, 7, 5, Fraction(25)) as append:
            os.close(reader)
            append(torch.zeros(3, 5, 7))


def test_a_standard_output_that_nobody_reads_is_left_to_the_command():
    """Which ends then without a word, as of ``decode - | head``."""
    before = os.dup(1)
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    try:
        with pytest.raises(BrokenPipeError):
            with create_video(STDOUT, 7, 5, Fraction(25)) as append:
                append(torch.zeros(3, 5, 7))
    finally:
        os.dup2(before, 1)
        for descriptor in (before, writer):
            os.close(descriptor)


@pytest.mark.parametrize("name", ["v.y4m", "v.mkv"])
def test_bits_that_a_pipe_says_itself_cannot_be_given(
    last_error, commands, videos, through_fifo, out, name
):
    pipe = through_fifo(videos[name].read_bytes())
    assert commands.encode(pipe, out / "v.lvc", "--size=7x5", "--depth=10") == 2
    assert "says itself how many bits its samples have" in last_error()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "pipe:1"])
def test_a_bitstream_goes_into_no_pipe(only_error, commands, source, name):
    assert commands.encode(source, name) == 2
    assert "it must be a file" in only_error()


def test_devices_are_never_replaced():
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with pytest.raises(OSError, match="holds no files"):
            with whole_or_nothing(Path(name)):
                pass


def test_a_terminal_is_no_pipe():
    before, (master, slave) = os.dup(0), pty.openpty()
    os.dup2(slave, 0)
    try:
        with pytest.raises(ValueError, match="/dev/stdin is a terminal: pipe a video"):
            open_piped_input(STDIN)
    finally:
        os.dup2(before, 0)
        for descriptor in (before, master, slave):
            os.close(descriptor)
