"""The complexity figures of the papers, from the command that prints them."""

import json
from pathlib import Path

import pytest
import torch

from experiments.cli.configs import shipped_configs
from experiments.profile import command as profile
from experiments.profile import complexity
from experiments.profile.command import main
from experiments.profile.timing import timings
from lightning_modules import codec as codec_module
from lightning_modules import overlap
from lightning_modules.exported import read_card
from lightning_modules.shipped import WEIGHTS

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"


def run(tmp_path, *arguments):
    output = tmp_path / "profile.json"
    assert main([*arguments, "--output", str(output)]) == 0
    return json.loads(output.read_text())


@pytest.mark.parametrize(
    ("ablation", "parameters", "encode", "decode"),
    [(None, 46_713_856, 157.0, 233.0), ("single_frame", 20_691_456, 142.4, 166.8)],
)
def test_ui2c_has_the_published_complexity(
    tmp_path, capsys, ablation, parameters, encode, decode
):
    arguments = ["--config", str(CONFIGS / "ui2c.yaml")]
    if ablation:
        arguments += ["--config", str(CONFIGS / f"ablations/ui2c/{ablation}.yaml")]
    report = run(tmp_path, *arguments)
    assert report["codec"] == "UI2C"
    assert report["parameters"] == parameters
    assert round(report["kmacs_per_pixel"]["encode"], 1) == encode
    assert round(report["kmacs_per_pixel"]["decode"], 1) == decode
    assert f"{parameters:,}" in capsys.readouterr().out
    for key in ("encode", "decode"):
        parts = sum(entry[f"{key}_kmacs_per_pixel"] for entry in report["modules"])
        assert parts == pytest.approx(report["kmacs_per_pixel"][key])
    assert sum(entry["parameters"] for entry in report["modules"]) == pytest.approx(
        parameters, rel=0.01
    )


def test_parts_whose_layers_are_called_one_by_one_have_their_share(tmp_path):
    config = str(CONFIGS / "scale_space_flow.yaml")
    report = run(tmp_path, "--config", config, "--height=64", "--width=64")
    assert report["parameters"] == 34_209_609
    kmacs = {m["name"]: m["encode_kmacs_per_pixel"] for m in report["modules"]}
    assert kmacs["network.motion_hyperprior"] > 0
    blurs = report["kmacs_per_pixel"]["encode"] - sum(kmacs.values())
    # Three channels with a kernel of 11 by 11, at sides that are halved each time.
    expected = 3 * 121 * sum(4**-n for n in range(5)) / 1e3
    assert blurs == pytest.approx(expected, rel=1e-3)


def test_the_timed_figures_are_there(tmp_path):
    configs = [str(CONFIGS / name) for name in ("ui2c.yaml", "rehearsal.yaml")]
    arguments = [part for config in configs for part in ("--config", config)]
    report = run(
        tmp_path,
        *arguments,
        *("--height", "50", "--width", "70", "--time", "--repeats", "1"),
        *("--device", "cpu", "--dtype", "float16", "--overlap"),
    )
    found = report["time"]
    assert found["peak_memory_bytes"] > 0 and found["dtype"] == "float16"
    for name in ("network_encode", "encode", "encode_units", "encode_overlapped"):
        assert found[f"{name}_fps"] == 1 / found[f"{name}_s_per_frame"] > 0


def test_an_overlap_that_gives_other_bytes_is_not_reported(monkeypatch, lively_module):
    codec = lively_module("UI2C").codec.eval()
    plain = overlap.overlapped
    monkeypatch.setattr(
        codec_module, "overlapped", lambda units: reversed(list(plain(units)))
    )
    with pytest.raises(ValueError, match="with overlap other bytes come out"):
        timings(codec, 32, 32, 1, overlap=True)


def test_an_impossible_size_is_one_line(capsys):
    config = str(CONFIGS / "ui2c.yaml")
    assert main(["--config", config, "--height", "0"]) == 2
    assert "1920x0" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_one_line(tmp_path, capsys):
    config = str(CONFIGS / "ui2c.yaml")
    output = str(tmp_path / "missing" / "profile.json")
    assert main(["--config", config, "--output", output]) == 2
    assert "missing" in capsys.readouterr().err


def test_what_is_wrong_is_said_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(profile, "build_codec", None)
    ready = ["--config", str(CONFIGS / "ui2c.yaml"), "--time"]
    for repeats in ("0", "-1"):
        assert main([*ready, "--repeats", repeats]) == 2
        assert f"--repeats is {repeats}, it must be" in capsys.readouterr().err
    for output in (tmp_path / "missing" / "profile.json", tmp_path):
        assert main([*ready, "--output", str(output)]) == 2
        assert f"cannot write {output}" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*ready, "--device", "foo"])
    assert end.value.code == 2
    assert "invalid choice: 'foo'" in capsys.readouterr().err


def test_a_missing_device_is_said_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(complexity, "count", None)
    arguments = ["--config", str(CONFIGS / "ui2c.yaml"), "--time", "--device", "cuda"]
    arguments += ["--output", str(tmp_path / "profile.json")]
    assert main(arguments) == 2
    assert "there is no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [n for n in shipped_configs() if "shipped/" in n])
def test_what_begins_as_cosines_is_counted_without_weights(name):
    with torch.device("meta"):
        codec = profile.build_codec([name])
    card = read_card(WEIGHTS / f"{Path(name).name.replace('_', '-')}.safetensors")
    assert sum(p.numel() for p in codec.parameters()) == card.parameters
