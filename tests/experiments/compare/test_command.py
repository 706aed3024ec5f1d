"""``python -m experiments.compare``: its table, its files, its refusals."""

import csv
import json
import math

import pytest

from experiments.compare.command import main


def save(folder, *results):
    for result in results:
        result.save(folder / f"{result.name}.json")
    return [str(folder / f"{result.name}.json") for result in results]


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


@pytest.fixture
def report(monkeypatch):
    """Stand in for the report, which has tests of its own."""
    calls = []

    def write_report(comparison, results, output):
        calls.append((comparison, results, output))
        return [output / "report.md"]

    monkeypatch.setattr("experiments.compare.command.write_report", write_report)
    return calls


def test_the_command_prints_a_table_and_writes_numbers(
    make_result, tmp_path, capsys, report
):
    files = save(tmp_path, make_result("b", 0.9), make_result("a"))
    output = tmp_path / "report"
    code, said = run(capsys, *files, "--anchor", "a", "--output", output)
    assert code == 0, said.err
    lines = said.out.splitlines()
    assert any("BD-rate in %" in line and "against a" in line for line in lines)
    for label in ("all sets", "uvg", "Beauty", "BQSquare"):
        (line,) = (text for text in lines if text.strip().startswith(label))
        assert "-10.00" in line
    data = json.loads((output / "bd.json").read_text())
    assert data["anchor"] == "a"
    assert all(row["rate"]["value"] == pytest.approx(-10) for row in data["rows"])
    with (output / "bd.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data["rows"])
    assert float(rows[0]["bd_rate_value"]) == pytest.approx(-10)
    ((comparison, results, folder),) = report
    assert [result.name for result in results] == ["a", "b"]
    assert (comparison.anchor, folder) == ("a", output)


def test_a_mismatch_ends_with_code_2_and_one_line(make_result, tmp_path, capsys):
    other = make_result("b", intra_period=32)
    files = save(tmp_path, make_result("a"), other)
    code, said = run(capsys, *files, "--anchor", "a")
    assert code == 2
    assert said.err.startswith("error: the files were not measured alike: intra_period")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_explain_says_what_a_difference_costs_and_still_refuses(
    make_result, tmp_path, capsys
):
    other = make_result("b", matrix="bt601", definitions={"psnr_yuv": "4:1:1"})
    files = save(tmp_path, make_result("a"), other)
    code, said = run(capsys, *files, "--anchor", "a", "--explain")
    assert code == 2
    assert "matrix is bt709_full in a and bt601 in b" in said.out
    assert "more than 1 dB" in said.out
    assert "0.14 to 0.69 dB" in said.out


def test_an_allowed_mismatch_is_shown_before_the_numbers(make_result, tmp_path, capsys):
    other = make_result("b", 0.9, intra_period=32, crop="1024")
    files = save(tmp_path, make_result("a"), other)
    code, said = run(
        capsys, *files, "--anchor", "a", "--allow", "intra_period,crop", "--explain"
    )
    assert code == 0
    warning = said.out.index("not measured alike: intra_period is -1 in a and 32 in b")
    assert warning < said.out.index("-10.00")


def test_flags_are_footnotes_of_the_table(make_result, tmp_path, capsys):
    files = save(
        tmp_path, make_result("a"), make_result("b", 0.9, rates=(0.0, 21.0, 42.0))
    )
    _, said = run(capsys, *files, "--anchor", "a")
    assert " d  a curve has no more points than the interpolation needs" in said.out
    assert "noise" not in said.out


def test_a_narrow_terminal_gets_more_tables_and_loses_no_number(
    make_result, tmp_path, capsys, monkeypatch
):
    costs = {"a": 1.0, "b": 0.9, "c": 0.8, "a_codec_with_a_long_name": 0.7}
    files = save(tmp_path, *(make_result(name, cost) for name, cost in costs.items()))
    monkeypatch.setattr("experiments.results.drawing.tables.WIDE", 80)
    _, said = run(capsys, *files, "--anchor", "a")
    assert said.out.count("BD-rate in %") == 3
    assert said.out.replace("\n", "").count("…") == said.out.count(" … ")
    for number in ("-10.00", "-20.00", "-30.00"):
        assert said.out.count(number) == 9


def test_a_number_that_cannot_be_computed_is_none_and_never_0(
    make_result, tmp_path, capsys
):
    others = [make_result("b", rates=(0.0, 21.0)), make_result("c", 0.85)]
    files = save(tmp_path, make_result("a"), *others)
    code, said = run(capsys, *files, "--anchor", "a")
    assert code == 0
    line = next(text for text in said.out.splitlines() if "BQSquare" in text)
    assert "none a" in line
    assert "0.00" not in line
    heading = " a  there is no number, for the reason given below\n"
    _, _, reasons = said.out.partition(heading)
    reason = "    pchip needs 3 points of each curve, b has 2\n"
    assert reasons.count(reason) == said.out.count(reason) == 1


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_an_output_that_cannot_be_a_folder_is_refused_before_any_work(
    make_result, tmp_path, capsys, place
):
    files = save(tmp_path, make_result("a"), make_result("b", 0.9))
    (tmp_path / "file").write_text("mine")
    output = tmp_path / place
    code, said = run(capsys, *files, "--anchor", "a", "--output", output)
    reason = f"--output: {tmp_path}/file is a file, it must be a folder: choose another"
    assert (code, said.out, said.err) == (2, "", f"error: {reason}\n")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("arguments", [[], ["file.json"]])
def test_files_and_an_anchor_are_needed(arguments, capsys):
    code, said = run(capsys, *arguments)
    assert code == 2
    assert "--anchor NAME" in said.err


def test_papers_prints_every_table(capsys):
    code, said = run(capsys, "--papers")
    assert code == 0
    for text in ("145.2", "-37.55%", "0.909/0.088", "DHVC 2.0 (Parallel)"):
        assert text in said.out


def test_bd_json_holds_no_nan(make_result, tmp_path, capsys, report):
    files = save(tmp_path, make_result("a"), make_result("b", rates=(0.0, 21.0)))
    output = tmp_path / "report"
    run(capsys, *files, "--anchor", "a", "--output", output)

    def refuse(constant):
        raise AssertionError(constant)

    data = json.loads((output / "bd.json").read_text(), parse_constant=refuse)
    assert data["rows"][0]["rate"]["value"] is None
    assert all(math.isfinite(bpp) for c in data["curves"] for bpp in c["bpp"])


def test_files_of_one_rate_say_so_in_a_line_and_show_what_was_measured(
    make_result, tmp_path, capsys
):
    results = [make_result(n, cost, rates=(21.0,)) for n, cost in (("a", 1), ("b", 2))]
    files = save(tmp_path, *results)
    code, said = run(capsys, *files, "--anchor", "a")
    lines = said.out.splitlines()
    assert code == 0
    assert lines[0] == (
        "no BD-rate of psnr_yuv: pchip needs 3 points of each curve, a has 1 and b "
        "has 1"
    )
    assert "none" not in said.out and "range:" not in said.out
    rows = [line.split() for line in lines]
    beauty = [row[2:] for row in rows if row[:2] == ["uvg", "Beauty"]]
    assert beauty == [
        ["a", "21", "0.01600", "30.0000"],
        ["b", "21", "0.03200", "30.0000"],
    ]
