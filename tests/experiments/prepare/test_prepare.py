"""A store holds what the folder holds, whoever made it and however it was stopped."""

import errno
import json
import os
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from numpy.random import default_rng

from datamodules.options import DataOptions
from datamodules.prepared import shard as shard_module
from datamodules.prepared.store import Store
from datamodules.sources.folder import FolderSource
from datamodules.sources.opening import open_sources
from datamodules.sources.prepared import PreparedSource
from datamodules.sources.source import ClipError
from datamodules.video import VideoDataModule
from experiments.fit.stores import with_fingerprints
from experiments.prepare import estimate as estimate_module
from experiments.prepare import plan as plan_module
from experiments.prepare.command import main
from lightning_modules.stages import Stage

ONE_SHOT = ("--format", "rgb", "--threshold", "0")


def bytes_of(folder):
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def many_files(monkeypatch):
    """A file for each video."""
    monkeypatch.setattr(plan_module, "SMALLEST_FILE", 1)


# Content


def test_rgb_gives_the_clips_of_the_folder_bit_by_bit(prepare, clips, store):
    assert prepare(*ONE_SHOT) == 0
    folder, prepared = FolderSource(clips), PreparedSource(store)
    assert len(prepared) == len(folder) == 4
    for item in range(4):
        for crop, frames, stride in (
            (None, 5, 1),
            (33, 4, 2),
            (48, 30, 1),
            (40, 3, 11),
        ):
            for seed in (0, 1):
                a, b = (
                    source.read(item, default_rng(seed), frames, crop, stride)
                    for source in (folder, prepared)
                )
                assert np.array_equal(a, b)
            a, b = (
                s.read(item, None, frames, crop, stride) for s in (folder, prepared)
            )
            assert np.array_equal(a, b)


def test_no_clip_runs_over_a_cut_and_short_shots_are_left_out(prepare, store):
    assert prepare("--min_frames", 5) == 0
    source = PreparedSource(store)
    labels = [source.label(item) for item in range(len(source))]
    assert labels == [
        "a.mp4 frames 0-8",
        "b/b.mkv frames 0-7",
        "b/b.mkv frames 8-19",
        "c.mp4 frames 0-9",
        "c.mp4 frames 13-21",
        "d.webm frames 0-6",
    ]
    said = source.describe()
    assert "4 videos, 6 shots, 55 frames" in said and source.fingerprint in said


def test_stride_size_and_most_frames(prepare, clips, store):
    options = ("--stride", 2, "--height", 24, "--max_frames", 5, "--min_frames", 4)
    assert prepare(*options, "--format", "rgb") == 0
    source = PreparedSource(store)
    labels = [source.label(item) for item in range(len(source))]
    # The fifth frame of b is the first one of its second shot, alone.
    assert labels[:2] == ["a.mp4 frames 0-8", "b/b.mkv frames 0-6"]
    assert source.read(1, None, 2, None, 1).shape == (2, 24, 32, 3)
    whole = FolderSource(clips).read(0, None, 9, None, 1)
    small = source.read(0, None, 5, None, 1)
    means = whole[::2].reshape(5, 24, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(small - means).max() <= 0.5
    assert source.unfit(0, 3, 33) == "too small: 32x24, the crop is 33x33"


@pytest.mark.parametrize("name", ["yuv420", "jpeg"])
def test_other_formats_are_near_the_folders_frames(prepare, clips, store, name):
    assert prepare("--format", name, "--threshold", 0) == 0
    folder, prepared = FolderSource(clips), PreparedSource(store)
    for item in range(4):
        a, b = (s.read(item, None, 7, None, 1) for s in (folder, prepared))
        error = np.square(a.astype(float) - b).mean()
        # More than 40 dB; the first of these sources has no colour below 2x2 pixels.
        assert error < 6.5


def test_videos_are_held_out_whole(prepare, store):
    prepare("--min_frames", 3)
    options = DataOptions(source="prepared", root=str(store), val_clips=2)
    opened = open_sources(options)
    train = {opened.train.label(item).split()[0] for item in opened.train_items}
    held = [opened.val.label(item) for item in opened.val_items]
    assert train == {"a.mp4", "b/b.mkv"}
    assert held == ["c.mp4 frames 0-9", "d.webm frames 0-6"]
    few = open_sources(DataOptions(source="prepared", root=str(store), val_clips=3))
    assert len(few.train_items) == len(few.train) and len(few.val_items) == 3


def batches(store, workers, step=0, count=4):
    data = VideoDataModule(
        DataOptions(source="prepared", root=str(store), workers=workers, val_clips=0)
    )
    data.start_stage(0, 3, 32, 2)
    data.trainer = SimpleNamespace(
        global_step=step, global_rank=0, world_size=1, accumulate_grad_batches=1
    )
    data.prepare_data()
    loader = iter(data.train_dataloader())
    return [next(loader) for _ in range(count)]


def test_a_sample_is_the_same_whoever_reads_it_and_from_whichever_step(prepare, store):
    prepare()
    first = batches(store, 0)
    for other in (batches(store, 2), [None, None, *batches(store, 0, 2, 2)]):
        for a, b in zip(first, other, strict=True):
            assert b is None or torch.equal(a["clip"], b["clip"])
            assert b is None or torch.equal(a["index"], b["index"])


# Stopping and going on


def test_workers_ranks_and_kills_change_no_byte(
    prepare, tmp_path, monkeypatch, many_files, capsys
):
    assert prepare(store=tmp_path / "once") == 0
    want = bytes_of(tmp_path / "once")
    assert len(want) == 6
    # Two ranks, the one after the other.
    ranked = tmp_path / "ranked"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        assert prepare(store=ranked) == 0
    assert bytes_of(ranked) == want
    monkeypatch.delenv("RANK")
    # Killed while a video was appended, and while the journal was.
    killed = tmp_path / "killed"
    add = shard_module.ShardWriter.add

    def die_at_the_third(self, number, *rest):
        if number == 2:
            raise SystemExit
        return add(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shard_module.ShardWriter, "add", die_at_the_third)
        with pytest.raises(SystemExit):
            prepare(store=killed)
    journal = next(killed.glob("*.journal"))
    whole = journal.read_bytes()
    for torn in (whole[:-1], whole + b"0123", whole.replace(b"start", b"stars")):
        journal.write_bytes(torn)
    with journal.with_suffix(".frames").open("ab") as file:
        file.write(b"half a frame")
    with pytest.raises(ValueError, match="is not finished: run the command that makes"):
        PreparedSource(killed)
    assert prepare(store=killed) == 0
    assert bytes_of(killed) == want
    capsys.readouterr()
    assert prepare(store=killed) == 0
    assert "train with --data.source prepared" in capsys.readouterr().out


def test_processes_share_the_files(prepare, tmp_path, many_files):
    assert prepare("--workers", 2, store=tmp_path / "shared") == 0
    assert prepare(store=tmp_path / "alone") == 0
    assert bytes_of(tmp_path / "shared") == bytes_of(tmp_path / "alone")


def test_a_full_disk_is_one_line_and_leaves_nothing_half(
    prepare, store, monkeypatch, capsys
):
    fsync, calls = os.fsync, []

    def fail_at_the_third(number):
        calls.append(number)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_at_the_third)
        assert prepare() == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1] == f"error: {store / '00000.frames'}: No space left on device"
    entered = json.loads((store / "00000.journal").read_bytes()[9:])
    assert (store / "00000.frames").stat().st_size == entered["end"]
    assert prepare() == 0


def test_a_disk_without_room_is_refused_at_once(prepare, store, monkeypatch, capsys):
    usage = SimpleNamespace(free=100_000)
    monkeypatch.setattr(estimate_module.shutil, "disk_usage", lambda _: usage)
    assert prepare() == 2
    said = capsys.readouterr().err
    assert "kB are free there: choose another OUT, --format jpeg" in said
    # And may be tried again in another way.
    assert not store.exists()
    usage.free = 100_000_000
    assert prepare("--format", "jpeg") == 0


def test_a_dry_run_says_size_and_time_and_writes_nothing(prepare, store, capsys):
    assert prepare("--dry_run") == 0
    said = capsys.readouterr().err
    assert "4 videos" in said and "58 frames as yuv420, up to" in said
    assert not store.exists()


# What is wrong is said


def test_broken_videos_are_named_and_what_precedes_damage_is_kept(
    prepare, clips, store, tmp_path, capsys, monkeypatch
):
    videos = tmp_path / "videos"
    shutil.copytree(clips, videos)
    (videos / "broken.mp4").write_text("no video")
    decode = shard_module.decode_frames

    def damaged(path):
        for number, frame in enumerate(decode(path)):
            if (path.name, number) == ("b.mkv", 15):
                raise shard_module.ClipError("frame 15 (from 0): damaged")
            yield frame

    monkeypatch.setattr(shard_module, "decode_frames", damaged)
    assert prepare(videos=videos) == 0
    out = capsys.readouterr().out
    assert "2 videos are left out or cut:" in out
    assert "b/b.mkv: 15 frames are kept, then frame 15 (from 0): damaged" in out
    assert "broken.mp4: FFmpeg" in out
    source = PreparedSource(store)
    assert source.label(2) == "b/b.mkv frames 8-14"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--height", 4), "--height is 4, it must be at least 16"),
        (("--factor", "nan"), "--factor is nan, it must be at least 1"),
        (("--workers", 0), "--workers is 0, it must be at least 1"),
        (("--quality", 101), "--quality is 101, it must be at most 100"),
        (("--max_frames", 3), "--max_frames 3 is below --min_frames 7"),
        (("--list_file", "x.csv"), "source 'folder' has no list_file"),
        (("--min_frames", 99), "no video could be stored: a.mp4: no shot has 99 frame"),
    ],
)
def test_wrong_options_are_one_line(prepare, capsys, options, message):
    assert prepare(*options) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert line.startswith(f"error: {message}")


def test_out_must_be_new_or_of_the_same_command(
    prepare, clips, store, tmp_path, capsys
):
    assert main([str(clips)]) == 2
    assert "OUT is missing" in capsys.readouterr().err
    store.mkdir()
    (store / "notes.txt").touch()
    assert prepare() == 2
    assert "is no prepared store, it holds notes.txt" in capsys.readouterr().err
    (store / "notes.txt").unlink()
    assert prepare() == 0
    assert prepare("--format", "rgb") == 2
    said = capsys.readouterr().err
    assert "begun with other options (format: 'yuv420' -> 'rgb'): give" in said
    other = tmp_path / "other"
    shutil.copytree(clips, other)
    (other / "a.mp4").unlink()
    assert prepare(videos=other) == 2
    assert "begun with other videos than IN" in capsys.readouterr().err


def change(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda s: change(s / "store.json", b'"version": 1', b'"version": 9'),
            "is of v",
        ),
        (lambda s: change(s / "store.json", b"58", b"57"), "damaged, .*its checksum"),
        (lambda s: (s / "store.json").write_text("{"), "is damaged, .*store.json"),
        (lambda s: (s / "index.npz").write_text("no"), "is damaged, .*index.npz"),
        (lambda s: (s / "index.npz").write_text(""), "is damaged, .*index.npz"),
        (
            # In the zip's directory: a version that there is not.
            lambda s: change(s / "index.npz", b"PK\1\2-\3-", b"PK\1\2-\3\xff"),
            "is damaged, .*index.npz",
        ),
        (lambda s: (s / "index.npz").unlink(), "is damaged, .*No such file"),
        (
            lambda s: change(s / "store.json", b'"skipped"', b'"skapped"'),
            "is damaged, .*store.json: 'skipped'",
        ),
        (lambda s: os.truncate(s / "00000.frames", 9), "it has 9 bytes, not"),
        (lambda s: (s / "00000.frames").unlink(), "it is missing, not"),
        (lambda s: (s / "store.json").unlink(), "is no prepared store: there is no"),
    ],
)
def test_a_store_that_is_not_whole_is_refused(prepare, store, harm, message):
    prepare("--min_frames", 1)
    harm(store)
    if "checksum" in message:
        # What is only told may differ; what clips follow from may not.
        change(store / "store.json", b'"stride": 1', b'"stride": 2')
    with pytest.raises(ValueError, match=message):
        PreparedSource(store)


def test_a_damaged_table_is_an_error_of_its_clip(prepare, store):
    prepare("--format", "jpeg")
    source = PreparedSource(store)
    with (store / "00000.frames").open("r+b") as file:
        # Beyond what a place in a file can be.
        file.seek(int(source._store.shots["table"][0]) + 8)
        file.write(b"\xff" * 8)
    with pytest.raises(ClipError, match="the prepared store: "):
        source.read(0, None, 7, 16, 1)


def test_check_finds_a_bit_and_names_the_video(prepare, store, capsys):
    prepare()
    assert main([str(store), "--check"]) == 0
    assert "every checksum is right" in capsys.readouterr().out
    opened = Store.open(store)
    path = store / "00000.frames"
    data = bytearray(path.read_bytes())
    data[int(opened.videos["start"][2]) + 5] ^= 1
    path.write_bytes(data)
    assert main([str(store), "--check"]) == 1
    said = capsys.readouterr().out
    assert "1 video is damaged:\n  c.mp4: 00000.frames has changed" in said


def test_another_store_than_a_run_was_begun_with_is_refused(prepare, store):
    prepare()
    own = PreparedSource(store).fingerprint
    options = {"source": "prepared", "root": str(store)}
    open_sources(DataOptions(**options, fingerprint=own))
    with pytest.raises(ValueError, match=f"has the fingerprint {own}, not 0123: it is"):
        open_sources(DataOptions(**options, fingerprint="0123"))
    with pytest.raises(ValueError, match="'synthetic' has no fingerprint"):
        open_sources(DataOptions(fingerprint=own))
    # That of a row's own store is another's.
    moved = DataOptions(**options, fingerprint=own).changed({"root": "other"})
    assert moved.fingerprint is None


def test_a_run_keeps_the_fingerprint_of_its_store(
    prepare, clips, store, two_stages, tmp_path, capsys
):
    prepare()
    runs = tmp_path / "runs"
    data = ["--data.source=prepared", f"--data.root={store}", "--run=r"]
    assert two_stages(runs, *data, "--to_stage=first") == 0
    own = PreparedSource(store).fingerprint
    assert f"fingerprint: {own}" in (runs / "r" / "config.yaml").read_text()
    # It may move, and may not change.
    store.rename(tmp_path / "moved")
    data[1] = f"--data.root={tmp_path / 'moved'}"
    assert two_stages(runs, *data, "--to_stage=first") == 0
    shutil.rmtree(tmp_path / "moved")
    # Its row is finished; it is not forgotten.
    assert two_stages(runs, *data, "--to_stage=first") == 0
    prepare("--stride", 2, "--min_frames", 3, store=tmp_path / "moved")
    capsys.readouterr()
    assert two_stages(runs, *data) == 2
    said = capsys.readouterr().err
    assert f"(data.fingerprint: '{own}' -> " in said
    assert "the prepared store has other content): give the old ones" in said


def test_a_row_that_is_not_run_keeps_its_stores_fingerprint(prepare, store):
    prepare()
    rows = [{"name": "a", "data": {"root": str(store)}}, {"name": "b", "data": {}}]
    options = {"data": {"source": "prepared", "root": None}, "stages": rows}
    data = DataOptions("prepared")
    size = {"steps": 1, "frames": 7, "crop": 16, "batch_size": 1, "lr": 1e-4}
    stages = [Stage(name=row["name"], data=row["data"], **size) for row in rows]
    begun = with_fingerprints(options, data, stages)
    own = PreparedSource(store).fingerprint
    assert [row["data"].get("fingerprint") for row in begun["stages"]] == [own, None]
    assert with_fingerprints(options, data, stages[1:], begun) == begun
    shutil.rmtree(store)
    assert with_fingerprints(options, data, stages, begun) == begun


def test_septuplets_of_vimeo_and_videos_of_openvid(prepare, clips, store, tmp_path):
    vimeo = tmp_path / "vimeo"
    for number in (1, 2):
        folder = vimeo / "sequences" / "00001" / f"000{number}"
        folder.mkdir(parents=True)
        for frame in range(7):
            picture = np.full((24, 32, 3), 30 * number + frame, np.uint8)
            cv2.imwrite(str(folder / f"im{frame + 1}.png"), picture)
    (vimeo / "sep_trainlist.txt").write_text("00001/0002\n")
    given = ("--source", "vimeo90k", "--format", "rgb")
    assert prepare(*given, videos=vimeo) == 0
    source = PreparedSource(store)
    assert source.label(0) == "sequences/00001/0002 frames 0-6"
    assert source.read(0, None, 7, 8, 1)[:, 0, 0, 0].tolist() == list(range(60, 67))
    openvid = tmp_path / "openvid"
    (openvid / "video").mkdir(parents=True)
    for name in ("a.mp4", "c.mp4"):
        shutil.copy(clips / name, openvid / "video" / name)
    (openvid / "some.csv").write_text("video,caption\nc.mp4,a shot\nnone.mp4,no\n")
    options = ("--source", "openvid", "--stride", 3, "--min_frames", 3)
    assert prepare(*options, videos=openvid, store=tmp_path / "other") == 0
    other = PreparedSource(tmp_path / "other")
    labels = [other.label(item) for item in range(len(other))]
    assert labels == ["video/c.mp4 frames 0-9", "video/c.mp4 frames 13-19"]
