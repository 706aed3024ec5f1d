"""Readers of videos and PNGs: exact frames, decord and PyAV, the cache of readers."""

import gc
import os
import signal
import subprocess
import sys
import weakref
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
from datamodules.sources.index import VideoInfo
from datamodules.sources.pyav_reader import PyAvReader
from datamodules.sources.readers import (
    READERS_BYTES,
    DecordReader,
    OpenReaders,
    held_bytes,
    open_reader,
)
from datamodules.sources.source import ClipError, block_length, read_clip, window


def decode(path):
    """All frames of a video, decoded from the first to the last."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def whole(blocks):
    """All frames of blocks; a reader may begin again."""
    frames = {}
    for first, block in blocks:
        assert first <= len(frames)
        frames.update(enumerate(block, first))
    return np.stack([frames[place] for place in range(len(frames))])


def video(path, frames, size=(48, 64), plain=True):
    return path, VideoInfo(0, 0, size[1], size[0], 25.0, frames, plain)


def test_a_count_of_packets_that_is_too_high_sends_the_video_to_pyav(
    numbers, write_video, tmp_path, monkeypatch
):
    pytest.importorskip("decord")
    path = write_video(tmp_path / "b.mp4")
    assert isinstance(open_reader(video(path, 24)), DecordReader)
    monkeypatch.setattr(DecordReader, "__len__", lambda self: 29)
    reader = open_reader(video(path, 24))
    assert isinstance(reader, PyAvReader)
    assert numbers(whole(reader.blocks([3, 5, 23]))) == [3, 5, 23]


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
        assert (whole(reader.blocks(frames)) == shown[frames]).all()


def test_a_clip_does_not_depend_on_what_was_read_before(write_video, tmp_path):
    pytest.importorskip("decord")
    # An AVI with B-frames: decord is some frames off after a seek, but always alike.
    path = write_video(tmp_path / "b.avi", 48, codec="mpeg4", bf="2", q="2")
    kept = DecordReader(path)
    for seed in range(60):
        frames = window(48, 5, 1, default_rng(seed))
        fresh = DecordReader(path)
        assert (whole(kept.blocks(frames)) == whole(fresh.blocks(frames))).all()


@pytest.fixture
def opened(monkeypatch):
    """The names of the videos that were opened."""
    names = []

    def note(video):
        names.append(video[0].stem)
        return open_reader(video)

    monkeypatch.setattr(readers_module, "open_reader", note)
    return names


def test_the_readers_used_last_stay_open_within_a_limit(write_video, tmp_path, opened):
    videos = [video(write_video(tmp_path / f"{n}.mp4", frames=2), 2) for n in "abc"]
    a, b, c = videos
    readers = OpenReaders(2 * held_bytes(a))
    for each in (a, b, a, c, a, c):
        whole(readers.blocks(each, [0]))
    assert opened == ["a", "b", "c"]
    whole(readers.blocks(b, [0]))
    assert opened == ["a", "b", "c", "b"]
    assert [each in readers for each in videos] == [False, True, True]


def test_a_video_above_the_limit_is_closed_after_its_clip(
    write_video, tmp_path, opened
):
    small = video(write_video(tmp_path / "small.mp4"), 24)
    large = video(write_video(tmp_path / "large.mp4", size=(96, 96)), 24, (96, 96))
    readers = OpenReaders(held_bytes(large) - 1)
    for each in (small, large, large, small):
        whole(readers.blocks(each, [0]))
    assert opened == ["small", "large", "large", "small"]
    # Of the videos that training mostly reads, some stay open.
    assert held_bytes((tmp_path, VideoInfo(0, 0, 1920, 1080, 30.0, 9000))) * 3 < (
        READERS_BYTES
    )
    assert held_bytes((tmp_path, VideoInfo(0, 0, 7680, 4320))) > READERS_BYTES


def test_a_reader_that_failed_or_was_left_is_opened_anew(write_video, tmp_path, opened):
    one = video(write_video(tmp_path / "a.mp4", frames=2), 2)
    readers = OpenReaders()
    whole(readers.blocks(one, [0]))
    with pytest.raises(ClipError):
        whole(readers.blocks(one, [9]))
    next(readers.blocks(one, [0, 1]))
    whole(readers.blocks(one, [0]))
    assert opened == ["a"] * 3


def test_readers_are_opened_anew_in_a_forked_process(write_video, tmp_path):
    one = video(write_video(tmp_path / "a.mp4"), 24)
    readers = OpenReaders()
    shown = whole(readers.blocks(one, [3, 4]))
    child = os.fork()
    if not child:
        # To free what the parent opened would wait for the parent's threads.
        signal.alarm(20)
        equal = (whole(readers.blocks(one, [3, 4])) == shown).all()
        os._exit(0 if equal else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (whole(readers.blocks(one, [3, 4])) == shown).all()


@pytest.mark.skipif(not readers_module.has_decord(), reason="needs decord")
def test_decord_decodes_no_further_than_a_clip(write_video, tmp_path):
    """A seek empties its queues, which it would fill in the background."""
    reader = DecordReader(write_video(tmp_path / "a.mp4"))
    decord, calls = reader._video, []

    class Noting:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(decord, name)

    reader._video = Noting()
    whole(reader.blocks(range(20)))
    assert calls == ["seek", "get_batch", "get_batch", "seek"]
    calls.clear()
    next(reader.blocks(range(20)))
    assert calls == ["seek", "get_batch"]


@pytest.mark.parametrize("decord", [True, False])
@pytest.mark.parametrize("limit", [1, 3 * 48 * 64 * 3, 1 << 24])
def test_blocks_of_any_length_are_the_same_frames(
    write_video, tmp_path, monkeypatch, decord, limit
):
    if decord and not readers_module.has_decord():
        pytest.skip("decord is not installed")
    path = write_video(tmp_path / "a.mp4")
    shown = decode(path)
    monkeypatch.setattr("datamodules.sources.source.BLOCK_BYTES", limit)
    assert block_length(48 * 64 * 3) == max(1, limit // (48 * 64 * 3))
    reader = DecordReader(path) if decord else PyAvReader(path)
    for seed, stride in enumerate((1, 1, 2, 3)):
        frames = window(24, 8, stride, default_rng(seed))
        assert (whole(reader.blocks(frames)) == shown[frames]).all()


def test_whole_frames_of_a_clip_never_exist_at_once(write_video, tmp_path):
    """Neither a reader nor what crops keeps a block when the next one comes."""
    path = write_video(tmp_path / "a.mp4")
    kept = []

    def blocks(numbers):
        for first, block in PyAvReader(path).blocks(numbers):
            assert all(each() is None for each in kept)
            kept.append(weakref.ref(block))
            yield first, block
            del block

    clip = read_clip(blocks, 24, default_rng(0), 16, 32, 1)
    assert clip.shape == (16, 32, 32, 3)
    assert len(kept) == 16


def test_decoded_frames_are_freed_without_the_garbage_collector(write_video, tmp_path):
    """A frame that is asked for its side data keeps what keeps it, for ever so long."""
    path = write_video(tmp_path / "a.mp4")
    gc.collect()
    gc.disable()
    try:
        for _ in PyAvReader(path).blocks(list(range(24))):
            pass
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, av.VideoFrame)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left


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
