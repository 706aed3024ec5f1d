"""A run that was stopped, in whatever way, ends like one that was not."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import yaml

from callbacks.checkpoints import AtomicCheckpointIO
from datamodules.video import VideoDataModule
from experiments.fit.command import main
from lightning_modules import load_codec
from lightning_modules.base import CodecModule

ROOT = Path(__file__).parents[3]

SCHEDULE = {
    "model": {"class_path": "UI2C", "init_args": {"size": "tiny"}},
    "data": {"workers": 0, "val_clips": 1, "val_frames": 2, "val_crop": 64},
    "stages": [
        {"name": "first", "steps": 2, "frames": 3, "crop": 32, "batch_size": 2},
        {"name": "second", "steps": 7, "frames": 5, "crop": 32, "batch_size": 2},
    ],
    "trainer": {
        "log_every_n_steps": 1,
        "val_every_n_steps": 3,
        "save_every_n_steps": 2,
        "accelerator": "cpu",
        "threads": 1,
    },
    "logger": "csv",
    "tracking": {
        "metrics": ["psnr", "bpp"],
        "strips_every_n_validations": 0,
    },
}
SCHEDULE["stages"][1] |= {"schedule": "cosine", "lr": 1e-3}


def command(folder, run, *options, stages=SCHEDULE["stages"]):
    folder.mkdir(exist_ok=True)
    config = folder / "schedule.yaml"
    config.write_text(yaml.safe_dump({**SCHEDULE, "stages": stages}))
    return [f"--config={config}", f"--runs_dir={folder}", f"--run={run}", *options]


def fit(folder, run, *options, **changes):
    return main(command(folder, run, *options, **changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    original = AtomicCheckpointIO.save_checkpoint

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        original(self, checkpoint, path)
        if checkpoint["global_step"] == 6 and Path(path).stem == "last":
            shutil.copy(path, folder / "run" / "middle.ckpt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", save_checkpoint)
        assert fit(folder, "run") == 0
    return folder / "run"


def load(path):
    return torch.load(path, weights_only=True)


def assert_equal(one, other, where=""):
    """Compare nested values, tensors bit by bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where}/{number}")
    else:
        assert one == other, where


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        found = [
            ((int(row["step"]), row["stage"], row["name"]), row["value"])
            for row in csv.DictReader(file)
            if row["name"] not in ("train/frames_per_second", "train/data_wait")
        ]
    assert len(dict(found)) == len(found), "a row came twice"
    assert [key[0] for key, _ in found] == sorted(key[0] for key, _ in found)
    return dict(found)


def assert_same_run(run, other):
    for stage in ("first", "second"):
        for name in ("last", "best"):
            ours, theirs = (load(r / stage / f"{name}.ckpt") for r in (run, other))
            for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
                assert_equal(ours[key], theirs[key], f"{stage}/{name}/{key}")
            assert_equal(ours.get("ema"), theirs.get("ema"), f"{stage}/{name}/ema")
            assert ours["global_step"] == theirs["global_step"]
            assert not list((run / stage).glob("*.tmp*"))
    assert rows(run) == rows(other)


def test_an_uninterrupted_run_validates_at_the_interval_and_at_each_end(whole):
    validated = [key[0] for key in rows(whole) if key[2] == "val/loss"]
    assert validated == [2, 5, 8, 9]
    trained = [key[0] for key in rows(whole) if key[2] == "train/loss"]
    assert trained == list(range(1, 10))


def test_two_runs_of_one_command_are_equal_and_another_seed_differs(whole, tmp_path):
    torch.manual_seed(123)
    assert fit(tmp_path, "again") == 0
    assert_same_run(tmp_path / "again", whole)
    assert fit(tmp_path, "other", "--seed=1") == 0
    assert rows(tmp_path / "other") != rows(whole)


@pytest.fixture
def kill_once_at_everything(monkeypatch, tmp_path):
    """Kill the process at chosen moments of saving, and in a validation.

    Each moment is met again by the process that goes on, and then passed.
    """
    seen = tmp_path / "moments"
    seen.touch()
    original, current = AtomicCheckpointIO.save_checkpoint, []
    validate, replace, counts = CodecModule.validation_step, os.replace, Counter()

    def at(*moment):
        line = " ".join(map(str, moment))
        if moment in MOMENTS_OF_DEATH and line not in seen.read_text().splitlines():
            with seen.open("a") as file:
                file.write(f"{line}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def save_checkpoint(io, checkpoint, path, **options):
        place = "/".join(Path(path).parts[-2:]), checkpoint["global_step"]
        counts[place] += 1
        current[:] = *place, counts[place]
        at("before", *current)
        original(io, checkpoint, path, **options)
        at("after", *current)
        current.clear()

    def save(content, target):
        buffer = BytesIO()
        torch_save(content, buffer)
        half = len(buffer.getvalue()) // 2
        target.write(buffer.getvalue()[:half])
        target.flush()
        at("amid", *current)
        target.write(buffer.getvalue()[half:])

    def rename(source, target):
        at("rename", *current)
        replace(source, target)

    def validation_step(module, *arguments):
        at("validation", module.stage.name, module.trainer.global_step)
        return validate(module, *arguments)

    torch_save = torch.save
    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_checkpoint)
    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(os, "replace", rename)
    monkeypatch.setattr(CodecModule, "validation_step", validation_step)
    return seen


MOMENTS_OF_DEATH = [
    ("before", "first/last.ckpt", 2, 1),
    ("amid", "first/last.ckpt", 2, 1),
    ("rename", "first/last.ckpt", 2, 1),
    # A stage's end is saved a second time; by then the stage counts as finished.
    ("amid", "first/last.ckpt", 2, 2),
    ("rename", "second/best.ckpt", 4, 1),
    ("validation", "second", 4),
    ("after", "second/last.ckpt", 4, 1),
    ("amid", "second/last.ckpt", 7, 1),
]


def fit_averaged(folder, run):
    """Average the weights, and step after each of the second stage's two units."""
    first, second = SCHEDULE["stages"]
    stages = [first, {**second, "unroll": "unit"}]
    return fit(folder, run, "--trainer.ema_decay=0.9", stages=stages)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """The uninterrupted run with averaged weights."""
    folder = tmp_path_factory.mktemp("averaged")
    assert fit_averaged(folder, "run") == 0
    return folder / "run"


def test_units_that_are_steps_count_as_such(averaged, whole):
    found = rows(averaged)
    # The last batch is of one step only: the stage is over.
    assert [key[0] for key in found if key[2] == "val/loss"] == [2, 6, 9]
    assert [key[0] for key in found if key[2] == "train/loss"] == [1, 2, 4, 6, 8, 9]
    norms = [key[0] for key in found if key[2] == "train/grad_norm"]
    assert norms == list(range(1, 10))
    ours, theirs = (load(run / "second" / "last.ckpt") for run in (averaged, whole))
    assert ours["global_step"] == theirs["global_step"] == 7
    # The schedule follows the steps: the last ones have the same learning rate.
    (ours,), (theirs,) = ours["lr_schedulers"], theirs["lr_schedulers"]
    assert ours["_last_lr"] == theirs["_last_lr"]


def test_a_killed_run_that_goes_on_ends_like_one_that_was_not(
    averaged, tmp_path, kill_once_at_everything
):
    codes = []
    while not codes or codes[-1] == -signal.SIGKILL:
        # Forked, it needs to import nothing again.
        child = get_context("fork").Process(
            target=lambda: os._exit(fit_averaged(tmp_path, "run"))
        )
        child.start()
        child.join()
        codes.append(child.exitcode)
        assert len(codes) < 20
    seen = kill_once_at_everything.read_text().splitlines()
    assert set(seen) == {" ".join(map(str, moment)) for moment in MOMENTS_OF_DEATH}
    assert codes == [-signal.SIGKILL] * len(seen) + [0]
    assert_same_run(tmp_path / "run", averaged)


def test_averaged_weights_are_what_is_loaded_and_coded_with(averaged):
    checkpoint = load(averaged / "second" / "last.ckpt")
    codec = load_codec(averaged / "second" / "last.ckpt")
    training = {
        key.removeprefix("codec."): value
        for key, value in checkpoint["state_dict"].items()
    }
    weights = codec.state_dict()
    assert weights.keys() == training.keys()
    assert checkpoint["ema"].keys() <= weights.keys()
    for key, value in checkpoint["ema"].items():
        assert torch.equal(weights[key], value)
    assert any(not torch.equal(weights[key], training[key]) for key in weights)
    stored, built = codec.tables, codec.build_tables()
    assert {key: tables.to_bytes() for key, tables in stored.items()} == {
        key: tables.to_bytes() for key, tables in built.items()
    }


def test_another_interval_of_validations_keeps_the_steps_in_place(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    # A checkpoint that was written at a validation, in the middle of the stage.
    shutil.copy(whole / "middle.ckpt", tmp_path / "run" / "second" / "last.ckpt")
    assert fit(tmp_path, "run", "--trainer.val_every_n_steps=5") == 0
    ours, theirs = rows(tmp_path / "run"), rows(whole)
    trained = [key for key in theirs if key[2].startswith("train/")]
    assert [(key, ours[key]) for key in trained] == [(k, theirs[k]) for k in trained]
    assert [key[0] for key in ours if key[2] == "val/loss"] == [2, 5, 8, 9]


# Signals

MOMENTS = {
    "before the first step": (VideoDataModule, "train_dataloader", None),
    "in the step before a validation": (CodecModule, "training_step", ("second", 2)),
    "in a validation": (CodecModule, "validation_step", ("second", 3)),
    "in a stage's last validation": (CodecModule, "validation_step", ("first", 2)),
}


def send_once(monkeypatch, signum, moment):
    owner, name, place = MOMENTS[moment]
    original = getattr(owner, name)
    sent = []

    def wrapped(self, *arguments):
        here = place and (self.stage.name, self.trainer.global_step)
        if not sent and here == place:
            sent.append(signum)
            os.kill(os.getpid(), signum)
        return original(self, *arguments)

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("moment", "signum"),
    [
        ("before the first step", signal.SIGTERM),
        ("before the first step", signal.SIGINT),
        ("in the step before a validation", signal.SIGINT),
        ("in a validation", signal.SIGTERM),
        ("in a stage's last validation", signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_run_and_the_same_command_goes_on(
    whole, tmp_path, monkeypatch, capfd, moment, signum
):
    send_once(monkeypatch, signum, moment)
    assert fit(tmp_path, "run") == 128 + signum
    output = "".join(capfd.readouterr())
    assert "the same command goes on" in output
    assert "Traceback" not in output
    assert fit(tmp_path, "run") == 0
    assert_same_run(tmp_path / "run", whole)


def start(folder, *options):
    """Start a process that waits in the second stage's step 4 to be told to go on."""
    given = command(folder, "run", *options)
    # Not a pipe, which the loaders of a killed process keep open for seconds.
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [sys.executable, __file__, *given],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def send(child, folder, signum):
    """Send a signal in that step; return all output."""
    while not (folder / "waits").exists():
        assert child.poll() is None, (folder / "output").read_text()
        time.sleep(0.02)
    child.send_signal(signum)
    (folder / "goes_on").touch()
    child.wait(timeout=60)
    return (folder / "output").read_text()


def test_a_killed_process_goes_on_where_it_saved(whole, tmp_path):
    # Loader processes have read ahead of the step.
    child = start(tmp_path, "--data.workers=2")
    send(child, tmp_path, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert load(tmp_path / "run" / "second" / "last.ckpt")["global_step"] == 2
    assert fit(tmp_path, "run", "--data.workers=2") == 0
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_end_saves_the_step(whole, tmp_path, signum):
    child = start(tmp_path, "--data.workers=2", "--trainer.save_every_n_steps=1000")
    output = send(child, tmp_path, signum)
    assert child.returncode == 128 + signum, output
    last = tmp_path / "run" / "second" / "last.ckpt"
    note = f"{signal.Signals(signum).name}: saving {last} at step 4 and stopping"
    assert output.count(note) == 1
    # Lightning's own notes are as unwanted as tracebacks.
    assert not re.search("Traceback|GPU|Tip|`Trainer|weights_only|Warning", output)
    assert load(last)["global_step"] == 4
    assert fit(tmp_path, "run") == 0
    assert_same_run(tmp_path / "run", whole)


def wait_in_step_4():
    original = CodecModule.training_step

    def training_step(self, *arguments):
        if (self.stage.name, self.trainer.global_step) == ("second", 3):
            Path("waits").touch()
            while not Path("goes_on").exists():
                time.sleep(0.01)
        return original(self, *arguments)

    CodecModule.training_step = training_step


if __name__ == "__main__":
    wait_in_step_4()
    raise SystemExit(main(sys.argv[1:]))
