"""W&B's names of a run: given, of W&B's own variables, or by default."""

import json

import pytest
import yaml

from experiments.cli.configs import CONFIGS
from experiments.fit.loggers.wandb_identity import (
    PROJECT,
    VARIABLES,
    columns,
    from_environment,
    with_names,
)

NOTHING = {"project": None, "entity": None, "group": None, "tags": [], "lpips_net": "x"}


@pytest.fixture(autouse=True)
def without_variables(monkeypatch):
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("configs", "shrinks", "group"),
    [
        (["ui2c.yaml"], False, "ui2c"),
        (["ui2c.yaml", "ablations/ui2c/divided.yaml"], False, "ui2c"),
        (["dhvc.yaml", "rehearsal.yaml"], True, "dhvc-rehearsal"),
    ],
)
def test_an_ablation_stands_beside_its_baseline(configs, shrinks, group):
    names = with_names(NOTHING, [CONFIGS / name for name in configs], shrinks)
    assert (names["group"], names["project"]) == (group, PROJECT)
    assert names["lpips_net"] == "x"


def test_the_variables_of_wandb_count_where_an_option_is_not_given(monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_RUN_GROUP", "sweep")
    monkeypatch.setenv("WANDB_TAGS", "one, two")
    names = with_names(NOTHING, ["ui2c.yaml"], False)
    assert from_environment(names) == {
        "project": "theirs",
        "entity": "team",
        "group": "sweep",
        "tags": ["one", "two"],
    }
    given = {"project": "a", "entity": "b", "group": "c", "tags": ["d"]}
    assert with_names(given, ["ui2c.yaml"], False) == given


def test_fit_opens_its_run_under_these_names(
    two_stages, wandb_rows, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_TAGS", "nightly")
    options = ["--logger=offline", "--run=run", "--to_stage=first"]
    assert two_stages(tmp_path, *options) == 0
    _, run, _ = wandb_rows(tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert run.run_group == config["tracking"]["group"] == "schedule"
    assert (run.job_type, run.project, run.entity) == ("fit", PROJECT, "team")
    assert list(run.tags) == ["UI2C", "nightly"]
    stored = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert stored["stages/first/steps"] == 2
    assert stored["parameters"] > 10_000
    assert 0 < stored["encode_kmacs_per_pixel"] < stored["decode_kmacs_per_pixel"] < 10
    assert "stages" not in stored


def test_each_value_of_the_schedule_is_a_column():
    rows = [
        {"name": "pairs_1", "lr": 1e-4, "weights": {"rate": 0.5}, "data": {}},
        {"name": "pairs_2", "lr": 1e-5, "trainable": ["entropy"]},
    ]
    assert columns({"run": "a", "model": {"x": 1}, "stages": rows}) == {
        "run": "a",
        "model": {"x": 1},
        "stages/pairs_1/lr": 1e-4,
        "stages/pairs_1/weights/rate": 0.5,
        "stages/pairs_2/lr": 1e-5,
        "stages/pairs_2/trainable": ["entropy"],
    }
