"""Drawings of a recipe: each is made of what is measured, and no other name is."""

import json
import math

import pytest

from experiments.compare.assemble import compare_results
from experiments.paper.command import main
from experiments.paper.figures import FIGURES, Drawn
from experiments.paper.values import Measured
from experiments.results.set_means import add_set_means

ROWS = """
title: own
anchor: a
metrics: [psnr_yuv]
rows:
  a: {results: a.json}
  b: {results: b.json}
  p: {profile: ui2c}
"""


@pytest.fixture
def draw(make_result, recipe, tmp_path, monkeypatch, capsys):
    """Write a recipe's table with a drawing; return the pictures' names."""
    monkeypatch.chdir(tmp_path)
    for name, cost in (("a", 1.0), ("b", 1.5)):
        result = make_result(name, cost)
        for sequence in result.sequences:
            for point in sequence.points:
                point.per_frame = {
                    "bits": [100.0] * sequence.frames,
                    "psnr_yuv": [30.0] * sequence.frames,
                    "bits_scale1": [40.0] * sequence.frames,
                    "bits_scale2": [60.0] * sequence.frames,
                }
        result.save(tmp_path / f"{name}.json")

    def of(figures, code=0):
        compared = "rd" in figures or "quality_at" in figures
        more = "" if compared else "compare: null\n"
        path = recipe(f"{ROWS}{more}figures: {{{figures}}}").path
        assert main([str(path), "--write", "--output", "out"]) == code
        if code:
            return capsys.readouterr().err
        folder = tmp_path / "out" / "own"
        names = json.loads((folder / "table.json").read_text())["figures"]
        page = (folder / "table.html").read_text()
        for name in names:
            assert (folder / name).stat().st_size > 1000 and name in page
        return [name.removeprefix("figures/") for name in names]

    return of


@pytest.mark.parametrize(
    ("figures", "names"),
    [
        ("frames: {rows: [a, b], sequence: Jockey, rate: 21}", ["frames_Jockey.png"]),
        ("frames: {sequence: Bosphorus}", []),
        ("rd: {metrics: [psnr_yuv], sets: [hevc_d]}", ["hevc_d_psnr_yuv.png"]),
        ("scale_shares: {row: a, sequence: Beauty, rate: 0}", ["scales_Beauty.png"]),
        ("progressive: {row: a}", []),
        ("latency: {}", []),
        (
            "quality_at: {metrics: [psnr_yuv], bpp: [0.05, 9]}",
            ["psnr_yuv_at_0.05_bpp.png"],
        ),
    ],
)
def test_a_drawing_is_made_of_what_is_measured(draw, figures, names):
    assert draw(figures) == names


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ("frame: {}", "figures.frame is none (did you mean frames?); there are frames"),
        ("frames: {sequenze: x}", "figures.frames: "),
        ("frames: {rows: [c]}", "figures.frames: there is no row 'c'"),
    ],
)
def test_a_wrong_drawing_is_one_line(draw, figures, message):
    assert message in draw(figures, code=2)


def test_bars_have_one_worker_and_several():
    time = {"encode_s_per_frame": 0.2, "decode_s_per_frame": 0.1}
    both = {"one_worker_s_per_frame": 0.2, "pipeline_s_per_frame": 0.1}
    piped = {"pipeline": {"workers": 4, "encode": both, "decode": both}}
    rows = {
        "a": Measured(figures={"profile": {"time": time}}),
        "b": Measured(figures={"profile": piped}),
        "c": Measured(),
    }
    ((name, figure),) = FIGURES["latency"](Drawn(rows, None, False))
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert name == "latency" and labels == ["a", "b", "b, 4 workers"]
    assert [bar.get_height() for bar in figure.axes[0].patches][:3] == [0.2, 0.2, 0.1]


def test_quality_is_read_off_at_equal_bits_and_a_curve_that_is_too_short_is_a_gap(
    make_result,
):
    results = [make_result("a"), make_result("b", 1.5)]
    rows = {r.name: Measured((r.name,), (r,)) for r in results}
    drawn = Drawn(rows, compare_results(add_set_means(results), "a"), False)
    ((name, figure),) = FIGURES["quality_at"](drawn, [0.0181])
    a, b = (line.get_ydata() for line in figure.axes[0].lines)
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert name == "psnr_yuv_at_0.0181_bpp" and ticks == ["uvg", "hevc_d"]
    # Of a, whose least bits are 0.016 and 0.018; and of b, with 1.5 times as many.
    assert 30.1 < a[0] < 31 and 30 < a[1] < 30.1
    assert all(map(math.isnan, b))
