"""The report: every number is shown, every name harmless, every figure true."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from experiments.compare.comparison import Delta, Difference
from experiments.compare.report.page import make_page, to_script_json
from experiments.compare.report.pictures import embed_pictures
from experiments.compare.report.plots import (
    draw_set,
    looks_of,
    mean_curves,
    plotted_metrics,
    rd_figures,
)
from experiments.compare.report.strips import comparable_points, draw_strip
from experiments.compare.report.write import write_report
from experiments.results.drawing.figures import figure_style
from experiments.results.drawing.looks import choose_looks
from experiments.results.drawing.names import FileNames
from experiments.results.result import Point

DIFFERENCE = Difference("intra_period", ("x265", "UI2C"), ("32", "-1"))
EVIL = "<script>alert(1)</script>&|*`[x](y)$a_b$"


@pytest.fixture(scope="module")
def results(samples, tmp_path_factory):
    return samples.make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def comparison(samples, results):
    return samples.compare(
        results, differences=[DIFFERENCE], notes=["UI2C lacks nothing."]
    )


@pytest.fixture(scope="module")
def report(results, comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "made"
    return folder, write_report(comparison, results, folder)


@pytest.fixture(scope="module")
def looks(comparison):
    return looks_of(comparison)


def read_data(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text[1])


def table_rows(markdown, title):
    section = markdown.split(f"## {title}\n\n")[1].split("\n\n")[0]
    lines = section.splitlines()
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines[2:]]


def test_every_file_that_is_written_is_named_and_linked(report):
    folder, written = report
    assert {p for p in folder.rglob("*") if p.is_file()} == set(written)
    assert [p.name for p in written[-2:]] == ["report.md", "report.html"]
    links = re.findall(r"\]\((.*?)\)", (folder / "report.md").read_text())
    assert {folder / link for link in links} == set(written[:-2])


def test_the_headline_has_both_conventions_and_the_papers_number(report, comparison):
    markdown = (report[0] / "report.md").read_text()
    rows = table_rows(markdown, "BD-rate against x265, PSNR YUV 6:1:1")
    assert [row[0] for row in rows] == ["uvg"] * 2 + ["hevc_e"] * 2 + ["all sets"] * 2
    row = comparison.row("UI2C", "psnr_yuv", "set_mean", "uvg")
    value, low, high = row.rate.value, row.rate.low, row.rate.high
    assert rows[0][2] == f"{value:+.2f} % ({low:+.1f} to {high:+.1f}), paper -31.50 %"
    assert markdown.count("paper -31.50 %") == 1
    curve = comparison.row("SVT-AV1", "psnr_yuv", "set_curve", "hevc_e")
    assert rows[3][3].startswith(f"{curve.rate.value:+.2f} %")
    assert "UI²C against HM-16.25" in markdown and "Table 1" in markdown


def test_allowed_differences_stand_before_any_number(report):
    for name in ("report.md", "report.html"):
        text = (report[0] / name).read_text()
        text = text[text.index("Comparison with x265") :]
        place = text.index("not measured under the same protocol")
        clause = text.index("intra_period is 32 in x265 and -1 in UI2C")
        assert place < clause < text.index("BD-rate against")
        assert text.index("UI2C lacks nothing") < text.index("BD-rate against")


def test_without_differences_there_is_no_warning(samples, results):
    page = make_page(samples.compare(results), results)
    assert "same protocol" not in page and "protocols differ" not in page


def test_flags_are_footnotes_and_explained_in_full(report):
    markdown = (report[0] / "report.md").read_text()
    rows = table_rows(markdown, "BD-rate against x265 per sequence, PSNR YUV 6:1:1")
    marked = [row[1] for row in rows if row[2].endswith("¹")]
    assert marked == ["Jockey"]
    assert "¹ the curves share less than 75 % of the axis" in markdown
    assert "| SVT-AV1 | uvg/Jockey: one sequence | the curves share 61 %" in markdown


def test_a_missing_number_is_never_shown_as_one(samples, results):
    comparison = samples.compare(results)
    rows = [
        replace(row, rate=Delta(None), quality=Delta(None))
        if row.kind == "set_mean"
        else row
        for row in comparison.rows
        if row.codec != "SVT-AV1"
    ]
    page = make_page(replace(comparison, rows=tuple(rows)), results)
    cells = re.search(r"mean of the set.{1,6}s sequences.*?</tr>", page)[0]
    assert re.findall(r'number">(.*?)<', cells) == ["none, paper -31.50 %", "none"]


def test_conditions_bits_and_costs_are_there(report):
    markdown = (report[0] / "report.md").read_text()
    protocol = dict((row[0], row[1:]) for row in table_rows(markdown, "Protocol"))
    assert protocol["colour"] == ["yuv420"] * 3 and protocol["intra_period"][0] == "-1"
    bits = table_rows(markdown, "Real and estimated bits")
    assert len(bits) == 2 * 4 and {row[-1] for row in bits} == {"+1.01 %"}
    cost = table_rows(markdown, "Seconds per frame and peak memory")
    assert cost[0] == ["x265", "uvg", "0.5", "0.05", "512", "256"]
    assert "UI2C 0123abcd" in markdown and "| environment.device | cpu |" in markdown


def test_figures_are_readable_at_1000_pixels_and_as_vectors(report):
    _, written = report
    for path in written:
        if path.suffix == ".png":
            assert cv2.imread(str(path)).shape[1] == 1080
        elif path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    names = {str(p.relative_to(report[0])) for p in written}
    assert "plots/uvg/psnr_yuv.png" in names
    assert "plots/uvg/psnr_yuv_sequences.svg" in names
    assert "strips/hevc_e/Johnny.svg" in names
    # Of one sequence there is nothing that the set's figure does not show.
    assert "plots/hevc_e/psnr_yuv_sequences.png" not in names
    # The curves of twins would lie on each other.
    assert not any("unrounded" in n or "ms_ssim_y." in n for n in names)


def test_metrics_without_a_better_twin_have_a_figure():
    every = ["psnr_y", "psnr_y_unrounded", "ms_ssim_y", "ms_ssim_y_db", "tof"]
    assert plotted_metrics(every) == ["psnr_y", "ms_ssim_y_db", "tof"]
    assert plotted_metrics(["psnr_y_unrounded", "ms_ssim_y"]) == [
        "psnr_y_unrounded",
        "ms_ssim_y",
    ]


def test_the_same_comparison_is_the_same_report(samples, results, tmp_path):
    few = [replace(r, sequences=r.sequences[2:]) for r in results]
    comparison = replace(samples.compare(few), metrics=("psnr_yuv",))
    first, second = (write_report(comparison, few, tmp_path / n) for n in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_the_users_matplotlib_style_neither_counts_nor_changes():
    from matplotlib import rcParams

    before = dict(rcParams)
    try:
        rcParams["lines.linewidth"] = 40
        with figure_style():
            assert rcParams["lines.linewidth"] < 3
            assert rcParams["text.parse_math"] is False
        assert rcParams["lines.linewidth"] == 40
    finally:
        rcParams.update(before)


def test_curves_show_every_point_and_those_left_out_hollow(comparison, looks):
    from matplotlib.colors import to_hex

    (curve,) = (
        c
        for c in comparison.curves
        if (c.codec, c.metric, c.sequence) == ("SVT-AV1", "psnr_yuv", "Jockey")
    )
    with figure_style():
        figure = draw_set([curve], "uvg", 1, looks)
    whole, hollow = figure.axes[0].lines
    assert list(whole.get_xdata()) == [b for i, b in enumerate(curve.bpp) if i != 2]
    assert hollow.get_ydata() == [curve.quality[2]]
    assert hollow.get_markerfacecolor() == "white"
    assert to_hex(whole.get_color()) == looks["SVT-AV1"].colour.lower()
    assert figure.axes[0].get_xlabel() == "rate (bits per pixel)"
    assert figure.axes[0].get_ylabel() == "PSNR YUV 6:1:1 (dB)"


@pytest.mark.parametrize(("factor", "scale"), [(1, "linear"), (4, "log")])
def test_the_rate_axis_is_logarithmic_only_where_it_must(
    comparison, looks, factor, scale
):
    curves = mean_curves(comparison, "uvg", "psnr_yuv")
    wide = [replace(c, bpp=(*c.bpp[:-1], factor * c.bpp[-1])) for c in curves]
    with figure_style():
        figure = draw_set(wide, "uvg", 2, looks)
    assert figure.axes[0].get_xscale() == scale


def test_a_set_without_mean_curves_shows_its_sequences(comparison):
    curves = tuple(c for c in comparison.curves if c.sequence is not None)
    lacking = replace(comparison, curves=curves, metrics=("psnr_yuv",))
    with figure_style():
        drawn = [(f.place[0], f.what, f.file) for f in rd_figures(lacking)]
    file = "psnr_yuv_sequences"
    assert drawn == [(name, "sequences", file) for name in ("uvg", "hevc_e")]


def test_colours_belong_to_codecs_and_come_back_with_other_dashes_and_markers():
    names = [f"codec {n}" for n in range(15)]
    looks = choose_looks(["anchor", *names], "anchor")
    assert len({(look.colour, look.dashes) for look in looks.values()}) == 16
    pairs = {(look.colour, look.marker) for look in looks.values()}
    assert len(pairs) == 16
    assert looks["codec 0"] == choose_looks(["codec 0", "b"], "b")["codec 0"]
    assert looks["anchor"].colour not in {looks[name].colour for name in names}


def test_strips_take_the_points_whose_rates_lie_closest():
    points = {
        "a": [Point(1, 0.1), Point(2, 0.2), Point(3, 0.4)],
        "b": [Point(1, 0.13), Point(2, 0.27), Point(3, 0.41)],
        "c": [Point(1, 0.05), Point(2, 0.39)],
    }
    assert {n: p.bpp for n, p in comparable_points(points).items()} == {
        "a": 0.4,
        "b": 0.41,
        "c": 0.39,
    }


def test_a_strip_shows_each_frames_bits_and_quality(results, looks):
    points = {r.name: r.sequences[0].points[1] for r in results}
    points["x265"] = replace(points["x265"], bpp=2 * points["UI2C"].bpp)
    with figure_style():
        figure = draw_strip("Beauty", points, looks, "tof")
    upper, lower = figure.axes
    for codec, bits, psnr in zip(points, upper.lines, lower.lines, strict=True):
        own = points[codec].per_frame
        assert list(bits.get_ydata()) == [b / 1000 for b in own["bits"]]
        assert list(psnr.get_ydata()) == own["psnr_yuv"]
    assert "no fair comparison" in upper.get_title(loc="left")
    assert upper.get_ylabel() == "bits per frame (kbit)"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"UI2C, rate 21: {points['UI2C'].bpp:.4f} bpp" in texts[1]


def test_a_strip_shows_the_headline_if_it_is_a_psnr(results, looks):
    point = replace(results[0].sequences[0].points[0])
    point.per_frame = {**point.per_frame, "psnr_rgb": [1.0] * 12}
    for headline, label in (("psnr_rgb", "PSNR RGB"), ("tof", "PSNR YUV 6:1:1")):
        with figure_style():
            figure = draw_strip("Beauty", {"x265": point}, looks, headline)
        assert figure.axes[1].get_ylabel() == f"{label} (dB)"


def test_results_without_pictures_or_frames_make_a_report_too(
    samples, results, tmp_path
):
    bare = [replace(r, sequences=[strip(s) for s in r.sequences]) for r in results]
    comparison = replace(samples.compare(bare), metrics=("psnr_yuv",))
    written = write_report(comparison, bare, tmp_path)
    assert not any("strips" in str(path) for path in written)
    data = read_data((tmp_path / "report.html").read_text())
    assert data["frames"] == data["pictures"] == []
    assert data["pictures_note"] == "The results name no pictures."
    assert "Seconds per frame" not in (tmp_path / "report.md").read_text()


def strip(sequence):
    points = [Point(p.rate, p.bpp, metrics=p.metrics) for p in sequence.points]
    return replace(sequence, points=points, pictures={})


def test_sequences_that_were_not_compared_are_not_shown(results, comparison, tmp_path):
    rows = tuple(row for row in comparison.rows if row.set == "hevc_e")
    curves = tuple(curve for curve in comparison.curves if curve.set == "hevc_e")
    only = replace(comparison, sets={"hevc_e": ("Johnny",)}, rows=rows, curves=curves)
    write_report(replace(only, metrics=("psnr_yuv",), papers=()), results, tmp_path)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "Johnny" in text and "uvg" not in text and "Jockey" not in text


def test_file_names_stay_in_the_folder_and_apart(tmp_path):
    names = FileNames(tmp_path)
    parts = [("..", "a/b"), ("..", "a_b"), ("..", "A_b"), ("", "...")]
    stems = [names.stem(*pair) for pair in parts]
    assert len({str(stem).lower() for stem in stems}) == len(parts)
    assert all(stem.resolve().is_relative_to(tmp_path.resolve()) for stem in stems)
    assert names.stem("..", "a/b") == stems[0]


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_no_name_is_markup_anywhere(samples, tmp_path):
    codecs = {"x265": samples.CODECS["x265"], EVIL: (0.8, (1, 2, 3, 4))}
    results = samples.make_results(
        tmp_path, codecs={"x265": codecs["x265"], "b": codecs[EVIL]}
    )
    results[1].name = results[1].codec["name"] = EVIL
    for result in results:
        result.sequences = result.sequences[:1]
        result.sequences[0].name = f"</script>{EVIL}"
        result.sequences[0].set = "../<b>"
    comparison = samples.compare(results, notes=[EVIL])
    output = tmp_path / "report"
    written = write_report(replace(comparison, metrics=("psnr_yuv",)), results, output)
    assert all(path.resolve().is_relative_to(output.resolve()) for path in written)
    markdown = (output / "report.md").read_text()
    assert "<" not in markdown
    rows = table_rows(markdown, "BD-rate against x265, PSNR YUV 6:1:1")
    assert rows and all(len(re.findall(r"(?<!\\)\|", "|".join(r))) == 2 for r in rows)
    page = (output / "report.html").read_text()
    elements = Elements()
    elements.feed(page)
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert "b" not in {tag for tag, _ in elements.found}
    assert read_data(page)["codecs"][1]["name"] == EVIL


def test_json_in_the_page_cannot_end_its_element():
    text = to_script_json({"name": "</script><!--&"})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"name": "</script><!--&"}
    with pytest.raises(ValueError):
        to_script_json(float("nan"))


def test_the_page_asks_for_nothing_and_allows_only_itself(report):
    page = (report[0] / "report.html").read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)\w+:""", page)
    assert "<link" not in page and "@import" not in page
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    allowed = dict(part.split(maxsplit=1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'" and allowed["img-src"] == "data:"
    for kind, pattern in (("style", "<style>(.*?)</style>"), ("script", None)):
        text = re.findall(pattern or "<script>(.*?)</script>", page, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[f"{kind}-src"] == f"'sha256-{digest}'"


def test_the_page_holds_every_curve_row_and_frame(report, comparison):
    data = read_data((report[0] / "report.html").read_text())
    assert len(data["rows"]) == len(comparison.rows)
    # Three sequences and two sets' means, three codecs each.
    assert len(data["curves"]) == 5 * 3
    curve = data["curves"][0]
    assert list(curve["quality"]) == list(comparison.metrics)
    assert len(data["frames"]) == 3 * 3 * 4
    series = data["frames"][0]["series"]
    assert {name: len(values) for name, values in series.items()} == {
        "bits": 12,
        "psnr_yuv": 12,
        "ms_ssim_y_db": 12,
        "tof": 11,
    }


def test_pictures_are_embedded_at_full_size(results, comparison):
    entries, note = embed_pictures(comparison, results)
    assert len(entries) == 3 * 2 * (1 + 3 * 4) and "left out" not in note
    entry = next(e for e in entries if e["codec"] == 1 and e["rate"] == 63)
    data = base64.b64decode(entry["image"].removeprefix("data:image/webp;base64,"))
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    sequence = next(s for s in results[1].sequences if s.name == entry["sequence"])
    path = results[1].path.parent / sequence.points[3].pictures[entry["frame"]]
    original = cv2.imread(str(path))
    assert shown.shape == original.shape == (48, 64, 3)
    assert np.abs(shown.astype(int) - original).mean() < 4


def test_a_small_page_keeps_first_frames_at_comparable_rates(results, comparison):
    everything, _ = embed_pictures(comparison, results)
    # The source and three codecs of three sequences.
    first = [e for e in everything if e["closest"] and e["frame"] == "0"]
    assert len(first) == 3 * (1 + 3)
    limit = sum(len(entry["image"]) for entry in first) + 1
    entries, note = embed_pictures(comparison, results, limit)
    assert entries == first
    assert f"{len(everything) - 12} of {len(everything)} pictures were left out" in note


def test_a_page_with_too_many_frames_keeps_comparable_rates(
    results, comparison, monkeypatch
):
    everything = read_data(make_page(comparison, results))["frames"]
    closest = [entry for entry in everything if entry["closest"]]
    numbers = sum(len(v) for entry in closest for v in entry["series"].values())
    monkeypatch.setattr("experiments.compare.report.page_data.FRAME_NUMBERS", numbers)
    data = read_data(make_page(comparison, results))
    assert data["frames"] == closest and len(closest) == 3 * 3
    assert "27 of 36 points were left out" in data["frames_note"]


def test_pictures_that_cannot_be_read_are_counted(samples, tmp_path):
    results = samples.make_results(tmp_path)
    (tmp_path / "uvg_Beauty_0.png").unlink()
    (tmp_path / "uvg_Beauty_6.png").write_text("no picture")
    entries, note = embed_pictures(samples.compare(results), results)
    assert len(entries) == 3 * 2 * 13 - 2
    assert "2 pictures could not be read, the first of them uvg_Beauty_0.png" in note


def test_what_cannot_be_written_leaves_no_half_page(results, comparison, tmp_path):
    (tmp_path / "report.html").mkdir()
    small = replace(comparison, metrics=("psnr_yuv",), sets={"hevc_e": ("Johnny",)})
    with pytest.raises(IsADirectoryError, match=r"report\.html"):
        write_report(small, results, tmp_path)
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("report.html/*"))


def test_naming_the_report_loads_nothing_heavy():
    code = (
        "import sys, experiments.compare.report.write\n"
        "print(*{'torch', 'matplotlib', 'wandb', 'cv2', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[4]
    done = subprocess.run(command, cwd=root, capture_output=True, check=True)
    assert done.stdout.strip() == b""
