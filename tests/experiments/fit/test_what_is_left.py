"""What a run leaves: scalars on one axis, one W&B run, pictures of validations."""

import csv
import itertools
import re

import pytest

from lightning_modules.base import CodecModule


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [
            (int(row["step"]), row["stage"], row["name"], float(row["value"]))
            for row in csv.DictReader(file)
        ]


TRACKED = [
    "--run=run",
    "--logger=offline",
    "--tracking.metrics=[psnr,psnr_yuv,ms_ssim,bpp]",
    "--tracking.strips_every_n_validations=1",
    "--data.val_crop=96",
]


@pytest.fixture(scope="module")
def tracked(two_stages, tmp_path_factory):
    """A run with W&B and pictures that was stopped once and went on."""
    folder = tmp_path_factory.mktemp("tracked")

    def killed(module, *_):
        raise RuntimeError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(CodecModule, "on_validation_epoch_end", killed)
        with pytest.raises(RuntimeError, match="killed"):
            two_stages(folder, *TRACKED, "--trainer.save_every_n_steps=1")
        patch.undo()
        patch.setenv("WANDB_MODE", "offline")
        assert two_stages(folder, *TRACKED) == 0
    return folder / "run"


def test_all_scalars_lie_on_one_axis(tracked):
    found = rows(tracked)
    steps = [row[0] for row in found]
    assert steps == sorted(steps)
    assert {row[:2] for row in found} == {
        *((step, "first") for step in (1, 2)),
        *((step, "second") for step in (3, 4, 5)),
    }
    names = {row[2] for row in found}
    every_step = ["loss", "rate", "distortion", "bpp", "psnr", "lr", "grad_norm"]
    every_step += ["skipped_steps", "frames_per_second", "slot1/bpp", "slot2/psnr"]
    for name in every_step:
        assert [row[0] for row in found if row[2] == f"train/{name}"] == [1, 2, 3, 4, 5]
    # Not of a stage's first step, nor of the first after a kill.
    waits = [row for row in found if row[2] == "train/data_wait"]
    assert {row[0] for row in waits} <= {2, 4, 5}
    assert waits[-1][0] == 5
    # Above 0, for no loader works beside this process.
    assert all(0 < row[3] <= 1 for row in waits)
    kinds = ("blank", "truth", "noisy", "qp0", "qp21", "qp42", "qp63")
    for chosen in (kinds[:3], kinds[3:]):
        assert {f"train/{kind}/bpp" for kind in chosen} & names
    assert names <= {
        *(f"train/{name}" for name in (*every_step, "slot1/psnr", "slot2/bpp")),
        "train/data_wait",
        *(f"train/{kind}/{name}" for kind in kinds for name in ("bpp", "psnr")),
        *(f"train/{kind}/loss" for kind in kinds if kind.startswith("qp")),
        *(name for name in names if name.startswith("val/")),
    }
    points = ("qp0/", "qp21/", "qp42/", "qp63/", "")
    metrics = ("psnr", "psnr_yuv", "ms_ssim", "bpp")
    equal_bits = {name for name in names if re.fullmatch(r"val/[\d.]+bpp/\w+", name)}
    assert {name for name in names if name.startswith("val/")} - equal_bits == {
        *(f"val/{p}{metric}" for p, metric in itertools.product(points, metrics)),
        *("val/loss", "val/real_bpp", "val/real_to_estimated"),
    }


def test_a_step_logs_only_the_references_that_it_drew(tracked):
    """The shares of blank, truth and noisy frames add up to the mean of all."""
    for step in range(1, 6):
        figures = {row[2]: row[3] for row in rows(tracked) if row[0] == step}
        kinds = [k for k in ("blank", "truth", "noisy") if f"train/{k}/bpp" in figures]
        values = [figures[f"train/{kind}/bpp"] for kind in kinds]
        # Two samples per batch: each kind has half of them, or one has all.
        assert len(kinds) in (1, 2)
        assert sum(values) / len(values) == pytest.approx(
            figures["train/bpp"], rel=1e-4
        )


def test_all_stages_and_parts_are_one_wandb_run(two_stages, tracked, capsys):
    parts = sorted((tracked / "wandb").glob("offline-run-*"))
    identity = (tracked / "wandb_id.txt").read_text()
    assert len(parts) in (1, 2)
    for part in parts:
        assert f"-{identity}" in part.name  # Then "-1" for a second one in a second.
        data = next(part.glob("*.wandb")).read_bytes()
        assert b"weight_decay" in data  # The resolved config, defaults and all.
        assert b"UI2C" in data
    folder = tracked.parent
    assert two_stages(folder, *TRACKED) == 0
    assert f"wandb sync {parts[0]}" in capsys.readouterr().out


def test_each_validation_leaves_a_strip_and_a_clip(tracked):
    names = sorted(path.name for path in (tracked / "media").iterdir())
    stems = ("0000002_first", "0000005_second")
    kinds = ("high.mp4", "high.png", "low.mp4", "low.png", "rd.png")
    assert names == [f"{stem}_{kind}" for stem in stems for kind in kinds]
