"""What profile says of several workers: measured seconds, and bounds on them."""

import json
from pathlib import Path

import pytest

from experiments.profile import pipeline as pipeline_report
from experiments.profile.command import main
from experiments.profile.pipeline import (
    bound,
    check_pipeline,
    macs_bound,
    measure_pipeline,
)
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.dhvc.workers import Handover
from lightning_modules.ui2c.codec import UI2CCodec

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"


def profile(tmp_path, *more):
    configs = ("dhvc.yaml", "ablations/dhvc/plus_dec_parallel.yaml", "rehearsal.yaml")
    arguments = [f"--config={CONFIGS / name}" for name in configs]
    output = tmp_path / "profile.json"
    arguments += ["--height=60", "--width=64", "--device=cpu", "--repeats=1"]
    code = main([*arguments, f"--output={output}", *more])
    return json.loads(output.read_text()) if code == 0 else code


def test_profile_measures_the_pipeline(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline_report, "FRAMES_PER_WORKER", 2)
    figures = profile(tmp_path, "--pipeline=2")["pipeline"]
    assert figures["workers"] == 2
    assert figures["frames"] == 4
    for key in ("encode", "decode"):
        measured = figures[key]
        parts = measured["parts_s_per_frame"]
        assert all(parts[f"scale{number}"] > 0 for number in range(1, 5))
        assert measured["speedup"] == pytest.approx(
            measured["one_worker_s_per_frame"] / measured["pipeline_s_per_frame"]
        )
        assert measured["model"] == bound(parts, 2)
        assert 1 <= measured["model"]["speedup"] <= 2
        assert figures["macs_bound"][key]["speedup"] > 1
    # The encoder alone has no tail, the decoder no encoder.
    assert figures["encode"]["parts_s_per_frame"]["tail"] == 0
    assert figures["decode"]["parts_s_per_frame"]["encoder"] == 0
    out = capsys.readouterr().out
    assert "scale4" in out and "bound by measured costs" in out


def test_a_pipeline_that_computes_something_else_is_not_reported(
    lively_module, monkeypatch
):
    codec = lively_module("DHVC", auxiliary=False).codec.eval()
    monkeypatch.setattr(pipeline_report, "FRAMES_PER_WORKER", 2)
    monkeypatch.setattr(Handover, "take", lambda self, device: ())
    with pytest.raises(ValueError, match="do not compute what one does"):
        measure_pipeline(codec, 2, 40, 70, repeats=1)


def test_profile_refuses_what_has_no_pipeline(tmp_path, capsys):
    assert profile(tmp_path, "--pipeline=0") == 2
    assert "pipeline is 0" in capsys.readouterr().err
    for codec, words in (
        (UI2CCodec("tiny"), "UI2C has no parallel pipeline"),
        (DHVCCodec("tiny"), "auxiliary: false"),
    ):
        with pytest.raises(ValueError, match=words):
            check_pipeline(codec, 2)


def test_the_bound_is_the_slowest_scale_or_all_workers():
    parts = {"encoder": 8.0, "scale1": 1.0, "scale2": 3.0}
    assert bound(parts, 2) == {"per_frame": 6.0, "speedup": 2.0, "set_by": "workers"}
    assert bound(parts, 6) == {"per_frame": 3.0, "speedup": 4.0, "set_by": "scale2"}


def test_the_bound_by_macs_takes_each_pass_for_itself():
    # kMACs per pixel at the paper's size.
    costs = {
        "encoder": (179.6, 0.0),
        "scale1": (5.0, 4.3),
        "scale2": (20.2, 17.2),
        "scale3": (42.8, 34.8),
        "scale4": (74.4, 57.7),
        "tail": (0.0, 28.1),
    }
    modules = [
        {
            "name": f"network.{name}",
            "encode_kmacs_per_pixel": encode,
            "decode_kmacs_per_pixel": decode,
        }
        for name, (encode, decode) in costs.items()
    ]
    bounds = macs_bound(modules, 4)
    assert bounds["encode"]["speedup"] == pytest.approx(4.0)
    assert bounds["encode"]["set_by"] == "workers"
    assert bounds["decode"]["speedup"] == pytest.approx(2.46, abs=0.01)
    assert bounds["decode"]["set_by"] == "scale4"
