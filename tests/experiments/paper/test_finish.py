"""The table: printed cells and ours, from whatever is measured."""

import json

import pytest

from experiments.compare.papers import PaperColumn
from experiments.paper.command import main
from experiments.paper.finish import printed_table
from experiments.paper.values import Measured, NoValueError, shown, value_of, values_at

PAPERS = """
title: Table 3
paper: ui2c
table: "3"
anchor: unified, two-frame, hybrid reference, no refresh
metrics: [psnr_yuv]
rows:
  unified, two-frame, hybrid reference, no refresh: {results: full.json}
  unified, one frame, no hybrid reference, no refresh: {results: single.json}
  divided, one frame, no hybrid reference, no refresh: {results: "${LOST}", supply: ask}
"""

OWN = """
title: own
note: Two codecs.
anchor: a
metrics: [psnr_yuv]
rows:
  a: {results: a.json}
  b: {results: b.json}
columns:
  - {quantity: bd_rate, title: all, metric: psnr_yuv}
  - {quantity: bd_rate, title: D, set: hevc_d, metric: psnr_yuv}
  - {quantity: bd_rate, title: E, set: hevc_e, metric: psnr_yuv}
  - {quantity: mean, metric: psnr_yuv, title: at 21, rate: 21}
  - {quantity: params_m, title: M}
published:
  b: ["", "10.0%"]
"""


@pytest.fixture
def place(make_result, tmp_path, monkeypatch):
    """A folder with results, one of which needs 1.5 times the bits."""
    monkeypatch.chdir(tmp_path)
    for name, cost in (("full", 1.0), ("single", 1.5), ("a", 1.0), ("b", 1.5)):
        make_result(name, cost).save(tmp_path / f"{name}.json")
    return tmp_path


@pytest.fixture
def write(place, recipe):
    """Write a recipe's table; return its rows, its cells by column, and the page."""

    def of(text, code=0):
        path = recipe(text).path
        assert main([str(path), "--write", "--output", "out"]) == code
        folder = place / "out" / "own"
        table = json.loads((folder / "table.json").read_text())
        rows = {
            line["label"]: dict(zip(table["columns"], line["cells"], strict=True))
            for line in table["lines"]
        }
        return table, rows, (folder / "table.md").read_text()

    return of


def test_the_papers_cells_stand_beside_ours(write):
    table, rows, page = write(PAPERS)
    assert table["source"] == "arXiv 2510.14431, Table 3"
    single = rows["unified, one frame, no hybrid reference, no refresh"]
    assert single["HEVC-D"]["printed"] == "31.2"
    assert single["HEVC-D"]["ours"] == pytest.approx(50)
    assert "| 31.2 | 50.0 |" in page
    full = rows["unified, two-frame, hybrid reference, no refresh"]
    assert full["HEVC-D"]["ours"] == 0
    # In the paper's order, with rows that are not measured here.
    assert [*rows] == [*printed_table("ui2c", "3").rows]
    assert "HEVC-B, ours" in page


def test_an_empty_cell_says_why(write):
    _, rows, page = write(PAPERS)
    single = rows["unified, one frame, no hybrid reference, no refresh"]
    assert single["HEVC-B"]["ours"] is None
    assert single["HEVC-B"]["reason"] == "hevc_b is not measured"
    lost = rows["divided, one frame, no hybrid reference, no refresh"]
    assert {cell["reason"] for cell in lost.values()} == {"ask"}
    other = rows["unified, two-frame, hybrid reference, refresh 64"]
    assert other["HEVC-B"]["reason"] == "no recipe of this suite measures it"
    assert "¹" in page and "ask" in page


def test_a_table_of_ones_own(write, place):
    _, rows, page = write(OWN)
    b = rows["b"]
    assert b["all"]["ours"] == pytest.approx(50) and b["all"]["printed"] == ""
    assert b["D"]["printed"] == "10.0%" and "50.0%" in page
    assert b["E"]["reason"] == "hevc_e is not measured"
    assert b["at 21"]["ours"] == 32
    assert b["M"]["reason"] == "no params_m is measured"
    assert (place / "out" / "own" / "report" / "report.html").is_file()
    html = (place / "out" / "own" / "table.html").read_text()
    assert "Two codecs." in html and "http" not in html


def test_what_is_not_measured_yet_leaves_the_table_partly_filled(write, place):
    (place / "b.json").unlink()
    table, rows, _ = write(OWN)
    assert rows["b"]["at 21"]["reason"] == "not measured yet"
    assert rows["a"]["at 21"]["ours"] == 32
    assert "nothing is measured beside the anchor" in " ".join(table["notes"])


def test_results_that_were_not_measured_alike_are_an_error(
    write, place, make_result, capsys
):
    make_result("b", 1.5, intra_period=8).save(place / "b.json")
    _, rows, page = write(OWN, code=2)
    assert "intra_period" in capsys.readouterr().err
    assert rows["b"]["all"]["ours"] is None and rows["b"]["at 21"]["ours"] == 32
    assert "othing is compared" in page


def test_a_cell_of_several_values_is_written_as_the_paper_does(make_result):
    result = make_result("a", metrics=("psnr_yuv", "lpips_alex"))
    row = Measured(("a",), (result,))
    assert (
        values_at(("psnr_yuv", "lpips_alex"), 21.0, row, "0.81/0.096") == "32.00/0.300"
    )
    assert values_at(("bpp",), 21.0, row, "") == "0.03333"
    with pytest.raises(NoValueError, match="no tof is measured at rate 21"):
        values_at(("tof",), 21.0, row, "0.81")


def test_any_number_of_a_file_of_figures_can_be_a_cell():
    profile = {"parameters": 46_713_856, "modules": [{"name": "encoder"}]}
    profile["time"] = {"encode_s_per_frame": 0.02}
    row = Measured(("a",), figures={"profile": profile})

    def value(quantity):
        return value_of(PaperColumn(quantity, ""), row, None, "")

    assert value("params_m") == pytest.approx(46.713856)
    assert value("encode_fps") == pytest.approx(50)
    assert value("profile:modules.0.name") == "encoder"
    for wrong, reason in (
        ("profile:modules.1.name", "has no modules.1.name"),
        ("profile:modules", "is no number"),
        ("stream:runs", "not measured yet"),
        ("decode_fps", "no decode_fps is measured"),
        ("steps", "nothing measures steps"),
    ):
        with pytest.raises(NoValueError, match=reason):
            value(wrong)


def test_a_printed_table_that_is_none_is_refused(write, capsys):
    with pytest.raises(ValueError, match="no printed table ui2c 9: there are dhvc II"):
        printed_table("ui2c", "9")


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (12.345, "9.8", "12.3"),
        (12.345, "-15.97%", "12.35%"),
        (142.4, "142", "142"),
        (0.00123456, "", "0.001235"),
        (3.0, "4+4", "3"),
        ("cpu", "1.0", "cpu"),
    ],
)
def test_a_value_has_the_printed_cells_decimals(value, like, text):
    assert shown(value, like) == text
