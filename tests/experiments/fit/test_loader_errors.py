"""An error in a loader process ends the command, and says only what is wrong."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import yaml

from datamodules.sources.samples import leave_signals_to_parent
from experiments.fit.quiet import end_loaders

ROOT = Path(__file__).parents[3]


def test_videos_that_no_loader_reads_end_the_command(schedule, fit_options, tmp_path):
    rng = np.random.default_rng(0)
    for video in ("a", "b"):
        (tmp_path / "videos" / video).mkdir(parents=True)
        for number in range(5):
            path = tmp_path / "videos" / video / f"{number}.png"
            cv2.imwrite(str(path), rng.integers(0, 255, (64, 64, 3), np.uint8))
            if number:
                # The index looks at the first frame alone.
                path.write_bytes(path.read_bytes()[:100])
    config = tmp_path / "schedule.yaml"
    config.write_text(yaml.safe_dump(schedule))
    options = [*fit_options, "--data.workers=2", "--data.source=folder", "--run=run"]
    options += [f"--data.root={tmp_path / 'videos'}", f"--runs_dir={tmp_path}"]
    # It would not end at all, so the time only has to be long enough.
    end = subprocess.run(
        [sys.executable, "-m", "experiments.fit", f"--config={config}", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert end.returncode == 2, end.stderr
    last = end.stderr.splitlines()[-1]
    assert last.startswith("error: 20 videos in a row gave no clip of 3 frames, 32x32;")
    assert last.endswith("Choose a smaller crop or other videos")
    for word in ("Traceback", "Caught", "worker", "killed"):
        assert word not in end.stderr


def _work(ready):
    leave_signals_to_parent(0)
    ready.set()
    time.sleep(60)


def test_a_loader_that_ignores_signals_is_ended_in_silence():
    context = multiprocessing.get_context("fork")
    ready, told = context.Event(), []

    def handler(*_):
        told.append("a worker was killed")

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        process = context.Process(target=_work, args=(ready,), daemon=True)
        process.start()
        assert ready.wait(30)
        end_loaders()
        assert process.exitcode == -signal.SIGKILL
        assert told == []
        assert signal.getsignal(signal.SIGCHLD) is handler
    finally:
        signal.signal(signal.SIGCHLD, before)
