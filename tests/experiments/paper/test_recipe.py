"""Recipes of one's own: short to write, and refused in one line."""

import pytest

from experiments.paper.command import main
from experiments.paper.plan import make_plan
from experiments.paper.recipe import arguments, find_recipe
from experiments.paper.rehearsal import Rehearsal

RUN = "title: own\nruns: {a: {config: ui2c rehearsal}}\n"


def test_a_measurement_is_named_by_what_differs(recipe):
    own = recipe(
        RUN + "rows: {one: {evaluate: a, rate: [0, 9], refresh: 8, estimate: true}}"
    )
    (measured,) = own.rows["one"]
    assert measured.name == "a refresh 8 estimate"
    assert own.runs["a"].config == ["ui2c", "rehearsal"]


def test_options_become_words():
    options = {"rate": [0, 21], "estimate": True, "wandb": False, "qp": None, "x": 1.5}
    assert arguments(options) == ["--rate", "0", "21", "--estimate", "--x", "1.5"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{one: {evaluate: b}}", "rows.one: evaluate of 'b', which is no run"),
        ("{one: {evalute: a}}", "must have one of evaluate, anchor"),
        ("{one: {evaluate: a, anchor: x264}}", "must have one of"),
        ("{one: a}", "rows.one is 'a': it must be as"),
        ("{one: {evaluate: a}}\nanchor: two", "anchor 'two' is no row"),
        ("{one: {evaluate: a}}\npublished: {two: ['1']}", "published.two is no row"),
        ("{one: {evaluate: a}}\nprotokol: {}", "protokol is unknown"),
        ("{one: {evaluate: a}}\nmetrics: psnr", "metrics is 'psnr'"),
        (
            "{one: {evaluate: a, name: x}, two: {evaluate: a, refresh: 8, name: x}}",
            "two measurements of evaluate are called 'x'",
        ),
    ],
)
def test_a_wrong_recipe_is_one_line(recipe, rows, message):
    with pytest.raises(ValueError, match=message) as error:
        recipe(RUN + f"rows: {rows}")
    assert "own.yaml" in str(error.value) and "\n" not in str(error.value)


def test_no_yaml_and_no_mapping_are_refused(recipe):
    with pytest.raises(ValueError, match="is no YAML"):
        recipe("title: [")
    with pytest.raises(ValueError, match="a recipe is a mapping"):
        recipe("- title")


@pytest.mark.parametrize(
    ("words", "meant"), [(["ui2c", "tabel3"], "ui2c/table3"), (["ui2c/tab3"], "table3")]
)
def test_an_unknown_recipe_names_the_nearest(words, meant):
    with pytest.raises(ValueError, match=f"did you mean .*{meant}"):
        find_recipe(words)


def test_a_variable_that_is_not_set_ends_before_anything_is_made(
    recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("SETS", raising=False)
    own = "title: own\nsequences: ['uvg=${SETS}/UVG']\nrows: {one: {anchor: x264}}"
    path = recipe(own).path
    out = tmp_path / "out"
    assert main([str(path), "--output", str(out)]) == 2
    assert "set the variable SETS" in capsys.readouterr().err
    assert not out.exists()


def test_what_needs_a_program_is_left_out_and_said(recipe, tmp_path, monkeypatch):
    monkeypatch.delenv("VTM", raising=False)
    own = recipe(
        "title: own\nrows: {vtm: {anchor: vtm, binary: '${VTM}', supply: set VTM}}"
    )
    plan = make_plan(own, tmp_path)
    assert plan.left_out == {"vtm binary ${VTM}": "set VTM"}
    monkeypatch.setenv("VTM", "/opt/vtm")
    assert make_plan(own, tmp_path).left_out == {}


def test_results_of_others_are_taken_where_they_lie(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("OTHERS", str(tmp_path))
    own = recipe(
        "title: own\nrows: {them: {results: '${OTHERS}/dcvc.json', supply: ask them}}"
    )
    assert "ask them" in make_plan(own, tmp_path).left_out.values()
    (tmp_path / "dcvc.json").write_text("{}")
    plan = make_plan(own, tmp_path)
    assert plan.files["them"][0][1] == tmp_path / "dcvc.json"
    assert [job.command for job in plan.jobs] == ["paper"]


WEIGHTS = RUN + "rows: {one: {evaluate: '${PUBLISHED}', supply: get it, name: x"


def test_weights_of_others_stand_for_a_run(recipe, tmp_path, monkeypatch):
    own = recipe(WEIGHTS + ", rehearse: {of: a}}}")
    monkeypatch.delenv("PUBLISHED", raising=False)
    assert make_plan(own, tmp_path).left_out == {"x": "get it"}
    monkeypatch.setenv("PUBLISHED", "/weights.tar")
    plan = make_plan(own, tmp_path)
    (job,) = (job for job in plan.jobs if job.command == "evaluate")
    assert job.arguments[:2] == ("--checkpoint", "${PUBLISHED}") and not job.needs
    # Nobody measures the run here, so it is not trained; a rehearsal takes it instead.
    assert plan.training.pieces == ()
    rehearsed = make_plan(own, tmp_path, rehearsal=Rehearsal(tmp_path / "clips"))
    assert [job.command for job in rehearsed.jobs] == ["fit", "evaluate", "paper"]


def test_weights_without_a_stand_in_are_not_rehearsed(recipe, tmp_path):
    plan = make_plan(
        recipe(WEIGHTS + "}}"), tmp_path, rehearsal=Rehearsal(tmp_path / "clips")
    )
    assert plan.left_out == {"x": "a rehearsal has no run in place of these weights"}
    with pytest.raises(ValueError, match="evaluate of 'b', which is no run"):
        recipe(WEIGHTS + ", rehearse: {of: b}}}")


LAMBDAS = """
title: own
protocol: {rate: [0, 63], qp: [20, 30]}
runs:
  a: {config: video_vae rehearsal}
  b:
    config: video_vae rehearsal
    options: {model.lmbda: 0.1}
    rehearse: {model.lpips: random}
rows:
  one: [{evaluate: a, name: x, rehearse: null}, {evaluate: b, name: x}]
  two: {anchor: x264}
"""


def test_models_of_a_rate_each_are_one_curve(recipe, tmp_path):
    own = recipe(LAMBDAS)
    plan = make_plan(own, tmp_path)
    jobs = [job for job in plan.jobs if job.command == "evaluate"]
    assert len({job.outputs for job in jobs}) == len(jobs) == 2
    with pytest.raises(ValueError, match="two measurements of evaluate are called 'x'"):
        recipe(LAMBDAS.replace("evaluate: b, name: x", "evaluate: b, name: x, tile: 8"))


def test_what_is_not_rehearsed_is_not_trained_then(recipe, tmp_path):
    own = recipe(LAMBDAS)
    plan = make_plan(own, tmp_path, rehearsal=Rehearsal(tmp_path / "clips"))
    assert {piece.run for piece in plan.training.pieces} == {"b"}
    assert "--model.lpips=random" in plan.training.pieces[0].arguments
    assert not any("lpips" in w for j in make_plan(own, tmp_path).jobs for w in j.words)


def test_commands_get_their_own_options_of_a_protocol(recipe, tmp_path):
    words = {j.command: j.arguments for j in make_plan(recipe(LAMBDAS), tmp_path).jobs}
    assert "--rate" in words["evaluate"] and "--qp" not in words["evaluate"]
    assert "--qp" in words["anchor"] and "--rate" not in words["anchor"]


def test_sequences_of_a_measurement_are_not_rehearsed(recipe, tmp_path):
    own = RUN + "rows: {one: {evaluate: a, sequences: [/real/videos]}}"
    rehearsal = Rehearsal(tmp_path / "clips")
    for jobs, expected in (
        (make_plan(recipe(own), tmp_path).jobs, "/real/videos"),
        (make_plan(recipe(own), tmp_path, rehearsal=rehearsal).jobs, "clips"),
    ):
        (job,) = (job for job in jobs if job.command == "evaluate")
        place = job.arguments.index("--sequences") + 1
        assert job.arguments[place].endswith(expected)
