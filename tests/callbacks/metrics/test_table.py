"""A new metric is one function and one row: every command takes it."""

import csv
import json
import subprocess
import sys
import types
from typing import Literal

import pytest
import torch

from callbacks.metrics.meter import Meter
from callbacks.metrics.table import METRICS, Metric, describe_metrics, validation_names
from callbacks.quality_metrics import QualityMetrics
from experiments.compare.command import main as compare
from experiments.evaluate.command import main as evaluate
from experiments.fit.options import TrackingOptions
from experiments.results.result import Result
from lightning_modules.perceptual import UnavailableMetricError


def contrast(x_hat, clip):
    """Return how much more the reconstruction varies than the source, per frame."""
    spread = [x.float().std(dim=(-3, -2, -1)) for x in (x_hat, clip)]
    return 1 + (spread[0] - spread[1]).abs()


def flicker(x_hat, clip):
    """Return by how much brightness changes unlike the source's, per pair."""
    light = [x.float().mean(dim=(-3, -2, -1)) for x in (x_hat, clip)]
    return (light[0].diff(dim=-1) - light[1].diff(dim=-1)).abs()


ROWS = {
    "contrast": Metric(
        "Contrast", "%", False, "toy of 8-bit RGB", function="toy_metrics:contrast"
    ),
    "flicker": Metric(
        "Flicker", "", False, "toy of pairs", function="toy_metrics:flicker", pairs=True
    ),
}


@pytest.fixture
def toys(monkeypatch):
    module = types.ModuleType("toy_metrics")
    module.contrast, module.flicker = contrast, flicker
    monkeypatch.setitem(sys.modules, "toy_metrics", module)
    for name, row in ROWS.items():
        monkeypatch.setitem(METRICS, name, row)
    # Types are made of the table when modules are imported.
    names = list[Literal[tuple(validation_names())]]
    monkeypatch.setitem(TrackingOptions.__init__.__annotations__, "metrics", names)
    return module


def test_a_function_and_a_row_are_a_metric_of_every_command(
    two_stages, toys, tmp_path, capsys
):
    # fit: validation logs it.
    given = ("--from_stage=first", "--to_stage=first", "--run=r")
    chosen = "--tracking.metrics=[contrast,flicker,psnr]"
    assert two_stages(tmp_path / "runs", *given, chosen) == 0
    run = tmp_path / "runs" / "r"
    with (run / "metrics.csv").open() as file:
        logged = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    for name in ROWS:
        points = [logged[key] for key in logged if key.endswith(f"/{name}")]
        assert len(points) > 2 and min(points) > 0
        assert logged[f"val/{name}"] > 0
    # evaluate: it is measured by default, defined and kept.
    clips = tmp_path / "clips"
    clips.mkdir()
    raw = torch.randint(0, 255, (3 * 64 * 64 * 3 // 2,), dtype=torch.uint8)
    (clips / "noise_64x64_25.yuv").write_bytes(bytes(raw.tolist()))
    output = tmp_path / "one.json"
    options = ["--checkpoint", str(run / "first" / "last.ckpt"), "--device=cpu"]
    options += ["--sequences", str(clips), "--output", str(output), "--lpips=none"]
    options += ["--rate", "5", "30", "55", "--threads=1", "--pictures", "--estimate"]
    capsys.readouterr()
    assert evaluate(options) == 0
    assert "Contrast" in capsys.readouterr().out
    result = Result.load(output)
    for name, row in ROWS.items():
        assert result.protocol.definitions[name] == row.definition
        for _, point in result.all_points():
            assert len(point.per_frame[name]) == 3 - row.pairs
            mean = sum(point.per_frame[name]) / len(point.per_frame[name])
            assert point.metrics[name] == pytest.approx(mean)
    # compare: against a copy that takes half of the bits.
    data = json.loads(output.read_text())
    data["name"] = "two"
    for point in data["sequences"][0]["points"]:
        point["bpp"] /= 2
    (tmp_path / "two.json").write_text(json.dumps(data))
    files = [str(output), str(tmp_path / "two.json")]
    report = tmp_path / "report"
    where = ["--anchor", "one", "--metric", "contrast", "--output", str(report)]
    assert compare([*files, *where]) == 0
    assert "Contrast" in capsys.readouterr().out
    rows = json.loads((report / "bd.json").read_text())["rows"]
    assert {row["metric"] for row in rows} == {"contrast"}
    assert "Contrast" in (report / "report.md").read_text()


def test_a_new_metric_is_listed_and_its_name_is_checked(toys):
    assert "contrast (Contrast): %, lower is better, of frames" in describe_metrics()
    assert {"contrast", "flicker"} < set(validation_names())
    assert QualityMetrics(["contrast"]).names == ["contrast"]
    with pytest.raises(ValueError, match=r"no metrics \['contrasts'\].*contrast"):
        QualityMetrics(["contrasts"])


def frames(levels, size=48):
    """Return pairs of source codes and decoded planes, R, G and B."""
    for source, decoded in levels:
        codes = torch.full((size, size), source, dtype=torch.uint8).numpy()
        yield (codes,) * 3, (torch.full((size, size), decoded / 255),) * 3


def measured(name, levels):
    meter = Meter("rgb", 48, 48, [name])
    for pair in frames(levels):
        meter.add(*pair)
    return meter.close(), meter


def test_evaluate_gives_a_function_8_bit_frames_and_their_neighbours(toys):
    values, _ = measured("flicker", [(10, 10.4), (12, 14.3), (20, 20.2)])
    expected = [2 / 255, 2 / 255]
    assert values["flicker"] == pytest.approx(expected, abs=1e-6)


def test_a_frame_without_a_value_leaves_the_sequence_without(toys):
    def refuses_bright(x_hat, clip):
        if x_hat.max() > 0.5:
            raise UnavailableMetricError("too bright")
        return x_hat.mean(dim=(-3, -2, -1))

    for function, reason in (
        (refuses_bright, "frame 1: too bright"),
        (lambda x_hat, clip: (0.5 - x_hat).mean(dim=(-3, -2, -1)).log(), "is nan"),
    ):
        toys.contrast = function
        values, meter = measured("contrast", [(10, 10), (200, 200), (10, 10)])
        assert values == {}
        assert reason in meter.undefined["contrast"]


def test_what_a_metric_needs_is_asked_before_its_function(toys, monkeypatch):
    def check():
        raise UnavailableMetricError("put the weights there")

    toys.check = check
    row = ROWS["contrast"]._replace(needs="toy_metrics:check", function="no:such")
    monkeypatch.setitem(METRICS, "contrast", row)
    values, meter = measured("contrast", [(10, 10)])
    assert values == {}
    assert meter.missing == {"contrast": "put the weights there"}
    assert "unavailable here: put the weights there" in describe_metrics()


def test_the_table_imports_nothing_heavy():
    program = (
        "import sys; from callbacks.metrics.table import METRICS, validation_names; "
        "validation_names(); heavy = {'torch', 'lightning', 'compressai', 'numpy'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_row_names_what_exists():
    from pkgutil import resolve_name

    for metric in METRICS.values():
        paths = (metric.function, metric.gauge, metric.needs)
        assert any(paths) or metric.boundary_of in METRICS
        for path in filter(None, paths):
            assert callable(resolve_name(path))
