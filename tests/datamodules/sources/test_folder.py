"""Clips of a folder of videos: contiguous, found at any depth, broken ones left out."""

import os
from itertools import product

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.random import default_rng

from datamodules.frames import open_video
from datamodules.sequences.files import read_codes
from datamodules.sequences.find import find_sequences
from datamodules.sources import readers as readers_module
from datamodules.sources.folder import FolderSource
from datamodules.sources.source import ClipError, window


@pytest.mark.parametrize("decord", [True, False])
def test_a_training_clip_is_contiguous_with_the_right_stride(
    numbers, write_video, tmp_path, monkeypatch, decord
):
    if decord and not readers_module.has_decord():
        pytest.skip("decord is not installed")
    write_video(tmp_path / "a" / "b.mp4")
    monkeypatch.setattr(readers_module, "has_decord", lambda: decord)
    source = FolderSource(tmp_path)
    for seed in range(20):
        clip = source.read(0, default_rng(seed), 5, 32, 3)
        assert clip.shape == (5, 32, 32, 3)
        assert numbers(clip) == window(24, 5, 3, default_rng(seed))


def test_a_fixed_clip_is_the_same_every_time(numbers, write_video, tmp_path):
    write_video(tmp_path / "b.mp4")
    source = FolderSource(tmp_path)
    first = source.read(0, None, 6, None, 1)
    assert numbers(first) == [9, 10, 11, 12, 13, 14]
    assert (source.read(0, None, 6, None, 1) == first).all()


def test_a_short_video_is_extended_in_the_order_of_its_frames(
    numbers, write_video, tmp_path
):
    write_video(tmp_path / "b.mp4", frames=4)
    clip = FolderSource(tmp_path).read(0, default_rng(0), 8, None, 1)
    assert numbers(clip) == [0, 1, 2, 3, 2, 1, 0, 1]


def test_a_folder_finds_videos_and_png_directories_of_any_depth(
    write_png, write_video, tmp_path
):
    write_video(tmp_path / "x" / "b.mp4")
    write_video(tmp_path / "b.MKV", codec="ffv1")
    write_video(tmp_path / ".hidden" / "b.mp4")
    for number in range(1, 13):
        write_png(tmp_path / "y" / "frames" / f"im{number}.png", number, 0)
    (tmp_path / "y" / "notes.txt").write_text("no video")
    source = FolderSource(tmp_path)
    labels = [source.label(item) for item in range(len(source))]
    assert labels == ["b.MKV", "x/b.mp4", "y/frames"]
    clip = source.read(2, default_rng(0), 12, None, 1)
    assert clip[:, 0, 0, 0].tolist() == list(range(1, 13))
    assert "3 videos, 60 frames" in source.describe()


def test_a_broken_video_is_left_out_by_name_and_a_small_one_refuses(
    write_png, write_video, tmp_path
):
    write_video(tmp_path / "good.mp4")
    whole = write_video(tmp_path / "small.mp4", size=(32, 32)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:300])
    (tmp_path / "empty.webm").touch()
    (tmp_path / "text.avi").write_text("not a video")
    for number, width in ((1, 40), (2, 44)):
        write_png(tmp_path / "stills" / f"{number}.png", 0, 0, (24, width))
    source = FolderSource(tmp_path)
    assert sorted(source.skipped) == ["cut.mp4", "empty.webm", "stills", "text.avi"]
    assert source.skipped["empty.webm"] == "the file is empty"
    assert "1.png is 40x24, 2.png is 44x24" in source.skipped["stills"]
    assert [source.label(item) for item in range(2)] == ["good.mp4", "small.mp4"]
    source.read(0, default_rng(0), 2, 48, 1)
    with pytest.raises(ClipError, match="too small: 32x32, the crop is 48x48"):
        source.read(1, default_rng(0), 2, 48, 1)


def test_a_video_that_vanishes_or_breaks_later_is_a_clip_error(write_video, tmp_path):
    gone = write_video(tmp_path / "gone.mp4")
    broken = write_video(tmp_path / "broken.mp4")
    source = FolderSource(tmp_path)
    gone.unlink()
    broken.write_bytes(b"x" * 2000)
    for item in (0, 1):
        for draw in (default_rng(0), None):
            with pytest.raises(ClipError):
                source.read(item, draw, 4, 32, 1)


def test_an_empty_or_useless_tree_is_refused(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mp3").touch()
    with pytest.raises(ValueError, match=r"\.webm.*found music/"):
        FolderSource(tmp_path)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"none of the 1 videos .*the file is empty"):
        FolderSource(tmp_path)
    with pytest.raises(ValueError, match="is not a directory"):
        FolderSource(tmp_path / "a.mp4")


def test_a_tag_and_a_name_that_are_not_utf8_are_read(numbers, write_video, tmp_path):
    video = write_video(tmp_path / "tag.mp4").read_bytes()
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(video)
    # The name of the handler is one of the tags.
    assert b"VideoHandler" in video
    (tmp_path / "tag.mp4").write_bytes(
        video.replace(b"VideoHandler", b"Vid\xe9\xffHandler")
    )
    for source in (FolderSource(tmp_path), FolderSource(tmp_path)):
        assert [source.label(i) for i in range(2)] == ["caf\\xe9.mp4", "tag.mp4"]
        for item in range(2):
            assert numbers(source.read(item, None, 2, None, 1)) == [11, 12]
            clip = source.read(item, default_rng(0), 5, 32, 1)
            assert numbers(clip) == window(24, 5, 1, default_rng(0))
        assert "2 videos, 48 frames" in source.describe()


def test_a_codec_without_decoder_is_left_out(write_video, tmp_path):
    video = write_video(tmp_path / "a.mp4").read_bytes()
    assert b"avc1" in video
    (tmp_path / "codec.mp4").write_bytes(video.replace(b"avc1", b"xqz1"))
    source = FolderSource(tmp_path)
    assert [source.label(0), len(source)] == ["a.mp4", 1]
    assert "no decoder" in source.skipped["codec.mp4"]


def test_directories_of_jpeg_frames_are_videos(write_video, tmp_path):
    write_video(tmp_path / "a.mp4")
    cv2.imwrite(str(tmp_path / "preview.jpg"), np.zeros((8, 8, 3), np.uint8))
    for number in range(4):
        (tmp_path / "bear").mkdir(exist_ok=True)
        picture = np.full((40, 56, 3), 50 * number, np.uint8)
        suffix = ".JPG" if number else ".jpeg"
        cv2.imwrite(str(tmp_path / "bear" / f"{number:05}{suffix}"), picture)
    source = FolderSource(tmp_path)
    assert [source.label(item) for item in range(len(source))] == ["a.mp4", "bear"]
    clip = source.read(1, default_rng(0), 4, None, 1)
    assert clip[:, 0, 0, 0].tolist() == [0, 50, 100, 150]
    cut = tmp_path / "bear" / "00002.JPG"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(ClipError, match=r"00002\.JPG cannot be decoded: it is cut"):
        source.read(1, default_rng(0), 4, None, 1)
    last = tmp_path / "bear" / "00003.JPG"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    (tmp_path / ".clip_index.json").unlink()
    assert "00003.JPG" in FolderSource(tmp_path).skipped["bear"]


def test_a_y4m_has_the_colours_that_commands_read(tmp_path):
    header = b"YUV4MPEG2 W64 H48 F25:1 C420jpeg\n"
    frame = bytes([200]) * 64 * 48 + bytes([110]) * 32 * 24 + bytes([140]) * 32 * 24
    other = bytes([16]) * 64 * 48 + bytes([128]) * 2 * 32 * 24
    video = tmp_path / "a.y4m"
    for text in (b"FRAME\n", b"FRAME Ip\n"):
        video.write_bytes(header + text + other + (text + frame) * 3)
        source = FolderSource(tmp_path)
        for rng in (default_rng(0), None):
            clip = source.read(0, rng, 4, 32, 1)
            assert (clip[1:] == [220, 197, 168]).all()
            assert np.abs(clip[0].astype(int) - 16).max() <= 1
        # As encode and evaluate read them.
        with open_video(video) as frames:
            coded = (255 * torch.stack(list(frames))).round()
        (sequence,) = find_sequences([str(video)])
        measured = [np.stack(codes) for codes in read_codes(sequence, "rgb")]
        for read in (coded.numpy(), np.stack(measured)):
            assert (read[1:].transpose(0, 2, 3, 1) == [220, 197, 168]).all()
    video.write_bytes(header[:-1] + b" XCOLORRANGE=LIMITED\nFRAME\n" + other)
    assert (FolderSource(tmp_path).read(0, None, 1, None, 1) <= 1).all()


MATRICES = {
    "hflip": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "vflip": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "turned": ((0, 1, -1, 0), lambda picture: np.rot90(picture, 3)),
    "almost": ((0.0005, 1, -1, 0.0005), lambda picture: np.rot90(picture, 3)),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.swapaxes(0, 1)),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_videos_are_shown_as_their_display_matrix_says(tmp_path, matrix):
    (a, b, c, d), turn = MATRICES[matrix]
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        values = [value * 65536 for value in (a, b, 0, c, d, 0, 0, 0)]
        stream.set_display_matrix([*values, 1 << 30])
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    source, upright = FolderSource(tmp_path), turn(picture)
    clips = [source.read(0, rng, 3, None, 1) for rng in (default_rng(0), None)]
    with open_video(path) as video:
        clips.append(np.stack([255 * f.permute(1, 2, 0).numpy() for f in video]))
    for clip in clips:
        assert clip.shape == (3, *upright.shape)
        assert np.abs(clip - upright.astype(float)).mean() < 8


def read_everywhere(path):
    """Return a video's frames as each command reads them, (T, H, W, 3), 0 to 255."""
    (sequence,) = find_sequences([str(path)])
    with open_video(path) as video:
        shown = np.stack([255 * f.permute(1, 2, 0).numpy() for f in video])
    codes = np.stack([np.stack(planes) for planes in read_codes(sequence, "rgb")])
    source = FolderSource(path.parent)
    clips = [source.read(0, rng, len(shown), None, 1) for rng in (default_rng(0), None)]
    return [shown, codes.transpose(0, 2, 3, 1), *clips]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_two_video_tracks_all_read_the_same(tmp_path, suffix):
    """Of equal rank in an MP4, where decord chooses the larger one."""
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        tracks = []
        for size, grey in ((64, 200), (96, 50)):
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = size, size, "yuv420p"
            picture = np.full((size, size, 3), grey, np.uint8)
            tracks.append((stream, av.VideoFrame.from_ndarray(picture, "rgb24")))
        for number, (stream, frame) in product(range(4), tracks):
            frame.pts = number
            container.mux(stream.encode(frame))
        for stream, _ in tracks:
            container.mux(stream.encode())
    shown, *others = read_everywhere(path)
    for frames in others:
        assert frames.shape == shown.shape
        assert np.abs(frames - shown).max() < 2


@pytest.mark.parametrize("frames", [4, 0])
def test_a_cover_is_no_video(tmp_path, frames):
    """A picture beside the frames, larger than they are; or alone in its file."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 96, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        if frames:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            picture = np.full((48, 64, 3), 200, np.uint8)
            for _ in range(frames):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        _, jpeg = cv2.imencode(".jpg", np.full((96, 96, 3), 50, np.uint8))
        packet = av.Packet(jpeg.tobytes())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        container.mux(packet)
    if frames:
        for read in read_everywhere(path):
            assert read.shape == (frames, 48, 64, 3)
            assert np.abs(read - 200.0).max() < 2
        return
    for refused in (open_video, FolderSource, lambda path: find_sequences([str(path)])):
        place = path if refused is not FolderSource else tmp_path
        with pytest.raises(ValueError, match=r"a\.mp4: no video stream"):
            refused(place)
