"""Two processes on one CPU compute what one does."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from experiments.fit.command import main

ROOT = Path(__file__).parents[3]

SCHEDULE = {
    "model": {"class_path": "UI2C", "init_args": {"size": "tiny"}},
    # One clip for two processes: the second has none.
    "data": {"workers": 0, "val_clips": 1, "val_frames": 2, "val_crop": 64},
    "stages": [
        {
            # Two units, each a step: the second batch ends amid its clips.
            "name": "first",
            "steps": 3,
            "frames": 5,
            "crop": 32,
            "batch_size": 4,
            "unroll": "unit",
            "frozen": ["network.hyper_encoder"],
        },
        {
            "name": "second",
            "steps": 5,
            "frames": 5,
            "crop": 32,
            "batch_size": 4,
            "lr": 1e-3,
            "checkpoint_activations": True,
        },
    ],
    "trainer": {
        "accelerator": "cpu",
        "threads": 1,
        "log_every_n_steps": 1,
        "val_every_n_steps": 3,
        "save_every_n_steps": 2,
        "check_ranks_every_n_steps": 1,
    },
    "logger": "csv",
    "tracking": {
        "metrics": ["psnr", "bpp"],
        "strips_every_n_validations": 0,
    },
}


def command(folder, run, *options):
    config = folder / "schedule.yaml"
    config.write_text(yaml.safe_dump(SCHEDULE))
    return [f"--config={config}", f"--runs_dir={folder}", f"--run={run}", *options]


def start(folder, launcher, *options):
    """Run the command as two processes; return their exit code and output."""
    done = subprocess.run(
        [sys.executable, *launcher, *command(folder, "two", *options)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert main(command(folder, "one")) == 0
    return folder


def figures(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [
            ((int(row["step"]), row["stage"], row["name"]), float(row["value"]))
            for row in csv.DictReader(file)
            if row["name"] not in ("train/frames_per_second", "train/data_wait")
        ]


def assert_same_run(ours, theirs):
    expected, found = figures(theirs), figures(ours)
    assert len(dict(found)) == len(found), "a row came twice"
    assert dict(found) == pytest.approx(dict(expected), rel=1e-4, abs=1e-7)
    for stage in ("first", "second"):
        one, two = (
            torch.load(run / stage / "last.ckpt", weights_only=True)["state_dict"]
            for run in (theirs, ours)
        )
        assert one.keys() == two.keys()
        for key in one:
            torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-5)


def test_two_processes_train_like_one(folder):
    code, output = start(folder, ["-m", "experiments.fit"], "--trainer.devices=2")
    assert code == 0, output
    assert_same_run(folder / "two", folder / "one")
    # One of them speaks, and Lightning does not.
    assert output.count("stage 1/2 first: 3 steps") == 1
    assert output.count("stage 2/2 second  5/5") == 1
    assert output.count("run two: first 3/3, second 5/5 steps") == 1
    assert not re.search("warn|deprecated|RANK|GPU|sync_dist|`Trainer", output), output


def test_torchrun_goes_on_with_what_one_process_began(folder, tmp_path):
    shutil.copytree(folder / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "second")
    # "--", or torchrun takes `--run` for the beginning of one of its own options.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    launcher += ["-m", "--", "experiments.fit"]
    code, output = start(tmp_path, launcher, "--trainer.devices=2")
    assert code == 0, output
    assert "stage 1/2" not in output
    assert output.count("stage 2/2 second: 5 steps") == 1
    assert output.count("run two: first 3/3, second 5/5 steps") == 1
    assert_same_run(tmp_path / "two", folder / "one")


def test_a_batch_that_cannot_be_shared_out_starts_no_process(folder, capsys):
    # In this process: had it started another one, that would be a second pytest.
    assert main(command(folder, "three", "--trainer.devices=3")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'first': batch_size 4 (over all devices)" in line
    assert "3 devices x 1 accumulated micro-batches" in line
    assert "a multiple of 3" in line
