"""What a run finds in its folder: another process, damaged files, other options."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from datamodules.whole_files import whole_or_nothing
from experiments.fit.run_folder import RunFolder

ROOT = Path(__file__).parents[3]

HOLDER = """
import os, sys, time
from pathlib import Path
from experiments.fit.run_folder import RunFolder

with RunFolder(Path(sys.argv[1])).lock():
    if os.fork():
        print("locked", flush=True)
    # The child is like a loader process that outlives a killed run for a while.
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def begun(two_stages, tmp_path_factory):
    """A run that ended with its first stage."""
    folder = tmp_path_factory.mktemp("begun")
    assert two_stages(folder, "--run=run", "--to_stage=first") == 0
    return folder


@pytest.fixture
def file_of(begun):
    """Return a file of the run, which is whole again after the test."""
    contents = {}

    def choose(name):
        path = begun / "run" / name
        contents[path] = path.read_bytes()
        return path

    yield choose
    for path, content in contents.items():
        path.write_bytes(content)


# One process at a time


def test_a_run_that_another_process_works_on_is_refused(
    only_error, two_stages, begun, capsys
):
    command = [sys.executable, "-c", HOLDER, str(begun / "run")]
    holder = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        capsys.readouterr()
        assert two_stages(begun, "--run=run", "--to_stage=first") == 2
        assert re.search(
            r"^error: run 'run' is in use by another process .*another --run$",
            only_error(),
        )
        # Killed, while a process that it started lives on.
        holder.kill()
        holder.wait()
        assert two_stages(begun, "--run=run", "--to_stage=first") == 0
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()


def test_where_there_are_no_locks_the_run_goes_on_without(tmp_path, monkeypatch):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", lockf)
    entered = False
    with RunFolder(tmp_path / "run").lock():
        entered = True
    assert entered


# Files that were begun


def test_what_killed_processes_left_is_removed_when_the_run_goes_on(
    two_stages, begun, monkeypatch
):
    """Also of a stage that is finished, whose end a kill hit while it was written."""
    run = begun / "run"
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    for name in ("first/last.ckpt", "first/best.ckpt", "config.yaml"):
        with pytest.raises(SystemExit), whole_or_nothing(run / name) as part:
            part.write_bytes(b"half")
            sys.exit()
    monkeypatch.undo()
    (run / ".own.tmp").touch()
    assert len(list(run.glob("**/.*.tmp"))) == 4
    assert two_stages(begun, "--run=run", "--to_stage=first") == 0
    assert [path.name for path in run.glob("**/.*.tmp")] == [".own.tmp"]


# A full disk


def test_a_disk_that_fills_up_is_one_error_and_the_run_goes_on(
    two_stages, tmp_path, capsys
):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert two_stages(tmp_path, "--run=run", "--to_stage=first") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    path = tmp_path / "run" / "first" / "best.ckpt"
    line = one_line_beside_warnings(capsys)
    assert line == f"error: {path}: File too large"
    assert not list(path.parent.iterdir())
    assert two_stages(tmp_path, "--run=run", "--to_stage=first") == 0


# Damaged files


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def write_text(path):
    path.write_text("no checkpoint\n")


def take_another_codec(path):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"] = {"codec.other": torch.ones(1)}
    torch.save(checkpoint, path)


def take_weights_only(path):
    torch.save({"codec.other": torch.ones(1)}, path)


def take_a_tensor(path):
    torch.save(torch.ones(1), path)


def unfinish_another_codec(path):
    take_another_codec(path)
    torch.save({**torch.load(path, weights_only=True), "global_step": 1}, path)


def change_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "was cut, or has changed since it was written"),
        (change_a_byte, "was cut, or has changed since it was written"),
        (empty, "is not a checkpoint: it is empty"),
        (write_text, "is not a checkpoint: it begins with b'no check'"),
    ],
)
def test_a_cut_or_changed_checkpoint_is_named_with_the_ways_on(
    two_stages, begun, file_of, capsys, damage, reason
):
    path = file_of("first/last.ckpt")
    damage(path)
    assert two_stages(begun, "--run=run") == 2
    line = one_line_beside_warnings(capsys)
    assert line.startswith(f"error: {path} {reason}")
    best = path.with_name("best.ckpt")
    assert f"remove it to repeat that stage, copy {best} over it to go on" in line
    assert not (begun / "run" / "second").exists()
    # Said way on works.
    path.write_bytes(best.read_bytes())
    assert two_stages(begun, "--run=run", "--to_stage=first") == 0


@pytest.mark.parametrize(
    "damage",
    [
        take_another_codec,
        take_weights_only,
        take_a_tensor,
        unfinish_another_codec,
    ],
)
def test_a_damaged_checkpoint_is_named(two_stages, begun, file_of, capsys, damage):
    path = file_of("first/last.ckpt")
    damage(path)
    assert two_stages(begun, "--run=run") == 2
    message = rf"^error: {path} is no checkpoint of this run \(.+\): remove it to"
    line = one_line_beside_warnings(capsys)
    assert re.search(message, line)
    assert len(line) < len(str(path)) + 350
    assert not (begun / "run" / "second").exists()


def one_line_beside_warnings(capsys):
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if not line.startswith(("warning:", "data:"))]
    return line


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"text", b""])
def test_a_damaged_config_is_named(only_error, two_stages, begun, file_of, content):
    path = file_of("config.yaml")
    path.write_bytes(content)
    assert two_stages(begun, "--run=run") == 2
    message = rf"^error: {path} does not say how the run was begun \(.+\): restore"
    assert re.search(message, only_error())
    assert path.read_bytes() == content


def test_damaged_scalars_are_named(two_stages, begun, file_of, capsys):
    path = file_of("metrics.csv")
    path.write_bytes(b"\xff\x80\x00" * 99)
    assert two_stages(begun, "--run=run") == 2
    message = rf"^error: {path} is no table of a run's scalars \(.+\): restore it"
    assert re.search(message, one_line_beside_warnings(capsys))


# What may change


@pytest.mark.parametrize("option", ["val_root", "val_list_file"])
def test_validation_data_may_move_but_not_appear_or_vanish(tmp_path, option):
    """Without data of its own, validation takes a part of training's."""
    folder = RunFolder(tmp_path)
    (tmp_path / "row").mkdir()
    (tmp_path / "row" / "last.ckpt").touch()
    folder.write_config({"data": {option: "here"}})
    folder.check({"data": {option: "there"}})
    with pytest.raises(ValueError, match=f"data.{option}: 'here' -> None"):
        folder.check({"data": {option: None}})
    folder.write_config({"data": {option: None}})
    with pytest.raises(ValueError, match=f"data.{option}: None -> 'there'"):
        folder.check({"data": {option: "there"}})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["data"] == {
        option: None
    }


def test_the_distance_of_validation_frames_belongs_to_the_run(begun):
    config = yaml.safe_load((begun / "run" / "config.yaml").read_text())
    assert config["data"]["val_stride"] is None
    folder = RunFolder(begun / "run")
    folder.check(config)
    config["data"]["val_stride"] = 1
    with pytest.raises(ValueError, match=r"data\.val_stride: None -> 1"):
        folder.check(config)


def test_a_rows_own_data_may_move_but_not_become_other_data(tmp_path):
    folder = RunFolder.named(tmp_path, "run")
    folder.write_config({"stages": [{"data": {"root": "/a"}}]})
    folder.last("first").parent.mkdir()
    folder.last("first").touch()
    for data in ({"root": "/b"}, {}):
        folder.check({"stages": [{"data": data}]})
    with pytest.raises(ValueError, match=r"stages\[0\].data.source: None -> 'folder'"):
        folder.check({"stages": [{"data": {"root": "/b", "source": "folder"}}]})
