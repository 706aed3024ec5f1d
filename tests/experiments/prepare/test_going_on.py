"""Nothing that is whole is lost, whatever happens to the processes and the videos."""

import os
import shutil
import subprocess
import sys

import pytest

from datamodules.prepared import shard as shard_module
from datamodules.prepared.store import Store
from experiments.prepare import plan as plan_module
from experiments.prepare import work
from experiments.prepare.command import main


@pytest.fixture
def many_files(monkeypatch):
    """A file for each video."""
    monkeypatch.setattr(plan_module, "SMALLEST_FILE", 1)


@pytest.fixture
def at_second_video(monkeypatch):
    """Call something before the second video is stored; a list of calls."""
    add, calls = shard_module.ShardWriter.add, []

    def arrange(do):
        def called(self, number, path, *rest):
            calls.append(path)
            if len(calls) == 2:
                do()
            return add(self, number, path, *rest)

        monkeypatch.setattr(shard_module.ShardWriter, "add", called)

    return arrange


def stop():
    raise SystemExit


def test_a_store_goes_on_from_another_folder(
    prepare, clips, store, at_second_video, monkeypatch, many_files
):
    at_second_video(stop)
    monkeypatch.chdir(clips.parent)
    with pytest.raises(SystemExit):
        prepare(videos=clips.name)
    monkeypatch.chdir(store.parent)
    # Videos are looked for where this command says that they are.
    assert prepare() == 0
    assert len(Store.open(store).videos) == 4


def test_videos_that_have_gone_end_it_and_are_not_left_out(
    prepare, clips, store, tmp_path, at_second_video, capsys
):
    videos = tmp_path / "mounted"
    shutil.copytree(clips, videos)
    at_second_video(lambda: videos.rename(tmp_path / "lost"))
    assert prepare(videos=videos) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {videos}") and "restore it, and the same" in said
    (tmp_path / "lost").rename(videos)
    assert prepare(videos=videos) == 0
    opened = Store.open(store)
    assert (len(opened.videos), opened.skipped) == (4, {})


def test_a_second_command_does_not_begin_a_finished_store_anew(
    prepare, store, monkeypatch, many_files
):
    make_files = work._make_files

    def late(*rest):
        # The other one was faster, and has finished the store meanwhile.
        monkeypatch.setattr(work, "_make_files", make_files)
        assert prepare() == 0
        monkeypatch.setattr(work, "ShardWriter", None)
        return make_files(*rest)

    monkeypatch.setattr(work, "_make_files", late)
    assert prepare() == 0
    assert not list(store.glob("*.journal"))


def test_a_file_that_somebody_is_at_keeps_its_journal(prepare, store, monkeypatch):
    write_store = work.write_store

    def finish(*rest):
        write_store(*rest)
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(store / ".00000.lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout.readline()
        holders.append(holder)

    holders = []
    monkeypatch.setattr(work, "write_store", finish)
    assert prepare() == 0
    holders[0].communicate(b"\n")
    assert [path.name for path in store.glob("*.journal")] == ["00000.journal"]


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


def test_a_store_that_others_have_finished_meanwhile_is_no_error(
    prepare, store, monkeypatch
):
    make_files = work._make_files
    monkeypatch.setattr(work, "_make_files", lambda *rest: make_files(*rest) or 1)
    assert prepare() == 0


def test_what_could_not_begin_leaves_no_trace(prepare, clips, store, tmp_path, capsys):
    assert prepare(videos=tmp_path / "none") == 2
    assert not store.exists()
    (store / "mine").mkdir(parents=True)
    assert prepare() == prepare("--dry_run") == 2
    assert "it holds mine/: choose" in capsys.readouterr().err
    assert os.listdir(store) == ["mine"]
    (store / "mine").rmdir()
    assert prepare() == 0
    capsys.readouterr()
    assert prepare("--height", 20, "--dry_run") == 2
    assert "with other options (height: None -> 20)" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([str(clips), str(tmp_path / "file")]) == 2
    assert "error: OUT: " in capsys.readouterr().err
