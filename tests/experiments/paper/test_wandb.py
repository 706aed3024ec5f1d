"""A table in W&B, offline: one run whose rows fill, and at last the report."""

import json
from dataclasses import asdict

import pytest

from experiments.paper.command import main
from experiments.paper.finish import Cell, Filled, Line
from experiments.paper.job import Records
from experiments.paper.places import Places
from experiments.paper.plan import Plan, make_plan
from experiments.paper.wandb_log import log_table, table_rows

OWN = """
title: own
rows:
  one: {profile: ui2c rehearsal}
  two: {profile: dhvc rehearsal}
  three: {profile: video_vae rehearsal}
  theirs: {results: '${NOT_SET}/theirs.json', supply: ask them}
"""


@pytest.fixture
def plan(recipe, tmp_path, monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_RUN_GROUP", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)
    return make_plan(recipe(OWN), tmp_path / "out", wandb=True)


def states(plan, running=()):
    return [row[-1] for row in table_rows(plan, running)[1]]


def finish(plan, job):
    for path in job.outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    Records(plan.places.jobs, plan.jobs).write(job, 1)


def test_a_row_is_in_the_state_of_its_jobs(plan):
    one, two, three, table = plan.jobs
    assert table.free == ("--wandb",)
    assert states(plan) == ["waiting"] * 3 + ["left out"]
    finish(plan, one)
    records = Records(plan.places.jobs, plan.jobs)
    records.fail(two, 1)
    running = [three.name]
    assert states(plan, running) == ["done", "failed", "running", "left out"]
    # As it is done anew, it may be done well.
    finish(plan, two)
    assert states(plan)[1] == "done"


def test_a_fit_that_failed_is_the_row_that_failed(recipe, tmp_path, job):

    own = recipe("title: own\nrows: {one: {profile: ui2c rehearsal}}")
    fit = job("fit")
    measure = job("measured", needs=["fit"], command="evaluate")
    files = {"one": ((own.rows["one"][0], measure.outputs[0]),)}
    plan = Plan(own, Places(tmp_path, "own"), None, (fit, measure), files, {})
    assert states(plan) == ["waiting"]
    assert states(plan, ["fit"]) == ["running"]
    Records(plan.places.jobs, plan.jobs).fail(fit, 1)
    assert states(plan) == ["failed"]


def test_one_run_fills_and_ends_with_the_report(plan, offline, wandb_content, capsys):
    log_table(plan, quiet=True)
    assert capsys.readouterr().out == ""
    folder = plan.places.output / "own.wandb"
    _, first = wandb_content(folder)
    (part,) = folder.glob("wandb/offline-run-*")
    # A part is named after its second.
    part.rename(part.with_name("offline-run-0-before"))
    for job in plan.jobs[:-1]:
        finish(plan, job)
    table = plan.places.table
    table.mkdir()
    (table / "report.html").write_text("<p>BD-rates</p>")
    cells = (Cell("-3.0", -2.9), Cell("157", "158 to 160"))
    lines = (Line("one", cells), Line("theirs", (Cell("-1.0"), Cell())))
    filled = Filled("own", "", ("BD-rate", "kMACs"), lines)
    (table / "table.json").write_text(json.dumps(asdict(filled)))
    log_table(plan)
    assert "wandb sync" in capsys.readouterr().out
    values, run = wandb_content(folder)
    assert run.run_id == first.run_id
    assert (run.job_type, run.run_group, run.display_name) == ("paper", "own", "own")
    assert (values["paper/done"], values["paper/left_out"]) == (3, 1)
    assert values["paper/report_page._type"] == "html-file"
    (rows,) = folder.glob("wandb/offline-run-2*/files/**/table_*.json")
    logged = json.loads(rows.read_text())
    heads = [f"{name}, {of}" for name in filled.columns for of in ("paper", "ours")]
    assert logged["columns"] == ["row", *heads, "state"]
    assert logged["data"][0] == ["one", "-3.0", -2.9, "157", "158 to 160", "done"]
    assert logged["data"][1] == ["theirs", "-1.0", None, "", None, "left out"]
    assert logged["data"][2] == ["two", None, None, None, None, "done"]
    # What it has, it does not get again.
    log_table(plan)
    assert "was logged before" in capsys.readouterr().out


def test_all_runs_of_a_table_have_its_group(recipe, tmp_path, monkeypatch, capsys):
    # So that what the command sets is taken away.
    monkeypatch.setenv("WANDB_RUN_GROUP", "")
    monkeypatch.delenv("WANDB_RUN_GROUP")
    path = str(recipe(OWN).path)
    command = [path, "--output", str(tmp_path / "out"), "--dry_run"]
    assert main(command) == 0
    assert "WANDB_RUN_GROUP" not in capsys.readouterr().out
    assert main([*command, "--wandb"]) == 0
    assert "export WANDB_RUN_GROUP=own\n" in capsys.readouterr().out
