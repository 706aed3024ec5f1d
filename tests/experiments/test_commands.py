"""The commands on a rehearsal model that was trained, each in its own process."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from datamodules.frames import open_video
from datamodules.sources.samples import generator
from datamodules.sources.synthetic import SyntheticSource
from datamodules.writing import create_video
from experiments import encode
from experiments.fit.command import main as fit
from lightning_modules import load_codec

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH, FRAMES = 120, 146, 7


def command(name, *arguments, threads=1):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


@pytest.fixture(scope="module")
def checkpoint(once):
    def train(runs):
        configs = ROOT / "experiments" / "configs"
        files = [configs / name for name in ("ui2c.yaml", "rehearsal.yaml")]
        options = [f"--config={path}" for path in files]
        options += [f"--runs_dir={runs}", "--run=trained", "--logger=csv"]
        options += ["--shrink.total_steps=100", "--shrink.min_steps=2"]
        assert fit([*options, "--data.val_clips=0", "--data.workers=0"]) == 0

    return once("rehearsal", train) / "trained" / "crop512_128" / "last.ckpt"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "scene.y4m"
    source = SyntheticSource(videos=4)
    clip = source.read(1, generator(0, 0, 0, 0), FRAMES, 160, 1)[:, :HEIGHT, :WIDTH]
    with create_video(path, WIDTH, HEIGHT, Fraction(25)) as append:
        for frame in clip:
            append(torch.tensor(frame).permute(2, 0, 1).float() / 255)
    return path


@pytest.mark.parametrize("rate", [0, 63])
def test_another_process_decodes_what_encode_wrote(checkpoint, video, tmp_path, rate):
    stream, out = tmp_path / "out.lvc", tmp_path / "frames"
    wrote = command(
        "encode", video, stream, "--checkpoint", checkpoint, "--rate", rate, "--verify"
    )
    assert wrote.returncode == 0, wrote.stderr
    assert "verified" in wrote.stdout and "bpp" in wrote.stdout
    read = command("decode", stream, out, "--checkpoint", checkpoint)
    assert read.returncode == 0, read.stderr
    codec = load_codec(checkpoint)
    with open_video(video) as reader:
        packets = list(codec.compress(reader, rate, reconstruct=True))
    own = torch.cat([packet.x_hat for packet in packets])
    with open_video(out) as reader:
        decoded = torch.stack(list(reader))
    assert torch.equal((own * 255).round() / 255, decoded)
    assert stream.stat().st_size <= sum(len(p.payload) + 16 for p in packets) + 80


def test_estimated_and_real_bits_agree_within_one_percent(checkpoint, video):
    codec = load_codec(checkpoint)
    with open_video(video) as reader:
        frames = list(reader)
    # Larger frames, so that the fixed bytes of a stream do not hide a difference.
    frames = [frame.repeat(1, 3, 3) for frame in frames]
    for rate in codec.rate_knob.points:
        packets = list(codec.compress(frames, rate, reconstruct=True))
        real = 8 * sum(len(packet.payload) for packet in packets)
        estimated = sum(packet.estimated_bits for packet in packets)
        header = 8 * 6 * len(packets)
        assert abs(real - estimated) < 0.01 * estimated + header


def test_more_quality_costs_more_bits(checkpoint, video):
    codec = load_codec(checkpoint)
    with open_video(video) as reader:
        frames = list(reader)
    sizes = [
        sum(len(p.payload) for p in codec.compress(frames, rate))
        for rate in codec.rate_knob.points
    ]
    assert sizes == sorted(sizes) and sizes[0] < 0.8 * sizes[-1]


def test_another_checkpoint_is_refused_in_one_line(checkpoint, video, tmp_path):
    stream = tmp_path / "out.lvc"
    given = [str(video), str(stream), "--checkpoint", str(checkpoint)]
    assert encode.main([*given, "--rate=21", "--max_frames=2"]) == 0
    other = checkpoint.parents[1] / "pairs_1" / "last.ckpt"
    out = tmp_path / "out.y4m"
    read = command("decode", stream, out, "--checkpoint", other)
    assert read.returncode == 2
    assert read.stderr.startswith("error: ") and read.stderr.count("\n") == 1
    assert not out.exists()
