"""README's "Add" is true: with its lines alone, every command takes what is new.

The commands run in a copy of the suite. A toy codec is a folder and the other lines are
README's own, so that neither text nor code can drift.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("lightning_modules", "datamodules", "callbacks", "experiments")
README = (ROOT / "README.md").read_text().partition("## Add\n")[2]
TOY = Path(__file__).parent / "toy_codec"
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


def lines_to_add():
    """Give README's lines as file, name of the table in it or "", functions, row."""
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for part in re.split(r"^# ", block, flags=re.MULTILINE)[1:]:
        place, _, lines = part.partition("\n")
        path, _, table = place.partition(", ")
        functions, row = re.fullmatch(r"((?:(?!\").*\n)*)(\".*\n)?", lines).groups()
        yield path, table, functions, row or ""


def add(path, table, functions, row):
    """Write functions at the end of a file, or a row and before its table functions."""
    text = path.read_text()
    place = re.search(rf"^{table}\b.*{{\n", text, re.MULTILINE) if table else None
    start, end = place.span() if place else (len(text), len(text))
    path.unlink()
    path.write_text(
        f"{text[:start]}\n\n{functions}\n\n{text[start:end]}{row}{text[end:]}"
    )


@pytest.fixture(scope="module")
def suite(once):
    """The suite with README's lines, in which the commands ran."""

    def fill(suite):
        copy(suite)
        (suite / "said.txt").write_text(run(suite))

    return once("adding", fill)


@pytest.fixture
def done(suite):
    """What the commands printed."""
    return (suite / "said.txt").read_text()


def copy(suite):
    """Copy the suite and add to it; all but the files that get a line are links."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, suite / package, copy_function=os.symlink)
    for path, *lines in lines_to_add():
        add(suite / path, *lines)
    configs = suite / "experiments" / "configs"
    (configs / "ablations" / "toy").mkdir()
    shutil.copy(TOY / "toy.yaml", configs)
    shutil.copy(TOY / "large_patches.yaml", configs / "ablations" / "toy")
    (suite / "lightning_modules" / "toy").mkdir()
    for path in TOY.glob("*.py"):
        shutil.copy(path, suite / "lightning_modules" / "toy")


def run(suite):
    """Train, code, measure and compare with it; return what the commands print."""
    clips = suite / "clips"
    clips.mkdir()
    generator = torch.Generator().manual_seed(0)
    size = (3 * 62 * 50 * 3 // 2,)
    raw = torch.randint(0, 255, size, dtype=torch.uint8, generator=generator)
    (clips / "noise_62x50_25.yuv").write_bytes(bytes(raw.tolist()))
    clip = ["clips/noise_62x50_25.yuv", "--size=62x50", "--fps=25"]
    checkpoint = ["--checkpoint=runs/toy/mixed/last.ckpt"]
    measure = ["--device=cpu", "--intra_period=2", "--sequences=clips"]
    measure += ["--lpips=none", "--threads=1", "--pictures"]
    config = "--config=experiments/configs/toy.yaml"
    ablation = "--config=experiments/configs/ablations/toy/large_patches.yaml"
    fit = ["--model.distortion=worst", "--model.lpips=random", "--logger=csv"]
    fit += ["--tracking.metrics=[psnr,bpp,offset]", "--trainer.log_every_n_steps=1"]
    fit += ["--trainer.accelerator=cpu", "--trainer.threads=1"]
    commands = [
        ["fit", config, *fit],
        ["fit", config, ablation, *fit, "--to_stage=plain"],
        [
            "encode",
            *clip[:1],
            "toy.lvc",
            *checkpoint,
            *clip[1:],
            "--rate=21",
            "--verify",
        ],
        ["encode", *clip[:1], "two.lvc", *checkpoint, *clip[1:], "--target_bpp=14"],
        ["decode", "toy.lvc", "--hash", *checkpoint],
        ["evaluate", *checkpoint, *measure, "--output=one.json"],
        ["evaluate", *checkpoint, *measure, "--output=two.json", "--dead_zone=1.5"],
        [
            *("compare", "one.json", "two.json", "--anchor=one", "--output=report"),
            *("--metric", "psnr_rgb", "offset"),
        ],
        [
            *("stream", *clip, *checkpoint, "--rate=21", "--lose", "2:1"),
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


def scalars(suite, run):
    with (suite / "runs" / run / "metrics.csv").open() as file:
        return {(row["stage"], row["name"]) for row in csv.DictReader(file)}


def test_it_trains_with_a_new_distortion_terms_by_name_and_a_metric(suite, done):
    logged = scalars(suite, "toy")
    terms = {"loss", "rate", "distortion", "skewness", "lpips", "worst"}
    for stage, absent in (("plain", {"lpips", "worst"}), ("mixed", set())):
        assert {n for n in terms if (stage, f"train/{n}") in logged} == terms - absent
        assert (stage, "val/offset") in logged


def test_an_ablation_is_one_more_file(suite, done):
    assert ("plain", "val/offset") in scalars(suite, "toy-large_patches")
    config = (suite / "runs" / "toy-large_patches" / "config.yaml").read_text()
    assert "patch: 8" in config


def test_it_codes_and_decodes(suite, done):
    assert "verified" in done
    assert (suite / "toy.lvc").stat().st_size < (suite / "two.lvc").stat().st_size


def test_it_is_measured_and_compared(suite, done):
    one, two = (json.loads((suite / f"{n}.json").read_text()) for n in ("one", "two"))
    assert one["codec"]["name"] == two["codec"]["name"] == "Toy"
    assert two["codec"]["options"] == {"dead_zone": 1.5}
    assert "options" not in one["codec"]
    training = one["codec"]["training"]
    assert training["distortion"] == "worst"
    assert training["weights"]["lpips"] > 0
    assert one["protocol"]["definitions"]["offset"] == "mean error of a frame"
    points = (result["sequences"][0]["points"] for result in (one, two))
    for many, few in zip(*points, strict=True):
        assert few["nbytes"] < many["nbytes"]
        assert len(few["per_frame"]["offset"]) == 3
    rows = json.loads((suite / "report" / "bd.json").read_text())["rows"]
    assert {(row["codec"], row["metric"]) for row in rows} == {
        ("two", "psnr_rgb"),
        ("two", "offset"),
    }
    assert any(row["rate"]["value"] is not None for row in rows)
    assert "Offset" in done


def test_it_loses_packets_and_is_profiled(suite, done):
    runs = json.loads((suite / "stream" / "stream.json").read_text())["runs"]
    assert any(run["kind"] == "loss" for run in runs)
    assert "parameters" in done


def test_readme_names_what_is_added():
    paths = [path for path, *_ in lines_to_add()]
    assert len(paths) == 4
    for name in ("codec.py", "module.py", "options.py"):
        assert name in README and (TOY / name).is_file()
    for option in ("--model.distortion worst", "{worst:", "compare --metric offset"):
        assert option in " ".join(README.split())
