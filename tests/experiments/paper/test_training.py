"""No stage is trained twice: what runs share, and what they refuse to."""

import re

import pytest

from experiments.paper.plan import make_plan
from experiments.paper.training import plan_training

OWN = """
title: own
runs:
  main: {{config: [rows.yaml]}}
  {other}
rows:
  one: {{evaluate: main}}
  two: {{evaluate: other}}
"""

ROWS = """
model: {class_path: UI2C, init_args: {size: tiny}}
stages:
  - {name: one, steps: 4, frames: 2}
  - {name: two, steps: 5, frames: 2}
  - {name: three, steps: 6, frames: 4}
"""


@pytest.fixture
def planned(recipe, tmp_path, monkeypatch):
    """Return the training of a recipe with another run beside ``main``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.yaml").write_text(ROWS)

    def of(other):
        return plan_training(recipe(OWN.format(other=f"other: {other}")))

    return of


def trained(training):
    return [(piece.run, piece.stages) for piece in training.pieces]


def test_a_run_forks_where_another_stage_begins(planned):
    training = planned("{config: [rows.yaml], options: {stages.three.lr: 1.0e-5}}")
    assert trained(training) == [
        ("main", ("one", "two")),
        ("main", ("three",)),
        ("other", ("three",)),
    ]
    fork = training.pieces[-1]
    assert (fork.after, fork.first) == (("main", "two"), "three")
    assert fork.steps == (6,)
    assert training.ends == {"main": ("main", "three"), "other": ("other", "three")}
    assert training.stages["other"][:2] == (("main", "one"), ("main", "two"))


def test_equal_runs_are_one(planned):
    training = planned("{config: [rows.yaml]}")
    assert trained(training) == [("main", ("one", "two", "three"))]
    assert training.ends["other"] == ("main", "three")


def test_options_that_change_no_weight_are_no_difference(planned):
    options = "{data.val_clips: 7, trainer.log_every_n_steps: 3}"
    training = planned(f"{{config: [rows.yaml], options: {options}}}")
    assert len(training.pieces) == 1


@pytest.mark.parametrize(
    "option", ["seed: 1", "model.frames_per_unit: 1", "data.stride: 2"]
)
def test_options_that_do_share_nothing(planned, option):
    training = planned(f"{{config: [rows.yaml], options: {{{option}}}}}")
    assert trained(training)[-1] == ("other", ("one", "two", "three"))


def test_a_shorter_run_ends_where_another_goes_on(planned, tmp_path):
    shorter = ROWS.replace("  - {name: three, steps: 6, frames: 4}\n", "")
    assert shorter != ROWS
    (tmp_path / "shorter.yaml").write_text(shorter)
    training = planned("{config: [shorter.yaml]}")
    assert trained(training) == [("main", ("one", "two")), ("main", ("three",))]
    assert training.ends["other"] == ("main", "two")


def test_a_fork_that_is_told_shares_though_models_differ(planned):
    fork = "{run: main, stage: two}"
    options = "{model.frames_per_unit: 1}"
    training = planned(f"{{config: [rows.yaml], options: {options}, fork: {fork}}}")
    assert trained(training)[-1] == ("other", ("three",))
    assert training.pieces[-1].after == ("main", "two")


def test_the_other_of_a_fork_may_have_more_stages_and_freeze_more(planned, tmp_path):
    (tmp_path / "short.yaml").write_text(
        ROWS.replace("  - {name: one, steps: 4, frames: 2}\n", "")
        .replace("steps: 5, frames: 2", "steps: 5, frames: 2, frozen: [intra]")
        .replace("steps: 6", "steps: 7")
    )
    training = planned("{config: [short.yaml], fork: {run: main, stage: two}}")
    assert trained(training)[-1] == ("other", ("three",))
    assert training.stages["other"] == (("main", "two"), ("other", "three"))


def test_a_fork_takes_no_stage_that_the_other_lacks(planned, tmp_path):
    (tmp_path / "more.yaml").write_text(
        ROWS.replace(
            "  - {name: two", "  - {name: new, steps: 4, frames: 2}\n  - {name: two"
        )
    )
    with pytest.raises(ValueError, match="one, new, two are not all there"):
        planned("{config: [more.yaml], fork: {run: main, stage: two}}")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("{config: [rows.yaml], fork: {run: main, stage: tow}}", "did you mean two"),
        ("{config: [rows.yaml], fork: {run: main, stage: three}}", "no stage left"),
        (
            "{config: [rows.yaml], options: {stages.one.lr: 0.5}, "
            "fork: {run: main, stage: two}}",
            "stage one is another one: lr 0.5 instead of",
        ),
        ("{config: [rows.yaml], options: {stages.tow.lr: 1}}", "run other: .*two"),
        ("{config: [rows.yml]}", "run other: .*rows.yaml|run other: .*rows.yml"),
        ("{config: [rows.yaml], options: {model.framez: 1}}", "run other: .*framez"),
    ],
)
def test_what_leads_nowhere_is_one_line(planned, other, message):
    with pytest.raises(ValueError, match=message) as error:
        planned(other)
    assert "\n" not in str(error.value)


def test_forks_in_a_circle_are_refused(planned):
    def run(fork):
        return f"{{config: [rows.yaml], fork: {{run: {fork}, stage: two}}}}"

    with pytest.raises(ValueError, match="in a circle: other from third"):
        planned(f"{run('third')}\n  third: {run('other')}")


def test_commands_say_where_each_run_begins_and_ends(planned, recipe, tmp_path):
    options = "{stages.three.lr: 1.0e-5}"
    text = OWN.format(other=f"other: {{config: [rows.yaml], options: {options}}}")
    jobs = {job.name: job for job in make_plan(recipe(text), tmp_path / "p").jobs}
    first, last = jobs["fit-main-to-two"], jobs["fit-main"]
    assert first.arguments[-2:] == ("--to_stage", "two") and not first.needs
    assert last.arguments == first.arguments[:-2]
    assert last.needs == ("fit-main-to-two",)
    assert jobs["fit-other"].needs == ("fit-main-to-two",)
    shown = jobs["fit-other"].shown()
    assert re.search(r"--init_from \S+/runs/main/two --from_stage three", shown)
    (measured,) = [job for job in jobs.values() if "evaluate-other" in job.name]
    assert measured.needs == ("fit-other",)
    assert str(tmp_path / "p" / "runs" / "other" / "three") in measured.arguments
