"""Clips of a folder of videos: contiguous, found at any depth, broken ones left out."""

import pytest
from numpy.random import default_rng

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
