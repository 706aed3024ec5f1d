"""What is said of the data before anything trains, and of videos that fail."""

import re
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from datamodules.options import DataOptions
from datamodules.sources import index as index_module
from datamodules.sources.folder import FolderSource
from datamodules.sources.source import ClipError
from datamodules.video import VideoDataModule


def start(crop=16, base=None, **row):
    data = VideoDataModule(
        DataOptions(**{"workers": 0, "val_clips": 1, **(base or {})})
    )
    data.start_stage(0, 3, crop, 4, **row)
    return data


# A row of the schedule


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"source": "foo"}, "no source 'foo': choose synthetic, folder"),
        ({"source": ["folder"]}, r"source is \['folder'\], it must be a name"),
        ({"source": None}, "source is None, it must be a name"),
        ({"source": "folder"}, "'folder' needs `root`"),
        ({"source": "folder", "root": "nope"}, "nope' does not exist"),
        ({"source": "vimeo90k", "root": "nope"}, "nope' does not exist"),
        ({"source": "openvid", "root": "nope"}, "nope' does not exist"),
        ({"source": "folder", "root": __file__}, "is not a directory"),
        ({"source": "vimeo90k", "root": ".", "list_file": "no"}, "list_file 'no' does"),
        ({"source": "openvid", "root": ".", "list_file": "no"}, "list_file 'no' does"),
        ({"source": "folder", "root": ".", "list_file": "no"}, "has no list_file"),
        ({"root": "."}, "'synthetic' has no root"),
        ({"val_source": "foo"}, "no source 'foo'"),
        ({"val_source": "folder", "val_root": "nope"}, "nope' does not exist"),
        ({"stride": "foo"}, "stride is 'foo', it must be a whole number, at least 1, "),
        ({"stride": 1.5}, "stride is 1.5, it must be a whole number"),
        ({"val_stride": 0}, "val_stride is 0, it must be a whole number, at least 1, "),
        ({"root": 5}, "root is 5, it must be a name .text., or null"),
        ({"flip": "no"}, "flip is 'no', it must be true or false$"),
        ({"workers": None}, "workers is None, it must be a whole number, at least 0$"),
        ({"workers": True}, "workers is True, it must be a whole number"),
        ({"val_crop": 3}, "val_crop is 3, it must be a whole number, at least 4, or "),
    ],
)
def test_a_wrong_row_is_refused_before_anything_is_opened(row, message):
    with pytest.raises(ValueError, match=message):
        start(**row)


def test_a_right_row_is_accepted_without_reading_videos(
    write_video, tmp_path, monkeypatch
):
    write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(index_module, "examine", None)
    start(source="folder", root=str(tmp_path), stride=None, list_file=None)
    start(val_source="folder", val_root=str(tmp_path))
    # Nothing validates, so it does not matter where.
    start(val_source="folder", val_root="nope", val_clips=0)


def test_a_refused_row_changes_nothing():
    data = start()
    with pytest.raises(ValueError, match="nope"):
        data.start_stage(1, 3, 16, 4, source="folder", root="nope")
    assert "synthetic" in data.describe()


def test_the_smallest_crop_is_the_smallest_that_can_be_drawn():
    with pytest.raises(ValueError, match="crop is 3, it must be at least 4"):
        start(crop=3)
    source = start(crop=4, base={"val_crop": 4})._open().train
    for item in range(20):
        clip = source.read(item, np.random.default_rng(item), 2, 4, 1)
        assert clip.shape == (2, 4, 4, 3)


# Videos that fail


def test_an_error_that_passes_is_not_held_against_a_video(
    write_video, tmp_path, monkeypatch
):
    for name in "abc":
        write_video(tmp_path / f"{name}.mp4")
    opened = av.open
    failing = [str(tmp_path / "b.mp4")]

    def fail_once(name, **options):
        if name in failing:
            failing.remove(name)
            raise PermissionError(13, "Permission denied", name)
        return opened(name, **options)

    monkeypatch.setattr(av, "open", fail_once)
    first = start(source="folder", root=str(tmp_path))
    first.prepare_data()
    assert "Permission denied" in first.failures()["b.mp4"]
    # The other processes of the run take the first one's word for it.
    other = start(source="folder", root=str(tmp_path))
    other.setup("fit")
    assert sorted(other.failures()) == ["b.mp4"]
    again = start(source="folder", root=str(tmp_path))
    again.prepare_data()
    assert again.failures() == {}
    assert "3 videos" in again.describe()


def test_at_the_next_start_only_broken_videos_are_examined(
    tmp_path, write_video, examined
):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "broken.mp4").write_text("not a video")
    start(source="folder", root=str(tmp_path)).prepare_data()
    assert sorted(examined) == ["a.mp4", "broken.mp4"]
    examined.clear()
    again = start(val_source="folder", val_root=str(tmp_path))
    again.prepare_data()
    again.prepare_data()
    assert examined == ["broken.mp4"]


def test_the_index_that_was_written_last_counts(
    tmp_path, write_video, read_only, examined
):
    root = tmp_path / "root"
    broken = write_video(root / "a.mp4").with_name("b.mp4")
    broken.write_text("not a video")
    with read_only(root):
        FolderSource(root)
    index_module.forget_errors(root)
    examined.clear()
    FolderSource(root)
    assert examined == ["b.mp4"]


def test_a_link_that_points_nowhere_is_called_that(write_video, tmp_path):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").symlink_to("gone.mp4")
    skipped = FolderSource(tmp_path).skipped
    assert skipped == {"b.mp4": "the link points nowhere: there is no gone.mp4"}


def test_only_validation_clips_are_named_where_none_can_be_read(tmp_path):
    for video in range(6):
        folder = tmp_path / f"video_{video}"
        folder.mkdir()
        for frame in range(3):
            picture = np.zeros((32, 32, 3), np.uint8)
            cv2.imwrite(str(folder / f"{frame}.png"), picture)
    (tmp_path / "broken.mp4").write_text("not a video")
    data = start(source="folder", root=str(tmp_path))
    data.setup("fit")
    (tmp_path / "video_5" / "1.png").write_text("damaged")
    said = "none of the 1 validation clips can be read: video_5: frame 1.png cannot be"
    with pytest.raises(ClipError, match=f"^{re.escape(said)} decoded: it is cut"):
        data.val_dataloader()
    assert sorted(data.failures()) == ["broken.mp4", "video_5"]


# Videos too small for a stage


def folder_of(write_video, root, small):
    for number in range(20):
        size = (32, 32) if number < small else (64, 64)
        write_video(root / f"{number:02}.mp4", 2, size)
    return {"source": "folder", "root": str(root)}


def test_videos_smaller_than_a_stage_are_left_out_of_that_stage(
    write_video, tmp_path, caplog
):
    row = folder_of(write_video, tmp_path, 17)
    data = start(base={"val_clips": 0}, **row)
    data.start_stage(1, 2, 48, 4, name="late", **row)
    data.trainer = SimpleNamespace(
        global_step=0, global_rank=0, world_size=1, accumulate_grad_batches=1
    )
    data.prepare_data()
    assert "stage 'late': 17 of 20 videos cannot give clips" in caplog.text
    assert "(00.mp4: too small: 32x32, the crop is 48x48; " in caplog.text
    # A stage that leaves nothing out draws from all, in the order of before.
    whole = [data._train_items(*started)[0] for started in data._started.values()]
    assert whole == [list(range(20)), [17, 18, 19]]
    clips = iter(data.train_dataloader())
    for _ in range(20):
        assert next(clips)["failures"] == []


def test_a_late_stage_without_a_video_is_refused_before_the_first(
    write_video, tmp_path
):
    row = folder_of(write_video, tmp_path, 0)
    data = start(base={"val_clips": 0}, **row)
    data.start_stage(1, 2, 80, 4, name="late", **row)
    data.start_stage(0, 2, 16, 4, name="first", **row)
    said = "^stage 'late': no video is left to train on: 20 of 20 videos cannot give"
    with pytest.raises(ValueError, match=said):
        data.prepare_data()


def test_videos_of_one_frame_are_left_out_where_clips_have_several(
    write_video, tmp_path
):
    write_video(tmp_path / "still.mp4", 1)
    write_video(tmp_path / "video.mp4", 2)
    data = start(base={"val_clips": 0}, source="folder", root=str(tmp_path))
    assert data._train_items(*data._started[0])[0] == [1]
