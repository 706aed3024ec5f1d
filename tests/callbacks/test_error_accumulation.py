"""PSNR at both ends of a clip: what it is, of all ranks, and where there is none."""

import csv
import types
from pathlib import Path

import pytest
import torch
import yaml

from callbacks.error_accumulation import ErrorAccumulation
from lightning_modules.base import ValidationResult
from lightning_modules.psnr import psnr

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
POINTS = ("qp0", "qp21")


class Model:
    """Keeps what is logged."""

    device = torch.device("cpu")

    def __init__(self):
        self.logged = {}

    def rate_points(self):
        return dict.fromkeys(POINTS, 0.0)

    def log_dict(self, values, sync_dist):
        assert sync_dist
        self.logged |= {key: float(value) for key, value in values.items()}


def results(frames, seed=0):
    """Return a clip whose reconstruction grows worse, at two rates."""
    generator = torch.Generator().manual_seed(seed)
    clip = torch.rand(1, frames, 3, 8, 8, generator=generator)
    noise = torch.linspace(0.01, 0.1, frames)[:, None, None, None] * (1 + seed)
    bits = torch.ones(1, frames)
    return [
        ValidationResult("clip", point, 0.0, clip, clip + noise / (1 + number), bits)
        for number, point in enumerate(POINTS)
    ]


def validated(outputs, reduce=lambda sums, reduce_op: sums, testing=False):
    callback, model = ErrorAccumulation(), Model()
    strategy = types.SimpleNamespace(reduce=reduce)
    trainer = types.SimpleNamespace(testing=testing, strategy=strategy)
    callback.on_validation_epoch_start(trainer, model)
    for output in outputs:
        callback.on_validation_batch_end(trainer, model, output, None, 0)
    callback.on_validation_epoch_end(trainer, model)
    return model.logged


def test_the_ends_of_all_clips_are_compared_at_each_rate_and_over_all():
    clips = [results(16), results(20, seed=1)]
    logged = validated(clips)
    drops = []
    for number, point in enumerate(POINTS):
        values = [psnr(clip[number].x_hat, clip[number].clip)[0] for clip in clips]
        first = torch.stack([v[:8].mean() for v in values]).mean().item()
        last = torch.stack([v[-8:].mean() for v in values]).mean().item()
        assert logged[f"val/{point}/psnr_first8"] == pytest.approx(first)
        assert logged[f"val/{point}/psnr_last8"] == pytest.approx(last)
        drops.append(first - last)
        assert logged[f"val/{point}/psnr_drop"] == pytest.approx(drops[-1]) != 0
    assert logged["val/psnr_drop"] == pytest.approx(sum(drops) / 2)
    assert logged["val/psnr_drop"] > 3
    assert len(logged) == 9
    tested = {key.replace("val/", "test/"): value for key, value in logged.items()}
    assert validated(clips, testing=True) == tested


def test_ranks_log_the_mean_of_all_though_one_has_no_clip():
    clips = [results(16), results(20, seed=1), results(17, seed=2)]
    shares = [clips[:2], clips[2:], [[]]]
    sums = []
    for share in shares:
        validated(share, lambda own, reduce_op: sums.append(own) or own)
    expected = validated(clips)
    for share in shares:
        assert validated(share, lambda own, reduce_op: sum(sums)) == expected


def test_short_clips_have_none():
    assert validated([results(15)]) == {}
    assert validated([results(15), results(16)]) == validated([results(16)])


def test_a_run_logs_it_where_its_clips_are_long_enough(two_stages, tmp_path):
    options = ("--to_stage=first", "--data.val_frames=16", "--run=run")
    assert two_stages(tmp_path, *options) == 0
    with (tmp_path / "run" / "metrics.csv").open() as file:
        logged = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    drop = logged["val/psnr_first8"] - logged["val/psnr_last8"]
    assert logged["val/psnr_drop"] == pytest.approx(drop, abs=1e-5)
    assert {f"val/qp{qp}/psnr_drop" for qp in (0, 21, 42, 63)} <= logged.keys()


def test_ui2c_ends_with_rows_that_see_errors_add_up():
    config = yaml.safe_load((CONFIGS / "ui2c.yaml").read_text())
    rows = [stage for stage in config["stages"] if stage.get("crop") == 512]
    assert len(rows) == 5
    assert all(row["data"]["val_frames"] == 96 for row in rows)
    assert all(row["data"]["source"] == "folder" for row in rows)
