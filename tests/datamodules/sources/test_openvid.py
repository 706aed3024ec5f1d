"""Clips of OpenVid: its table, and the videos of it that are there."""

import pytest
from numpy.random import default_rng

from datamodules.sources.openvid import OpenVidSource
from datamodules.sources.source import window


@pytest.fixture
def make_openvid(tmp_path, write_video):
    """Write its table, and some videos into a folder beside it."""

    def make(videos="video"):
        table = tmp_path / "data" / "train" / "OpenVid-1M.csv"
        table.parent.mkdir(parents=True)
        table.write_text(
            "video,caption,fps\n"
            'celebv_-_a.mp4,"A man, who said ""hi"",\nwaves",25\n'
            "---_b_13_0to241.mp4,A dog,30\n"
            "missing.mp4,A cat,30\n"
        )
        for name in ("celebv_-_a.mp4", "---_b_13_0to241.mp4", "unlisted.mp4"):
            write_video(tmp_path / videos / name)

    return make


@pytest.mark.parametrize(
    "videos", ["video", "", "OpenVid_part0", "video/OpenVid_part0"]
)
def test_openvid_uses_the_listed_videos_that_are_there(
    numbers, make_openvid, tmp_path, caplog, videos
):
    make_openvid(videos)
    with caplog.at_level("INFO"):
        source = OpenVidSource(tmp_path)
    names = [source.label(item).split("/")[-1] for item in range(len(source))]
    assert names == ["---_b_13_0to241.mp4", "celebv_-_a.mp4"]
    assert "1 of 3 listed videos are not in" in caplog.text
    assert source.default_stride == 3
    assert numbers(source.read(0, default_rng(3), 4, 32, 3)) == window(
        24, 4, 3, default_rng(3)
    )


def test_openvid_says_what_it_looked_for_and_what_it_found(make_openvid, tmp_path):
    (tmp_path / "OpenVid_part0.zip").touch()
    with pytest.raises(ValueError, match=r"looked for \*\.csv in .*OpenVid_part0\.zip"):
        OpenVidSource(tmp_path)
    make_openvid("else/where")
    message = r"none of the 3 videos .*celebv_-_a\.mp4.*OpenVid_part0\.zip"
    with pytest.raises(ValueError, match=message):
        OpenVidSource(tmp_path)
    with pytest.raises(ValueError, match=r"other\.csv' does not exist"):
        OpenVidSource(tmp_path, "other.csv")


def test_a_caption_of_any_length_and_encoding_is_passed_over(write_video, tmp_path):
    write_video(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4")
    caption = b"caf\xe9 " + b"x" * 200_000
    table = b'\xef\xbb\xbfvideo,caption\na.mp4,"' + caption + b'"\nb.mp4,dog\n'
    (tmp_path / "all.csv").write_bytes(table)
    source = OpenVidSource(tmp_path)
    assert [source.label(item) for item in range(2)] == ["a.mp4", "b.mp4"]
