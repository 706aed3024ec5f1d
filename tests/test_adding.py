"""README's "Add" is true: a codec and a loss, and nothing else is touched.

The commands run in a copy of the suite in which only these lines are new.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "toy_codec"
LINE = '    "Toy": "lightning_modules.toy",\n'
LOSS = '''

def toy(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return the largest error of a frame."""
    return (clip - x_hat).abs().amax(dim=(-3, -2, -1))


TERMS["toy"] = Term(toy)
'''
RUN = """
import json, runpy, sys
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(f"experiments.{name}", run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{name} ended with {end.code}")
"""


def branch(source, target):
    """Make a folder that holds what another one does, without copying it."""
    target.mkdir(parents=True)
    for child in source.iterdir():
        (target / child.name).symlink_to(child)


def replace(path, text):
    path.unlink()
    path.write_text(text)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The suite with the toy codec's folder, configuration and line, and a loss."""
    suite = tmp_path_factory.mktemp("suite")
    for package in ("callbacks", "datamodules"):
        (suite / package).symlink_to(ROOT / package)
    branch(ROOT / "lightning_modules", suite / "lightning_modules")
    branch(ROOT / "experiments", suite / "experiments")
    (suite / "experiments" / "configs").unlink()
    branch(ROOT / "experiments" / "configs", suite / "experiments" / "configs")
    shutil.copytree(TOY, suite / "lightning_modules" / "toy")
    shutil.copy(TOY / "toy.yaml", suite / "experiments" / "configs")
    registry = suite / "lightning_modules" / "__init__.py"
    head, begin, rest = registry.read_text().partition("CODECS = {\n")
    assert begin
    replace(registry, head + begin + LINE + rest)
    losses = suite / "lightning_modules" / "losses.py"
    replace(losses, losses.read_text() + LOSS)
    return suite


@pytest.fixture(scope="module")
def done(suite):
    """What the commands print that train, code, measure and compare the toy codec."""
    clips = suite / "clips"
    clips.mkdir()
    frames = 3
    generator = torch.Generator().manual_seed(0)
    size = (frames * 64 * 64 * 3 // 2,)
    raw = torch.randint(0, 255, size, dtype=torch.uint8, generator=generator)
    (clips / "noise_64x64_25.yuv").write_bytes(bytes(raw.tolist()))
    clip = ["clips/noise_64x64_25.yuv", "--size=64x64", "--fps=25"]
    checkpoint = ["--checkpoint=runs/toy/perceptual/last.ckpt"]
    shared = ["--device=cpu", "--intra_period=2"]
    measured = ["--sequences=clips", "--lpips=none", "--threads=1", "--pictures"]
    config = "--config=experiments/configs/toy.yaml"
    losses = ["--model.distortion=toy", "--model.lpips=random"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"]
    quiet += ["--logger=csv", "--tracking.metrics=[psnr,bpp]", "--trainer.threads=1"]
    commands = [
        ["fit", config, *losses, *quiet],
        ["encode", clip[0], "toy.lvc", *checkpoint, *clip[1:], "--rate=8", "--verify"],
        ["encode", clip[0], "quick.lvc", *checkpoint, *clip[1:], "--target_bpp=9"],
        ["decode", "toy.lvc", "--hash", *checkpoint, "--effort=3"],
        ["evaluate", *checkpoint, *shared, *measured, "--output=one.json"],
        [
            *("evaluate", *checkpoint, *shared, *measured, "--output=two.json"),
            *("--effort=1", "--rate", "4", "8", "16", "32"),
        ],
        ["compare", "one.json", "two.json", "--anchor=one", "--output=report"],
        [
            *("stream", *clip, *checkpoint, "--rate=8", "--lose", "2:1"),
            *("--protect=0", "--output=stream", "--device=cpu"),
        ],
        ["profile", config, "--height=64", "--width=64"],
    ]
    process = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)],
        cwd=suite,
        env={**os.environ, "PYTHONPATH": str(suite), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_it_trains_with_a_new_distortion_and_terms_weighed_by_name(suite, done):
    with (suite / "runs" / "toy" / "metrics.csv").open() as file:
        logged = {(row["stage"], row["name"]) for row in csv.DictReader(file)}
    terms = {"loss", "rate", "distortion", "drift", "lpips", "toy"}
    for stage, absent in (("plain", {"lpips", "toy"}), ("perceptual", set())):
        assert {n for n in terms if (stage, f"train/{n}") in logged} == terms - absent


def test_it_codes_and_decodes_with_an_option_of_its_own(suite, done):
    assert "verified" in done
    assert (suite / "toy.lvc").stat().st_size > (suite / "quick.lvc").stat().st_size / 9


def test_it_is_measured_and_compared(suite, done):
    one, two = (json.loads((suite / f"{n}.json").read_text()) for n in ("one", "two"))
    assert one["codec"]["name"] == two["codec"]["name"] == "Toy"
    assert two["codec"]["options"] == {"effort": 1} and "options" not in one["codec"]
    rows = json.loads((suite / "report" / "bd.json").read_text())["rows"]
    assert {row["codec"] for row in rows} == {"two"}
    assert any(row["rate"]["value"] is not None for row in rows)


def test_it_loses_packets_and_is_profiled(suite, done):
    runs = json.loads((suite / "stream" / "stream.json").read_text())["runs"]
    assert any(run["kind"] == "loss" for run in runs)
    assert "parameters" in done
