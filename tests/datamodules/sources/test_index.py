"""The index of a folder of videos: kept, built anew, and where it lies."""

import json
import os

import pytest

from datamodules.sources import index as index_module
from datamodules.sources.folder import FolderSource
from datamodules.sources.index import NAME, VERSION


def test_the_index_is_kept_and_used_while_size_and_time_agree(
    tmp_path, write_video, examined
):
    write_video(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4")
    FolderSource(tmp_path)
    kept = json.loads((tmp_path / NAME).read_text())["videos"]["a.mp4"]
    assert (kept["width"], kept["height"], kept["frames"]) == (64, 48, 24)
    assert (kept["fps"], kept["error"]) == (25.0, "")
    assert kept["size"] == (tmp_path / "a.mp4").stat().st_size

    examined.clear()
    FolderSource(tmp_path)
    assert examined == []
    write_video(tmp_path / "b.mp4", frames=9)
    assert "33 frames" in FolderSource(tmp_path).describe()
    assert examined == ["b.mp4"]


@pytest.mark.parametrize(
    "text", ["{", "[]", json.dumps({"version": VERSION, "videos": {"a": 3}})]
)
def test_a_damaged_index_is_built_anew_with_a_warning(
    write_video, tmp_path, caplog, text
):
    write_video(tmp_path / "a.mp4")
    (tmp_path / NAME).write_text(text)
    assert len(FolderSource(tmp_path)) == 1
    assert "cannot be used" in caplog.text
    assert json.loads((tmp_path / NAME).read_text())["videos"]["a.mp4"]["frames"] == 24


def test_the_index_of_a_read_only_tree_lies_in_the_cache_directory(
    tmp_path, monkeypatch, write_video, read_only
):
    root = tmp_path / "root"
    write_video(root / "a.mp4")
    with read_only(root):
        FolderSource(root)
        assert os.listdir(root) == ["a.mp4"]
        assert len(list((tmp_path / "cache").rglob("index_*.json"))) == 1
        monkeypatch.setattr(index_module, "examine", None)
        assert len(FolderSource(root)) == 1
