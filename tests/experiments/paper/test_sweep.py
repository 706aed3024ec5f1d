"""A W&B sweep over a recipe's options: what is refused, and each trial's name."""

import re

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from experiments.fit import command as fit_command
from experiments.paper.command import main
from experiments.paper.sweep import read_sweep

OWN = """
title: own
runs:
  main: {config: [rows.yaml], options: {stages.two.lr: 0.5}}
  other: {config: [rows.yaml], fork: {run: main, stage: one}}
rows: {one: {evaluate: main}}
"""

ROWS = """
model: {class_path: UI2C, init_args: {size: tiny}}
data: {root: "${OWN_CLIPS}"}
stages:
  - {name: one, steps: 4, frames: 2}
  - {name: two, steps: 5, frames: 2}
"""


@pytest.fixture
def sweep(recipe, tmp_path, monkeypatch):
    """Give the command, and its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.yaml").write_text(ROWS)
    path = str(recipe(OWN).path)
    return lambda *words: main([path, "--output", "out", "--sweep", *words])


def test_each_trial_is_named_by_its_values(sweep, tmp_path, seen, capsys, monkeypatch):
    assert sweep("stages.two.lr=1e-4,2e-4", "model.frames_per_unit=1,2") == 0
    said = capsys.readouterr().out
    assert "sweep_main.yaml: 4 trials" in said and "wandb agent" in said
    files = sorted((tmp_path / "out/own").iterdir())
    assert [path.name for path in files] == ["sweep_main.yaml", "sweep_other.yaml"]
    written = yaml.safe_load(files[0].read_text())
    assert written["method"] == "grid" and written["metric"]["name"] == "val/loss"
    parameters = written["parameters"]
    assert parameters["stages.two.lr"]["values"] == [1.0e-4, 2.0e-4]
    begin, arguments = written["command"][:4], written["command"][4:-1]
    assert begin == ["${env}", "python", "-m", "experiments.fit"]
    assert written["command"][-1] == "${args}"
    monkeypatch.setenv("OWN_CLIPS", str(tmp_path))
    # The agent starts one again after a failure: the same values, the same run.
    for lr in (1.0e-4, 2.0e-4, 2.0e-4):
        values = {"stages.two.lr": lr, "model.frames_per_unit": 1}
        given = {name: {"value": value} for name, value in values.items()}
        flags = create_sweep_command_args({"args": given})["args"]
        monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
        fit_command.fit([*arguments, *flags])
    assert [options["run"] for options in seen] == [
        "main-two.lr_0.0001-frames_per_unit_1",
        "main-two.lr_0.0002-frames_per_unit_1",
        "main-two.lr_0.0002-frames_per_unit_1",
    ]
    assert seen[0]["stages"][1]["lr"] == 1.0e-4
    assert seen[0]["runs_dir"] == "out/runs"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.frames_per_uni=1"], "run main: .*did you mean frames_per_unit"),
        (["stages.tow.lr=1"], "run main: .*did you mean two"),
        (["stages.two.lr=1e-4,fast"], "run main: .*fast"),
        (["stages.two.lr=1", "stages.two.lr=2"], "is given twice"),
        (["stages.two.lr=1,,2"], "must be as OPTION=A,B,C"),
    ],
)
def test_what_fit_refuses_is_one_line_before_anything_is_written(
    sweep, words, message, tmp_path, capsys
):
    assert sweep(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_trains_nothing_has_no_sweep(recipe, capsys):
    own = recipe("title: own\nrows: {one: {profile: ui2c rehearsal}}")
    assert main([str(own.path), "--sweep", "seed=1,2"]) == 2
    assert "own trains nothing" in capsys.readouterr().err


def test_values_of_a_sweep():
    read = read_sweep(["--a.b=[1,2],[3,4]", "c=true,null", "d=1e-4,3", "e=x,y"])
    assert read == {
        "a.b": ["[1,2]", "[3,4]"],
        "c": ["true", "null"],
        "d": [1.0e-4, 3],
        "e": ["x", "y"],
    }
