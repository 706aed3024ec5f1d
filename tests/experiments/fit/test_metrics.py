"""Six families of metrics in a run's CSV and in W&B, by one process and by two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments.cli.configs import CONFIGS
from experiments.fit.command import main
from experiments.fit.loggers.metrics_csv import read_metrics

ROOT = Path(__file__).parents[3]
FAMILIES = ("psnr", "ms_ssim", "lpips", "fid", "tof", "tlp")
LOGGED = (*FAMILIES, "psnr_yuv", "bpp")

SCHEDULE = {
    # Of one rate: the roots of FID take a second each.
    "model": {
        "class_path": "VideoVAE",
        "init_args": {
            "size": "tiny",
            "backbone": "lean_vae",
            "frames_per_unit": 5,
            "lpips": "random",
        },
    },
    # Three clips for two processes: a mean of their means would be another one.
    "data": {"workers": 0, "val_clips": 3, "val_frames": 2, "val_crop": 96},
    "stages": [{"name": "only", "steps": 1, "frames": 5, "crop": 32, "batch_size": 2}],
    "trainer": {"accelerator": "cpu", "threads": 1},
    "logger": "offline",
    "tracking": {
        "lpips_net": "squeeze",
        "strips_every_n_validations": 0,
        "real_bits_every_n_validations": 0,
    },
}


def command(folder, run, *options):
    config = folder / "schedule.yaml"
    config.write_text(yaml.safe_dump(SCHEDULE))
    return [f"--config={config}", f"--runs_dir={folder}", f"--run={run}", *options]


def figures(run):
    rows = read_metrics(run / "metrics.csv")
    return {name: value for _, _, name, value in rows if name.startswith("val/")}


def test_two_processes_log_all_six_families_as_one_does(
    random_weights, wandb_rows, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TORCH_HOME", str(random_weights))
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(command(tmp_path, "one", "--logger=csv")) == 0
    said = capsys.readouterr().out
    two = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.fit"),
            *command(tmp_path, "two", "--trainer.devices=2"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert two.returncode == 0, two.stderr
    expected, found = (figures(tmp_path / run) for run in ("one", "two"))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    names = {"val/loss", "val/fid_samples"}
    for name in LOGGED:
        names |= {f"val/{name}", f"val/lmbda0.2/{name}"}
    assert found.keys() == names
    assert all(found[f"val/{name}"] > 0 for name in FAMILIES)
    assert found["val/fid_samples"] == 6
    rows, _, summary = wandb_rows(tmp_path / "two")
    logged = {name: value for row in rows for name, value in row.items()}
    assert {n: v for n, v in logged.items() if n.startswith("val/")} == found
    for name in FAMILIES:
        best = "max" if name in ("psnr", "ms_ssim") else "min"
        assert summary[f"val/{name}"][best] == found[f"val/{name}"]
    # Both the validation's line and the last lines show them.
    for output in (said, two.stdout):
        validation, _, end = output.partition("\nrun ")
        for text in (validation, end):
            for shown in ("PSNR", "MS-SSIM", "LPIPS", "FID", "tOF", "tLP"):
                assert shown in text or (shown, text) == ("PSNR", validation)
    assert "unavailable" not in two.stderr
    assert two.stderr.count("fid is of 6 samples, below 2048 biased upwards") == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_leave_the_metrics_as_they_are(path):
    config = yaml.safe_load(path.read_text())
    assert "metrics" not in config.get("tracking", {})
    data = config.get("data", {})
    if "val_clips" in data and path.stem != "rehearsal":
        for row in config["stages"]:
            own = {**data, **row.get("data", {})}
            assert 2048 <= own["val_clips"] * own["val_frames"] < 2150


@pytest.mark.parametrize("name", ["psnrr", "bits"])
def test_an_unknown_metric_is_refused_with_the_known(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([f"--tracking.metrics=[psnr,{name}]"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"Got value: {name}" in said
    for known in (*LOGGED, "kid", "brisque"):
        assert f"'{known}'" in said
