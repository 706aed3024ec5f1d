"""A result in W&B, offline: whose run it is, what it gets, and never twice."""

import json
from dataclasses import replace

import pytest

from experiments.evaluate.means import means_by_rate
from experiments.evaluate.options import JobOptions
from experiments.evaluate.wandb_log import log_result
from experiments.results.result import Point


@pytest.fixture
def result(result_of):
    points = [
        Point(21.0, 0.25, metrics={"psnr_rgb": 30.0, "tof": 1.0}),
        Point(42.0, 0.75, metrics={"psnr_rgb": 34.0, "tof": 0.5}),
    ]
    made = result_of("mine", points)
    other = replace(
        made.sequences[0],
        name="two",
        frames=12,
        points=[replace(p, bpp=2 * p.bpp, metrics={**p.metrics}) for p in points],
    )
    made.sequences.append(other)
    made.codec["rate_unit"] = "qp"
    return made


def options(folder, *run):
    return JobOptions(sequences=(), output=folder / "a.json", wandb=run)


def parts_of(folder):
    return sorted(folder.glob("wandb/offline-run-*"))


def test_a_result_gets_a_run_of_its_own_in_the_group_of_its_training(
    result, offline, wandb_content, monkeypatch, capsys
):
    for name in ("WANDB_PROJECT", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    trained = offline / "runs" / "trained"
    (trained / "last").mkdir(parents=True)
    (trained / "config.yaml").write_text(
        "tracking: {project: ours, group: family, tags: [big], entity: null}\n"
    )
    # Named from its own folder.
    monkeypatch.chdir(trained / "last")
    result.environment["checkpoint"] = "last.ckpt"
    log_result(result, options(offline))
    folder = offline / "a.wandb"
    values, run = wandb_content(folder)
    assert (run.job_type, run.display_name) == ("evaluate", "mine")
    assert (run.project, run.run_group) == ("ours", "family")
    assert set(run.tags) == {"mine", "big"}
    # Sequences weigh by their frames, 4 and 12.
    assert values["eval/set/qp21/bpp"] == pytest.approx((4 * 0.25 + 12 * 0.5) / 16)
    assert values["eval/set/qp42/psnr_rgb"] == pytest.approx(34)
    assert values["eval/set/psnr_rgb"] == pytest.approx(32)
    assert values["eval/sequences"] == 2
    (part,) = parts_of(folder)
    (points,) = part.glob("files/**/points*.json")
    assert len(json.loads(points.read_text())["data"]) == 4
    (means,) = part.glob("files/**/rd_0*.json")
    assert json.loads(means.read_text())["columns"] == [
        *("set", "rate", "bpp", "psnr_rgb", "tof")
    ]
    said = capsys.readouterr().out
    assert f"send it: wandb sync {part}" in said


def test_the_same_figures_are_not_logged_twice_and_new_ones_go_to_the_same_run(
    result, offline, wandb_content, capsys
):
    folder = offline / "a.wandb"
    log_result(result, options(offline))
    log_result(result, options(offline))
    assert "was logged before" in capsys.readouterr().out
    assert len(parts_of(folder)) == 1
    _, first = wandb_content(folder)
    result.sequences[1].points[1].metrics["psnr_rgb"] = 36.0
    # An offline part is named after its second.
    parts_of(folder)[0].rename(folder / "wandb" / "offline-run-0-before")
    log_result(result, options(offline))
    values, second = wandb_content(folder)
    assert len(parts_of(folder)) == 2
    assert second.run_id == first.run_id
    assert values["eval/set/qp42/psnr_rgb"] == pytest.approx((4 * 34 + 12 * 36) / 16)


def test_the_environment_counts_and_a_run_can_be_named(
    result, offline, wandb_content, monkeypatch
):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_RUN_GROUP", "together")
    monkeypatch.setenv("WANDB_TAGS", "night")
    # Also of the rank that finished last.
    monkeypatch.setattr(
        "lightning.pytorch.utilities.rank_zero_only.rank", 3, raising=False
    )
    result.codec["kind"] = "anchor"
    log_result(result, options(offline, "final"))
    _, run = wandb_content(offline / "runs" / "final")
    assert (run.project, run.run_group) == ("theirs", "together")
    assert (run.job_type, run.display_name) == ("anchor", "final")
    assert set(run.tags) == {"mine", "night"}


def test_only_a_run_that_is_in_use_keeps_its_torn_parts(result, offline, monkeypatch):
    def fail(folder):
        raise ValueError(f"a part of {folder} is damaged")

    monkeypatch.setattr("experiments.results.wandb_log.cut_torn_tails", fail)
    with pytest.raises(ValueError, match=r"a\.wandb is damaged"):
        log_result(result, options(offline))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give one RUN, or none"):
        options(tmp_path, "a", "b")


def test_a_rate_that_one_sequence_lacks_has_no_mean(result):
    del result.sequences[0].points[1]
    assert list(means_by_rate(result)) == [("set", "qp21")]


def test_points_of_some_scales_are_no_part_of_the_means(result):
    part = replace(result.sequences[0].points[0], scales=1, bpp=0.01)
    before = means_by_rate(result)
    result.sequences[0].points.append(part)
    assert means_by_rate(result) == before
