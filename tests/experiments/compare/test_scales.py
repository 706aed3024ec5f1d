"""Points of some scales in compare, in the report's figures and in exchange."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace

import pytest

from callbacks.metrics.table import METRICS
from experiments.compare import command as compare
from experiments.compare.assemble import compare_results
from experiments.compare.report.page import show_scales
from experiments.compare.report.scales import (
    draw_bits,
    draw_progressive,
    progressive_points,
    scale_figures,
    whole_points,
)
from experiments.results import exchange
from experiments.results.result import Point


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("progressive")


@pytest.fixture(scope="session")
def curve(result_of):
    """Return a result with four rates, of which one scale gives 5 dB less."""

    def make(name, gain, scaled=True):
        points = []
        for n in range(4):
            bpp, psnr = 0.05 * 2**n, 30 + 3 * n + gain
            for scales, less in ((None, 0), (1, 5), (2, 2)):
                share = {None: 1, 1: 0.2, 2: 0.5}[scales]
                bits = [bpp * share * 4096 * (2 if t == 0 else 2 / 3) for t in range(4)]
                parts = {f"bits_scale{k}": [b / 4 for b in bits] for k in (1, 2, 3, 4)}
                if scales or not scaled:
                    parts = {}
                point = Point(
                    float(n),
                    bpp * share,
                    kbps=1.0,
                    seconds={"decode": 9.0 if scales else 0.1},
                    metrics={"psnr_rgb": psnr - less},
                    per_frame={
                        "bits": bits,
                        **parts,
                        "psnr_rgb": [psnr - less] * 4,
                    },
                    scales=scales,
                )
                if scaled or scales is None:
                    points.append(point)
        definition = {"psnr_rgb": METRICS["psnr_rgb"].definition}
        result = result_of(name, points)
        return replace(
            result, protocol=replace(result.protocol, definitions=definition)
        )

    return make


@pytest.fixture(scope="module")
def files(curve, folder):
    paths = []
    for name, gain, scaled in (("x265", 0, False), ("one", 1, True), ("two", 3, True)):
        paths.append(folder / f"{name}.json")
        curve(name, gain, scaled).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def report(folder, files):
    """Return the folder of a report and what was printed."""
    printed = io.StringIO()
    out = folder / "report"
    more = ["--anchor=x265", "--at_bpp", "0.1", "0.9", "--output", str(out)]
    with redirect_stdout(printed):
        assert run_compare(files, *more) == 0
    return out, printed.getvalue()


def run_compare(files, *more):
    return compare.main([*map(str, files), *more])


def test_compare_takes_the_points_with_all_scales(curve):
    results = [curve("x265", 0, scaled=False), curve("one", 1), curve("two", 3)]
    comparison = compare_results(results, "x265")
    assert comparison.scales is None
    for shown in comparison.curves:
        assert shown.bpp == pytest.approx([0.05, 0.1, 0.2, 0.4])
    quality = {row.codec: row.quality.value for row in comparison.rows}
    assert quality == {"one": pytest.approx(1), "two": pytest.approx(3)}


def test_compare_takes_fewer_scales_if_it_is_told_to(curve, files, capsys):
    comparison = compare_results([curve("one", 1), curve("two", 3)], "one", scales=1)
    assert comparison.scales == 1
    for shown in comparison.curves:
        assert shown.bpp == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert comparison.rows[0].quality.value == pytest.approx(2)
    assert run_compare(files[1:], "--anchor=one", "--scales=2") == 0
    assert "only the 2 coarsest scales were decoded" in capsys.readouterr().out
    assert run_compare(files, "--anchor=one", "--scales=1") == 2
    assert "x265 has no point of which 1 of the scales" in capsys.readouterr().err


def test_the_report_shows_bits_by_scale_and_progressive_decoding(report):
    out, _ = report
    made = sorted(p.relative_to(out).as_posix() for p in out.glob("scales/**/*.*"))
    assert made == [
        f"scales/set/one_{what}.{suffix}"
        for what in ("bits", "progressive")
        for suffix in ("png", "svg")
    ]
    text = (out / "report.md").read_text()
    assert all(f"]({path})" in text for path in made)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "<h2>Scales</h2>" in page
    # Tables and charts are of the points that were compared.
    assert "| one | set | 0.1 |" in text and "| two | set | 0.1 |" in text
    frames = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["frames"]
    assert [entry["codec"] for entry in frames].count(1) == 4


def test_codecs_without_scales_make_no_such_figure(curve):
    results = [curve(name, 0, scaled=False) for name in ("x265", "plain")]
    comparison = compare_results(results, "x265")
    assert list(scale_figures(comparison, results)) == []
    assert show_scales({}) == ""


def test_figures_of_scales_draw_the_files_numbers(curve):
    results = [curve("one", 1), curve("two", 3), curve("x265", 0, scaled=False)]
    parts = progressive_points(results, "set", "one")
    assert [[p.scales for p in own] for own in parts.values()] == [[1, 2, None]] * 2
    assert {p.rate for own in parts.values() for p in own} in ({1.0}, {2.0})
    assert list(whole_points(results, "set", "one")) == ["one", "two"]
    figure = draw_progressive("one", parts, "psnr_rgb")
    upper, other, lower, last = figure.axes
    for own, axes in zip(parts.values(), (lower, last), strict=True):
        for point, line in zip(own, axes.lines, strict=True):
            assert list(line.get_ydata()) == point.per_frame["psnr_rgb"]
    colours = [line.get_color() for line in upper.lines]
    assert len(set(colours)) == 3
    assert colours == [line.get_color() for line in other.lines]
    # Two of four scales have the second colour, all of them the fourth.
    bars = draw_bits("one", {"two": parts["two"][-1]})
    faces = [patch.get_facecolor() for patch in bars.axes[0].patches]
    assert len(faces) == 4
    from matplotlib.colors import to_rgba

    assert faces[1] == to_rgba(colours[1]) and faces[3] == to_rgba(colours[2])
    tops = [patch.get_data().values for patch in bars.axes[0].patches]
    whole = [b / 1000 for b in parts["two"][-1].per_frame["bits"]]
    assert list(tops[3]) == pytest.approx(whole)
    shares = [patch.get_data().values for patch in bars.axes[1].patches]
    assert list(shares[0]) == pytest.approx([25] * 4)
    assert list(shares[3]) == pytest.approx([100] * 4)


def test_a_page_of_too_many_figures_says_how_many_are_beside_it(tmp_path):
    stems = {}
    for name in "abc":
        stems["set", name] = {"bits by scale": tmp_path / name}
        (tmp_path / f"{name}.png").write_bytes(b"\0" * 300)
    page = show_scales(stems, limit=1000)
    assert page.count("data:image/png") == 2
    assert "1 more figures are beside this page" in page


def test_dcvcs_format_gets_the_points_with_all_scales(curve, tmp_path):
    result = curve("one", 1)
    for point in result.sequences[0].points:
        values = point.per_frame["psnr_rgb"]
        point.metrics["psnr_rgb_unrounded"] = values[0]
        point.per_frame["psnr_rgb_unrounded"] = values
    result.save(tmp_path / "one.json")
    out = tmp_path / "dcvc.json"
    assert exchange.main([str(tmp_path / "one.json"), str(out)]) == 0
    entries = json.loads(out.read_text())["set"]["one"].values()
    bpp = [entry["ave_all_frame_bpp"] for entry in entries]
    assert bpp == pytest.approx([0.05, 0.1, 0.2, 0.4])


def test_compare_shows_quality_at_fixed_rates_and_none_where_there_is_none(report):
    out, printed = report
    table = printed[printed.index("at fixed rates") :].splitlines()
    rows = [line.split() for line in table if line.strip().startswith("set ")]
    assert rows == [
        ["set", "bpp", "x265", "one", "two"],
        ["set", "0.1", "33", "34", "36"],
        ["set", "0.9", "none", "none", "none"],
    ]
    assert "| set | 0.1 | 33 | 34 | 36 |" in (out / "report.md").read_text()
    assert "at fixed rates" in (out / "report.html").read_text()
    fixed = json.loads((out / "bd.json").read_text())["fixed"]
    found = {(q["codec"], q["bpp"]): q["value"] for q in fixed}
    assert found["two", 0.1] == pytest.approx(36)
    assert found["two", 0.9] is None
