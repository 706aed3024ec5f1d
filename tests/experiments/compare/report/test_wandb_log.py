"""A comparison in W&B, offline: its tables, plots and summary, in which run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.compare.comparison import Delta, Flag, Row
from experiments.compare.report.wandb_log import bd_rates, log_comparison


@pytest.fixture(scope="module")
def results(samples, tmp_path_factory):
    return samples.make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture
def comparison(samples, results):
    return samples.compare(results)


def test_wandb_gets_tables_plots_and_summary_offline(
    samples, results, offline, wandb_content, capsys
):
    few = [replace(r, sequences=r.sequences[2:]) for r in results[:2]]
    comparison = samples.compare(few)
    log_comparison(comparison, few, "a_run")
    folder = offline / "runs" / "a_run"
    values, run = wandb_content(Path("runs/a_run"))
    row = comparison.row("UI2C", "psnr_yuv", "set_mean", "hevc_e")
    key = "eval/hevc_e/bdrate_psnr_yuv_vs_x265"
    assert (values[key], values[f"{key}_flags"]) == (row.rate.value, "none")
    assert run.run_id == (folder / "wandb_id.txt").read_text()
    assert (run.job_type, set(run.tags)) == ("compare", {"comparison"})
    table = json.loads(next(folder.glob("wandb/*/files/**/bd_0*.json")).read_text())
    assert len(table["data"]) == len(comparison.rows)
    points = json.loads(next(folder.glob("wandb/*/files/**/points*.json")).read_text())
    assert len(points["data"]) == 2 * 4
    assert points["columns"][:4] == ["codec", "set", "sequence", "rate"]
    assert values["eval/hevc_e/rd_psnr_yuv._type"] == "image-file"
    assert values["eval/hevc_e/rd_psnr_yuv_lines_table.nrows"] == 8
    assert "wandb sync runs/a_run/wandb/offline-run-" in capsys.readouterr().out


def test_wandb_goes_on_with_a_run_of_fit(samples, results, offline, wandb_content):
    folder = offline / "elsewhere" / "trained"
    (folder / "intra").mkdir(parents=True)
    (folder / "wandb_id.txt").write_text("abcd1234\n")
    (folder / "metrics.csv").write_text("step,stage,name,value\n70,intra,val/psnr,3\n")
    (folder / "config.yaml").write_text(
        "run: trained\nmodel: {class_path: lightning_modules.UI2C}\n"
        "tracking: {project: mine, group: g, tags: [first]}\n"
        "stages: [{name: intra}, {name: later}]\n"
    )
    # A part that a kill left: one whole record, and half of another.
    torn = folder / "wandb" / "offline-run-0-abcd1234" / "run-abcd1234.wandb"
    torn.parent.mkdir(parents=True)
    whole = bytes(7) + bytes([0, 0, 0, 0, 1, 0, 1, 9])
    torn.write_bytes(whole + whole[7:-1])
    few = [replace(r, sequences=r.sequences[2:]) for r in results]
    comparison = replace(samples.compare(few), metrics=("tof",))
    log_comparison(comparison, few, str(folder))
    values, run = wandb_content(folder)
    assert (run.run_id, run.project, run.run_group) == ("abcd1234", "mine", "g")
    assert set(run.tags) == {"UI2C", "first"}
    assert run.job_type == "fit"
    assert values["step"] == 70
    assert torn.read_bytes() == whole
    # Several codecs in one run need names of their own.
    assert "eval/hevc_e/UI2C/bdrate_tof_vs_x265" in values
    assert "eval/hevc_e/SVT-AV1/bdrate_tof_vs_x265" in values


def test_a_run_that_is_no_run_is_refused(results, comparison, offline):
    with pytest.raises(ValueError, match="no folder of a run"):
        log_comparison(comparison, results, "missing/run")
    assert not list(offline.iterdir())


def test_wandb_that_is_switched_off_says_so(
    results, comparison, offline, monkeypatch, capsys
):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log_comparison(comparison, results, "a_run")
    assert "nothing was logged" in capsys.readouterr().out
    assert not list(offline.iterdir())


def test_no_rate_is_logged_without_its_flags(comparison):
    flags = (Flag("noise", "0.40 % is below 1 %"), Flag("low_overlap", "61 %"))
    row = Row(
        "UI2C", "psnr_yuv", "set_mean", "uvg", None, Delta(0.4), Delta(0.1), flags
    )
    rates = bd_rates(replace(comparison, rows=(row,)))
    (key,) = (key for key in rates if not key.endswith("_flags"))
    assert rates == {
        key: 0.4,
        f"{key}_flags": "noise: 0.40 % is below 1 %; low_overlap: 61 %",
    }


def test_rows_without_a_number_are_not_logged(comparison):
    row = Row("UI2C", "psnr_yuv", "set_mean", "uvg", None, Delta(None), Delta(None))
    assert bd_rates(replace(comparison, rows=(row,))) == {}
