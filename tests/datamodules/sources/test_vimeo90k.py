"""Clips of Vimeo-90k: the layouts of its lists, and septuplets that are not whole."""

import numpy as np
import pytest
from numpy.random import default_rng

from datamodules.sources.source import ClipError
from datamodules.sources.vimeo90k import Vimeo90KSource


@pytest.fixture
def make_vimeo(write_png):
    """Write septuplets: red says which sequence it is, green which frame."""

    def make(root, names=("00001/0001", "00001/0003", "00002/0001")):
        for sequence, name in enumerate(names):
            for frame in range(7):
                path = root / "sequences" / name / f"im{frame + 1}.png"
                write_png(path, 10 * sequence, 20 * frame)

    return make


LAYOUTS = {
    "sep_trainlist.txt": "00001/0003\n00002/0001\n\n",
    "train.list": "00001/0003/\r\n00002/0001/\r\n",
    "test.txt": "".join(
        f"{prefix}{name}/im{frame}.png\n"
        for prefix, name in (("", "00001/0003"), ("sequences/", "00002/0001"))
        for frame in range(1, 8)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vimeo_reads_the_septuplets_of_every_list_layout(make_vimeo, tmp_path, layout):
    make_vimeo(tmp_path)
    (tmp_path / layout).write_text(LAYOUTS[layout])
    source = Vimeo90KSource(tmp_path)
    assert [source.label(item) for item in range(2)] == ["00001/0003", "00002/0001"]
    assert len(source) == 2
    for item, sequence in ((0, 1), (1, 2)):
        for seed in range(5):
            clip = source.read(item, default_rng(seed), 3, 16, 2)
            assert clip.shape == (3, 16, 16, 3)
            assert (clip[..., 0] == 10 * sequence).all()
            frames = clip[:, 0, 0, 1] // 20
            assert np.diff(frames).tolist() == [2, 2]
            assert (
                np.diff(clip[..., 2].astype(int), axis=2).tolist()
                == [[[1] * 15] * 16] * 3
            )


def test_vimeo_clips_beyond_seven_frames_go_back_and_forth(make_vimeo, tmp_path):
    make_vimeo(tmp_path)
    (tmp_path / "train.list").write_text("00001/0001\n")
    clip = Vimeo90KSource(tmp_path).read(0, default_rng(0), 15, None, 1)
    frames = (clip[:, 0, 0, 1] // 20).tolist()
    assert frames == [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, 0, 1, 2]


def test_vimeo_names_the_folders_that_its_list_has_and_the_disk_has_not(
    make_vimeo, tmp_path
):
    make_vimeo(tmp_path)
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00001/0002\n00009/0001\n")
    message = r"names 2 folders \(of 3\) .*: 00001/0002, 00009/0001\."
    with pytest.raises(ValueError, match=message):
        Vimeo90KSource(tmp_path)


def test_vimeo_says_what_it_looked_for_and_what_it_found(make_vimeo, tmp_path):
    with pytest.raises(ValueError, match="needs `root`"):
        Vimeo90KSource(None)
    with pytest.raises(ValueError, match="does not exist"):
        Vimeo90KSource(tmp_path / "nowhere")
    make_vimeo(tmp_path / "vimeo_septuplet")
    with pytest.raises(ValueError, match=r"sequences/ in .*found vimeo_septuplet/"):
        Vimeo90KSource(tmp_path)
    with pytest.raises(ValueError, match=r"sep_trainlist\.txt, .*found sequences/"):
        Vimeo90KSource(tmp_path / "vimeo_septuplet")
    with pytest.raises(ValueError, match=r"list_file .*mine\.txt' does not exist"):
        Vimeo90KSource(tmp_path / "vimeo_septuplet", "mine.txt")


def test_a_septuplet_without_a_frame_gives_no_clip(make_vimeo, tmp_path):
    make_vimeo(tmp_path)
    (tmp_path / "train.list").write_text("00001/0001\n")
    (tmp_path / "sequences/00001/0001/im3.png").unlink()
    with pytest.raises(ClipError, match=r"frame im3\.png is missing"):
        Vimeo90KSource(tmp_path).read(0, default_rng(0), 7, None, 1)


def test_septuplets_are_too_small_for_a_crop_that_the_first_has_no_room_for(
    make_vimeo, tmp_path
):
    make_vimeo(tmp_path)
    (tmp_path / "train.list").write_text("00001/0001\n00001/0003\n")
    source = Vimeo90KSource(tmp_path)
    assert [source.unfit(item, 7, 24) for item in range(2)] == ["", ""]
    assert source.unfit(1, 7, 25) == "too small: 40x24, the crop is 25x25"
    (tmp_path / "sequences/00001/0001/im1.png").unlink()
    assert Vimeo90KSource(tmp_path).unfit(1, 7, 25) == ""
