"""What names sequences: directories, variables, and what is refused."""

import os

import cv2
import numpy as np
import pytest

from datamodules.sequences.files import read_codes
from datamodules.sequences.find import find_sequences


def test_a_directory_gives_all_that_is_below_it(samples, tmp_path, caplog):
    root = tmp_path / "clips"
    samples.write_raw(root / "deep" / "a_24x16_50.yuv", 0, 16, 24, 3)
    samples.write_y4m(root / "b.y4m", 1, 16, 24, 2)
    samples.write_pngs(root / "c", 2, 16, 24, 4)
    samples.write_pngs(root / "stills", 3, 16, 24, 2, "{}_of_two.png")
    (root / "notes.txt").touch()
    found = find_sequences([f"{root}/."])
    assert [(s.set, s.name, s.frames) for s in found] == [
        ("clips", "b", 2),
        ("clips", "c", 4),
        ("clips", "deep_a_24x16_50", 3),
    ]
    assert "stills is no sequence" in caplog.text
    # All there is, where no list says how much there must be.
    assert [len(list(read_codes(s, "yuv420", 3))) for s in found] == [2, 3, 3]
    assert samples.same(
        next(read_codes(found[2], "yuv420")), samples.codes_of(0, 0, 16, 24)
    )


def test_all_that_is_wrong_with_a_directory_is_said_at_once(samples, message, tmp_path):
    for name in (
        "a.yuv",
        "b_12x10_25_10bit.yuv",
        "c_13x10_25.yuv",
        "d_12x10_25.yuv",
        "i_12x10_25_422.yuv",
    ):
        samples.write_raw(tmp_path / name, 0, 10, 12, 2)
    (tmp_path / "d_12x10_25.yuv").write_bytes(b"")
    samples.write_y4m(tmp_path / "e.y4m", 0, 10, 12, 2, "C420p10")
    samples.write_y4m(tmp_path / "f.y4m", 0, 10, 12, 2, "C444")
    samples.write_pngs(tmp_path / "g", 0, 10, 12, 3)
    (tmp_path / "g" / "im00002.png").unlink()
    (tmp_path / "h.mp4").write_text("no video")
    said = message(tmp_path)
    for part in (
        "a.yuv must say its size and frames per second in its name, like name_416x240",
        "b_12x10_25_10bit.yuv has 10 bits by its name, only 8",
        "i_12x10_25_422.yuv has 422 chroma by its name, only 420 is read",
        "c_13x10_25.yuv has 360 bytes, which is not a whole number of 13x10",
        "d_12x10_25.yuv holds no frame",
        "e.y4m has 10 bits, only 8",
        "f.y4m is no y4m that can be read: its samples are C444, only 4:2:0",
        "im00001.png is followed by im00003.png",
        "h.mp4 cannot be opened",
    ):
        assert part in said


def test_a_stray_image_is_not_taken_for_a_frame(samples, message, tmp_path):
    samples.write_pngs(tmp_path / "a", 0, 10, 12, 3)
    (tmp_path / "a" / "im00001.png").rename(tmp_path / "a" / "cover.png")
    (tmp_path / "a" / "im00003.png").rename(tmp_path / "a" / "im00001.png")
    assert "cover.png is followed by im00001.png" in message(tmp_path)


def test_variables_are_expanded(samples, message, tmp_path, monkeypatch):
    samples.write_hevc_d(tmp_path / "hevc" / "d")
    monkeypatch.setenv("TEST_SETS", str(tmp_path / "hevc"))
    (one, *_) = find_sequences(["hevc_d=${TEST_SETS}/d"])
    assert one.path == tmp_path / "hevc" / "d" / "BQSquare_416x240_60.yuv"
    assert len(find_sequences(["$TEST_SETS"])) == 4
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(find_sequences(["hevc_d=~/hevc", "~/hevc/d"])) == 8
    monkeypatch.delenv("TEST_SETS")
    assert "variable TEST_SETS is not set" in message("hevc_d=${TEST_SETS}/d")


def test_what_names_nothing_is_refused(message, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no standard set 'vimeo', only uvg, mcl_jcv" in message(f"vimeo={tmp_path}")
    assert "hevc_e, patterns and stills" in message(f"{tmp_path}/no=thing")
    assert "write uvg:Beauty=ROOT" in message("uvg:Beauty")
    assert "there is no such file or directory" in message(tmp_path / "no.mp4")
    assert "there is no directory" in message(f"uvg={tmp_path}/no")
    assert "found nothing: the directory is empty" in message(tmp_path / "empty")
    with pytest.raises(ValueError, match="no sequences"):
        find_sequences([])


def test_a_directory_cannot_pass_for_a_standard_set(samples, message, tmp_path):
    path = samples.write_y4m(tmp_path / "Beauty.y4m", 0, 10, 12, 1)
    (tmp_path / "uvg").mkdir()
    path = path.rename(tmp_path / "uvg" / "Beauty.y4m")
    assert f"write uvg={tmp_path / 'uvg'} if it is that" in message(tmp_path / "uvg")
    assert "called like a standard set" in message(path)


def test_the_same_sequence_twice_is_refused(samples, message, tmp_path):
    path = samples.write_y4m(tmp_path / "a.y4m", 0, 10, 12, 1)
    for specs in ([path, path], [tmp_path, path]):
        with pytest.raises(ValueError, match=r"'a' of set .* is named twice"):
            find_sequences([str(spec) for spec in specs])
    samples.write_pngs(tmp_path / "a", 0, 10, 12, 1)
    assert f"{tmp_path / 'a'} and {path}" in message(tmp_path)


def test_jpeg_frames_and_names_that_are_not_utf8_are_sequences(
    samples, tmp_path, write_video
):
    root = tmp_path / "clips"
    for number in range(2):
        (root / "bear").mkdir(parents=True, exist_ok=True)
        picture = np.full((10, 12, 3), 80 * number, np.uint8)
        cv2.imwrite(str(root / "bear" / f"{number:05}.jpg"), picture)
    video = write_video(root / "b.mp4", 3)
    video.rename(root / os.fsdecode(b"caf\xe9.mp4"))
    found = find_sequences([str(root)])
    assert [(s.name, s.frames) for s in found] == [("bear", 2), ("caf\\xe9", 3)]
    assert [len(list(read_codes(s, "rgb"))) for s in found] == [2, 3]


def test_a_codec_without_decoder_is_said_and_a_strange_tag_is_read(
    message, tmp_path, write_video
):
    path = write_video(tmp_path / "a.mp4", 3)
    video = path.read_bytes()
    path.write_bytes(video.replace(b"VideoHandler", b"Vid\xe9\xffHandler"))
    assert find_sequences([str(path)])[0].frames == 3
    path.write_bytes(video.replace(b"avc1", b"xqz1"))
    assert "a.mp4: FFmpeg has no decoder for the codec" in message(path)
