"""What a logged point of training is made of, and how the time left is reckoned."""

import pytest

from callbacks.progress import StageProgress
from experiments.fit.loggers.metrics_csv import read_metrics


def curve(run, name):
    return [row[3] for row in read_metrics(run / "metrics.csv") if row[2] == name]


@pytest.mark.parametrize(("unroll", "points"), [("clip", 4), ("unit", 2)])
def test_a_point_is_the_mean_since_the_one_before(
    schedule, two_stages, tmp_path, unroll, points
):
    row = {"batch_size": 4, "steps": 4, "lr": 1e-3, "unroll": unroll}
    stages = [{**schedule["stages"][1], **row}]
    assert two_stages(tmp_path, "--run=each", stages=stages) == 0
    seldom = ["--trainer.log_every_n_steps=4", "--trainer.accumulate_grad_batches=2"]
    assert two_stages(tmp_path, "--run=means", *seldom, stages=stages) == 0
    for name in ("loss", "rate", "distortion", "bpp", "psnr", "slot1/bpp"):
        each, means = (curve(tmp_path / x, f"train/{name}") for x in ("each", "means"))
        assert len(each) == points
        assert means == pytest.approx([sum(each) / points], rel=1e-4)


def test_later_stages_are_reckoned_by_their_pixels(
    schedule, two_stages, tmp_path, monkeypatch
):
    later = []

    def progress(**options):
        later.append(options["later"])
        return StageProgress(**options)

    monkeypatch.setattr("experiments.fit.run.StageProgress", progress)
    # Of 3 and of 5 frames; the second one steps after each of its two units.
    first, second = schedule["stages"]
    stages = [first, {**second, "steps": 6, "crop": 64, "unroll": "unit"}]
    assert two_stages(tmp_path, "--run=run", stages=stages) == 0
    assert later == [6 * (5 / 2) * 4 / 3, 0]
