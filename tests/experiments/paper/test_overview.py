"""What recipes need: steps as they are planned, GPU days, data; without a network."""

import subprocess
import sys

import pytest

from experiments.cli.configs import shipped_configs
from experiments.paper import estimate as module
from experiments.paper.command import main
from experiments.paper.estimate import COSTS, days_text, estimate
from experiments.paper.overview import needs
from experiments.paper.recipe import read_recipe, shipped_recipes
from experiments.paper.training import plan_training

ROWS = """
model: {class_path: UI2C, init_args: {size: tiny, frames_per_unit: 2}}
data: {root: "${OWN_CLIPS}"}
stages:
  - {name: one, steps: 4000, frames: 5, batch_size: 16, unroll: unit}
  - {name: two, steps: 5000, frames: 4}
  - {name: three, steps: 6000, frames: 4, crop: 512, checkpoint_activations: true}
"""

OWN = """
title: own
sequences: ["uvg=${UVG}"]
runs:
  main: {config: [rows.yaml]}
  forks: {config: [rows.yaml], options: {stages.three.lr: 1.0e-5}}
  told: {config: [rows.yaml], options: {model.size: small},
         fork: {run: main, stage: two}}
  other: {config: [rows.yaml, '{stages: {all: {frames: 3}}, seed: 3}']}
  same: {config: [rows.yaml], options: {data.val_clips: 3}}
rows:
  one: {evaluate: main}
  vtm: {anchor: vtm, name: VTM, binary: "${VTM}", supply: its encoder}
  them: []
supply: {them: their files}
"""


@pytest.fixture
def own(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.yaml").write_text(ROWS)
    return recipe(OWN)


def test_steps_are_those_of_the_plan(own):
    found = estimate(own)
    planned = plan_training(own)
    assert found.steps == sum(sum(piece.steps) for piece in planned.pieces)
    assert len(found.stages) == sum(len(piece.stages) for piece in planned.pieces)
    assert found.variables == planned.variables == ("OWN_CLIPS",)
    # Recipes of a codec share runs.
    assert (found | found).days == found.days


def test_days_are_reckoned_from_operations(own):
    one, two, three = list(estimate(own).stages.values())[:3]
    # Thousand multiply-accumulates a pixel, so many clips, frames and pixels a step.
    day = 989e12 * 0.1 * 86400
    pixels = 256 * 256
    assert one.days == pytest.approx(390e3 * 2 * 3 * 16 * 2 * pixels * 4000 / day)
    assert two.days == pytest.approx(390e3 * 2 * 3 * 8 * 4 * pixels * 5000 / day)
    assert three.days == pytest.approx(390e3 * 2 * 4 * 8 * 16 * pixels * 6000 / day)
    assert days_text(estimate(own)).startswith("~")


def test_what_was_measured_counts_and_what_is_unknown_is_said(
    own, tmp_path, monkeypatch
):
    costs = module._costs()
    speeds = {"one": 10.0, "two": 5.0, "three": 1.0}
    known = {**costs, "codecs": {"UI2C": [{"kmacs": 1, "steps_per_second": speeds}]}}
    monkeypatch.setattr(module, "_costs", lambda: known)
    measured = estimate(own)
    assert next(iter(measured.stages.values())).days == pytest.approx(400 / 86400)
    # Two runs begin anew; four end otherwise.
    seconds = 2 * (400 + 1000) + 4 * 6000
    assert days_text(measured) == f"{seconds / 86400:.1f}"
    known["codecs"] = {}
    assert days_text(estimate(own)) == "?"


def test_every_codec_that_is_configured_has_costs():
    text = COSTS.read_text()
    for name, path in shipped_configs().items():
        if "class_path: " in path.read_text() and "/" not in name:
            codec = path.read_text().split("class_path: ")[1].split()[0]
            assert f"  {codec}:\n" in text, name


def test_needs_are_data_and_what_to_supply(own):
    assert needs(own, estimate(own)) == "OWN_CLIPS UVG\nsupply: VTM, them"


def test_every_recipe_is_listed_within_100_columns(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    table, _, words = out.partition("~ is reckoned")
    assert max(map(len, table.splitlines())) <= 100
    assert words
    lines = [line.split()[0] for line in table.splitlines() if line.strip()]
    for name in shipped_recipes():
        assert any(name.rpartition("/")[2].startswith(line) for line in lines), name


def test_a_dry_run_tells_the_days(own, tmp_path, capsys):
    assert main([str(own.path), "--dry_run", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"# GPU days: {days_text(estimate(own))} (" in said


def test_the_list_loads_no_network():
    program = (
        "import sys\n"
        "from experiments.paper.command import main\n"
        "main([])\n"
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_shipped_recipes_can_be_estimated():
    for path in shipped_recipes().values():
        assert estimate(read_recipe(path)).days is not None
