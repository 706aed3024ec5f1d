"""Readers of videos and PNGs: exact frames, decord and PyAV, the cache of readers."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image

from datamodules.frames import open_video
from datamodules.sequences.content import examine
from datamodules.sources import readers as readers_module
from datamodules.sources.folder import FolderSource
from datamodules.sources.pyav_reader import PyAvReader
from datamodules.sources.readers import DecordReader, open_reader, read_frames
from datamodules.sources.source import ClipError, window


def decode(path):
    """All frames of a video, decoded from the first to the last."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def test_a_count_of_packets_that_is_too_high_sends_the_video_to_pyav(
    numbers, write_video, tmp_path, monkeypatch
):
    pytest.importorskip("decord")
    path = write_video(tmp_path / "b.mp4")
    assert isinstance(open_reader(path, 24, 0), DecordReader)
    monkeypatch.setattr(DecordReader, "__len__", lambda self: 29)
    open_reader.cache_clear()
    reader = open_reader(path, 24, 0)
    assert isinstance(reader, PyAvReader)
    assert numbers(reader.read([3, 5, 23])) == [3, 5, 23]


def test_hidden_frames_are_not_counted(write_video, tmp_path):
    plain = write_video(tmp_path / "plain.mkv", 40, codec="libvpx")
    with (
        av.open(str(plain)) as source,
        av.open(str(tmp_path / "b.webm"), "w") as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            data = bytes(packet)
            if packet.is_keyframe:
                # Bit 4 of a VP8 frame says that it is shown.
                hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:])
                hidden.pts, hidden.dts = packet.pts, packet.dts
                hidden.time_base = packet.time_base
                hidden.is_keyframe = True
                hidden.stream = stream
                container.mux(hidden)
            packet.stream = stream
            container.mux(packet)
    plain.unlink()
    with av.open(str(tmp_path / "b.webm")) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == 45
    source = FolderSource(tmp_path)
    assert "1 videos, 40 frames" in source.describe()
    shown = decode(tmp_path / "b.webm")
    for seed in range(10):
        frames = window(40, 8, 1, default_rng(seed))
        assert (source.read(0, default_rng(seed), 8, None, 1) == shown[frames]).all()


def test_what_av1_needs_is_read_too(numbers, write_video, tmp_path):
    write_video(tmp_path / "b.mp4", size=(64, 64), codec="libsvtav1")
    source = FolderSource(tmp_path)
    for seed in range(3):
        assert numbers(source.read(0, default_rng(seed), 5, 32, 2)) == window(
            24, 5, 2, default_rng(seed)
        )


def test_pyav_is_exact_where_the_container_lies_about_keyframes(write_video, tmp_path):
    path = write_video(tmp_path / "b.avi", codec="mpeg4", bf="2", q="2")
    reader, shown = PyAvReader(path), decode(path)
    for start in range(20):
        frames = list(range(start, start + 4))
        assert (reader.read(frames) == shown[frames]).all()


def test_a_clip_does_not_depend_on_what_was_read_before(write_video, tmp_path):
    pytest.importorskip("decord")
    # An AVI with B-frames: decord is some frames off after a seek, but always alike.
    path = write_video(tmp_path / "b.avi", 48, codec="mpeg4", bf="2", q="2")
    kept = DecordReader(path)
    for seed in range(60):
        frames = window(48, 5, 1, default_rng(seed))
        assert (kept.read(frames) == DecordReader(path).read(frames)).all()


def opened():
    return open_reader.cache_info().misses


def test_the_readers_used_last_stay_open(write_video, tmp_path):
    names = "abcdefghi"
    paths = [write_video(tmp_path / f"{name}.mp4", frames=2) for name in names]
    before = opened()
    for name in "abcdefghaia":
        read_frames(paths[names.index(name)], 2, [0])
    assert opened() - before == 9
    assert open_reader.cache_info().currsize == 8
    read_frames(paths[1], 2, [0])
    assert opened() - before == 10


def test_a_reader_that_failed_is_opened_anew(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=2)
    read_frames(path, 2, [0])
    with pytest.raises(ClipError):
        read_frames(path, 2, [9])
    before = opened()
    read_frames(path, 2, [0])
    assert opened() == 1 and before == 0


def test_readers_are_opened_anew_in_a_forked_process(
    write_video, tmp_path, monkeypatch
):
    path = write_video(tmp_path / "a.mp4", frames=2)
    read_frames(path, 2, [0])
    before = opened()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    read_frames(path, 2, [0])
    assert opened() == before + 1


WITH_DECORD = """
{first}
import sys
from pathlib import Path
from datamodules.sources.readers import has_decord
from datamodules.sources.source import read_images
assert has_decord()
print(read_images([Path(sys.argv[1])]).shape)
"""


@pytest.mark.skipif(not readers_module.has_decord(), reason="needs decord")
@pytest.mark.parametrize(("first", "works"), [("", True), ("import decord", False)])
def test_pngs_of_every_writer_are_read_beside_decord(tmp_path, first, works):
    path = tmp_path / "noise.png"
    # Pillow's compression, which the zlib that decord brings does not understand.
    noise = default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(path)
    program = WITH_DECORD.format(first=first)
    command = [sys.executable, "-c", program, str(path)]
    root = Path(readers_module.__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode == 0) == works, done.stderr
    assert ("(1, 256, 256, 3)" in done.stdout) == works


def write_packets(path, packets):
    """Write packets of a video (place in it, time in ticks) into another container."""
    plain = path.with_name("plain.mkv")
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        kept = [packet for packet in source.demux(video=0) if packet.size]
        for place, time in packets:
            packet = av.Packet(bytes(kept[place]))
            packet.pts = packet.dts = time
            packet.time_base = Fraction(1, 1000)
            packet.is_keyframe = kept[place].is_keyframe
            packet.stream = stream
            container.mux(packet)
    plain.unlink()
    return path


def test_frames_that_share_a_time_are_all_read(numbers, write_video, tmp_path):
    write_video(tmp_path / "plain.mkv", 20, bf="0")
    path = write_packets(tmp_path / "a.mkv", [(n, n // 2) for n in range(20)])
    assert examine(path).frames == len(decode(path)) == 20
    source = FolderSource(tmp_path)
    assert "1 videos, 20 frames" in source.describe()
    assert numbers(source.read(0, None, 6, None, 1)) == window(20, 6, 1, None)
    for seed in range(15):
        clip = source.read(0, default_rng(seed), 6, None, 1)
        assert numbers(clip) == window(20, 6, 1, default_rng(seed))


def test_pictures_that_cannot_be_decoded_are_not_counted(write_video, tmp_path):
    write_video(tmp_path / "plain.mkv", 24, bf="0")
    # It begins within a group of pictures, as what was cut from a broadcast does.
    path = write_packets(tmp_path / "a.mkv", [(n, 40 * n) for n in range(5, 24)])
    shown = len(decode(path))
    assert shown < 19
    assert examine(path).frames == shown
    assert f"1 videos, {shown} frames" in FolderSource(tmp_path).describe()
    with open_video(path) as video:
        assert sum(1 for _ in video) == shown
