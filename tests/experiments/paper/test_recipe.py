"""Recipes of one's own: short to write, and refused in one line."""

import pytest

from experiments.paper.command import main
from experiments.paper.plan import make_plan
from experiments.paper.recipe import arguments, find_recipe

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
    assert "set SETS" in capsys.readouterr().err
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
