import csv
import json
import math
import subprocess
import sys
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import pytest

from experiments.bd_rows import curves_of
from experiments.compare import main
from experiments.comparing import compare_results
from experiments.protocol_check import EXPLANATIONS, ProtocolMismatch
from experiments.results import METRICS, Point, Protocol, Result, SequenceResult

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_d": ("BQSquare",)}
RATES = (0.0, 21.0, 42.0, 63.0)


def make_sequence(set, name, cost, rates=RATES, metrics=("psnr_yuv",), frames=96):
    """Return points whose quality is the knob's and whose bits are scaled."""
    points = []
    for i, rate in enumerate(rates):
        bpp = cost * 0.01 * 2**i * (1 + len(name) / 10)
        values = {"psnr_yuv": 30 + 2.0 * i, "psnr_rgb": 29 + 2.0 * i}
        values |= {"lpips_alex": 0.4 - 0.1 * i, "psnr_y": 31 + 2.0 * i}
        chosen = {metric: values[metric] for metric in metrics}
        points.append(Point(rate, bpp, metrics=chosen))
    return SequenceResult(set, name, 416, 240, Fraction(50), frames, points, "stored")


def make_result(name, cost=1.0, sets=SETS, metrics=("psnr_yuv",), codec=None, **kwargs):
    sequences = [
        make_sequence(set, member, cost, metrics=metrics, **kwargs)
        for set, members in sets.items()
        for member in members
    ]
    definitions = {metric: METRICS[metric].definition for metric in metrics}
    protocol = Protocol("yuv420", 96, -1, "bitstream", definitions=definitions)
    described = {"name": codec or name, "kind": "learned"}
    return Result(name, described, protocol, sequences=sequences)


def compare(*results, anchor="a", **kwargs):
    return compare_results(list(results), anchor, **kwargs)


def value(comparison, kind, set=None, sequence="", codec="b", metric="psnr_yuv"):
    return comparison.row(codec, metric, kind, set, sequence).rate.value


def kinds(row):
    return {flag.kind for flag in row.flags}


def with_protocol(result, **changes):
    return replace(result, protocol=replace(result.protocol, **changes))


def save(folder, *results):
    for result in results:
        result.save(folder / f"{result.name}.json")
    return [str(folder / f"{result.name}.json") for result in results]


def test_a_codec_that_needs_a_tenth_fewer_bits_everywhere_has_minus_10_percent():
    comparison = compare(make_result("a"), make_result("b", 0.9))
    assert {row.kind for row in comparison.rows} == {
        "sequence",
        "set_mean",
        "set_curve",
        "overall_mean",
        "overall_curve",
    }
    for row in comparison.rows:
        assert row.rate.value == pytest.approx(-10), row.kind
    assert comparison.headline == "psnr_yuv"
    assert comparison.sets == SETS


def test_a_set_mean_is_the_mean_of_its_sequences():
    test = make_result("b", 0.9)
    for point in test.sequences[1].points:
        point.bpp *= 2
    comparison = compare(make_result("a"), test)
    assert value(comparison, "sequence", "uvg", "Jockey") == pytest.approx(80)
    assert value(comparison, "set_mean", "uvg") == pytest.approx((-10 + 80) / 2)
    assert value(comparison, "set_mean", "hevc_d") == pytest.approx(-10)


def test_the_overall_mean_is_the_mean_over_sets_not_over_sequences():
    test = make_result("b", 0.9)
    for point in test.sequences[1].points:
        point.bpp *= 2
    comparison = compare(make_result("a"), test)
    assert value(comparison, "overall_mean") == pytest.approx((35 - 10) / 2)


def test_the_mean_curve_weighs_sequences_by_their_frames():
    long = make_sequence("uvg", "Beauty", 1.0, frames=300)
    short = make_sequence("uvg", "Jockey", 7.0, frames=100)
    for point in short.points:
        point.metrics["psnr_yuv"] += 1.5
    result = replace(make_result("a"), sequences=[long, short])
    sets = {"uvg": ("Beauty", "Jockey")}
    mean = next(c for c in curves_of(result, "psnr_yuv", sets) if c.sequence is None)
    for i, (a, b) in enumerate(zip(long.points, short.points, strict=True)):
        assert mean.bpp[i] == pytest.approx((300 * a.bpp + 100 * b.bpp) / 400)
        psnrs = 300 * a.metrics["psnr_yuv"] + 100 * b.metrics["psnr_yuv"]
        assert mean.quality[i] == pytest.approx(psnrs / 400)
    assert mean.rates == RATES


def test_the_two_conventions_differ_where_sequences_differ_in_bits():
    # One sequence has a hundred times the bits, so the mean curve is all its own.
    anchor, test = make_result("a"), make_result("b", 0.9)
    for result in (anchor, test):
        for point in result.sequences[0].points:
            point.bpp *= 100
    for point in test.sequences[1].points:
        point.bpp *= 2
    comparison = compare(anchor, test)
    assert value(comparison, "set_mean", "uvg") == pytest.approx(35)
    assert value(comparison, "set_curve", "uvg") == pytest.approx(-10, abs=1.5)


def test_a_set_whose_rate_points_differ_has_no_mean_curve():
    test = make_result("b", 0.9)
    for point in test.sequences[1].points:
        point.rate += 1
    comparison = compare(make_result("a"), test)
    row = comparison.row("b", "psnr_yuv", "set_curve", "uvg")
    assert row.rate.value is None
    assert "different rate points" in row.flags[0].text
    assert value(comparison, "set_mean", "uvg") == pytest.approx(-10)
    overall = comparison.row("b", "psnr_yuv", "overall_curve", None)
    assert overall.rate.value == pytest.approx(-10)
    assert "1 of 2 sets lack a number: uvg" in [f.text for f in overall.flags]


def test_points_of_equal_targets_make_a_mean_curve_whatever_their_knob():
    test = make_result("b", 0.9)
    for i, sequence in enumerate(test.sequences):
        for target, point in enumerate(sequence.points, 1):
            point.target_bpp = 0.01 * target
            point.rate += i
    comparison = compare(make_result("a"), test)
    assert value(comparison, "set_curve", "uvg") == pytest.approx(-10)


def test_a_sequence_without_a_number_makes_its_mean_incomplete():
    test = make_result("b", 0.9)
    del test.sequences[0].points[2:]
    comparison = compare(make_result("a"), test)
    row = comparison.row("b", "psnr_yuv", "set_mean", "uvg")
    assert row.rate.value == pytest.approx(-10)
    assert "incomplete" in kinds(row)
    assert any("Beauty" in flag.text for flag in row.flags)


def test_the_error_bar_of_a_mean_is_the_mean_of_its_ends_if_all_have_one():
    test = make_result("b", 0.9)
    test.sequences[0].points[1].bpp *= 1.1
    comparison = compare(make_result("a"), test)
    row = comparison.row("b", "psnr_yuv", "set_mean", "uvg")
    ends = [
        comparison.row("b", "psnr_yuv", "sequence", "uvg", name).rate.low
        for name in SETS["uvg"]
    ]
    assert row.rate.low == pytest.approx(sum(ends) / 2)
    assert row.rate.low < row.rate.value < row.rate.high
    for result in (anchor := make_result("a"), test):
        del result.sequences[1].points[3]
    row = compare(anchor, test).row("b", "psnr_yuv", "set_mean", "uvg")
    assert row.rate.value is not None
    assert (row.rate.low, row.rate.high) == (None, None)


def test_an_outlier_is_flagged_with_the_mean_without_it():
    sets = {"uvg": ("Beauty", "Jockey", "HoneyBee", "YachtRide", "ShakeNDry")}
    test = make_result("b", 0.9, sets)
    for i, sequence in enumerate(test.sequences):
        for point in sequence.points:
            point.bpp *= 3 if i == 2 else 1 + i / 1000
    comparison = compare(make_result("a", sets=sets), test)
    flagged = [r.sequence for r in comparison.rows if r.kind == "sequence"]
    flagged = [
        name
        for name in flagged
        if "outlier" in kinds(comparison.row("b", "psnr_yuv", "sequence", "uvg", name))
    ]
    assert flagged == ["HoneyBee"]
    mean = comparison.row("b", "psnr_yuv", "set_mean", "uvg")
    assert [f.text for f in mean.flags if f.kind == "outlier"] == [
        "without HoneyBee it is -9.8 %"
    ]


def test_differences_below_1_percent_are_noise():
    comparison = compare(make_result("a"), make_result("b", 0.995))
    assert all("noise" in kinds(row) for row in comparison.rows)
    comparison = compare(make_result("a"), make_result("b", 0.98))
    assert not any("noise" in kinds(row) for row in comparison.rows)


def test_flags_of_sequences_are_counted_in_their_means():
    three = {"rates": RATES[:3]}
    comparison = compare(make_result("a"), make_result("b", 0.9, **three))
    texts = [
        f.text
        for f in comparison.row("b", "psnr_yuv", "set_mean", "uvg").flags
        if f.kind == "few_points"
    ]
    assert texts == ["2 of 2 sequences"]


def test_every_metric_that_two_files_share_is_compared():
    metrics = ("psnr_yuv", "lpips_alex", "psnr_y")
    comparison = compare(
        make_result("a", metrics=metrics),
        make_result("b", 0.9, metrics=metrics),
        make_result("c", 0.8, metrics=("psnr_yuv", "psnr_rgb")),
    )
    assert comparison.metrics == ("psnr_y", "psnr_yuv", "lpips_alex")
    assert value(comparison, "set_mean", "uvg", metric="lpips_alex") == pytest.approx(
        -10
    )
    assert comparison.row("c", "psnr_y", "set_mean", "uvg") is None
    assert "c lacks psnr_y, lpips_alex." in comparison.notes


def test_rgb_results_have_rgb_as_headline():
    results = [
        with_protocol(make_result(n, metrics=("psnr_yuv", "psnr_rgb")), colour="rgb")
        for n in "ab"
    ]
    assert compare(*results).headline == "psnr_rgb"


def test_only_shared_sequences_are_compared_and_the_others_are_named():
    wider = {**SETS, "hevc_e": ("Johnny",)}
    comparison = compare(make_result("a"), make_result("b", 0.9, wider))
    assert comparison.sets == SETS
    assert comparison.notes == (
        "b also has hevc_e/Johnny, which not every file has: left out.",
    )


def test_files_without_a_common_sequence_are_refused():
    other = make_result("b", sets={"hevc_e": ("Johnny",)})
    with pytest.raises(ValueError, match=r"no sequence in common \(a: uvg/Beauty"):
        compare(make_result("a"), other)


def test_a_sequence_listed_twice_is_refused():
    twice = make_result("b")
    twice.sequences.append(twice.sequences[0])
    with pytest.raises(ValueError, match="b lists uvg/Beauty more than once"):
        compare(make_result("a"), twice)


CHANGES = {
    "colour": "rgb",
    "max_frames": 32,
    "intra_period": 32,
    "rate": "estimate",
    "matrix": "bt601_limited",
    "chroma_up": "bilinear",
    "chroma_down": "drop",
    "crop": "1920x1024",
    "definitions": {"psnr_yuv": "weighted 4:1:1"},
}


def test_every_field_of_the_protocol_has_a_change_in_these_tests():
    assert set(CHANGES) == {field.name for field in fields(Protocol)}
    assert set(CHANGES) < set(EXPLANATIONS)


@pytest.mark.parametrize("field", CHANGES)
def test_files_that_differ_in_a_field_of_the_protocol_are_refused(field):
    other = with_protocol(make_result("b"), **{field: CHANGES[field]})
    with pytest.raises(ProtocolMismatch) as caught:
        compare(make_result("a"), other)
    name = "definitions.psnr_yuv" if field == "definitions" else field
    changed = CHANGES[field]
    theirs = changed["psnr_yuv"] if field == "definitions" else changed
    message = str(caught.value)
    assert f"{name} is " in message
    assert f" in a and {theirs} in b" in message
    assert f"--allow {field}" in message


@pytest.mark.parametrize("field", CHANGES)
def test_an_allowed_difference_is_compared_and_recorded(field):
    other = with_protocol(make_result("b", 0.9), **{field: CHANGES[field]})
    comparison = compare(make_result("a"), other, allow=[field])
    assert value(comparison, "overall_mean") == pytest.approx(-10)
    (difference,) = comparison.differences
    assert difference.field.partition(".")[0] == field
    assert difference.files == ("a", "b")


def test_the_same_difference_to_several_files_is_said_once():
    others = [with_protocol(make_result(n), intra_period=32) for n in "bc"]
    for other in others:
        for sequence in other.sequences:
            sequence.frames = 60
    with pytest.raises(ProtocolMismatch) as caught:
        compare(make_result("a"), *others)
    assert "intra_period is -1 in a and 32 in b, c;" in str(caught.value)
    assert "frames of uvg/Beauty and 2 more is 96 in a and 60 in b, c" in str(
        caught.value
    )


def test_allowing_one_difference_does_not_allow_another():
    other = with_protocol(make_result("b"), colour="rgb", crop="1920x1024")
    with pytest.raises(ProtocolMismatch) as caught:
        compare(make_result("a"), other, allow=["crop"])
    assert "colour" in str(caught.value)
    assert "crop is" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("size", {"width": 832, "height": 480}),
        ("fps", {"fps": Fraction(30)}),
        ("frames", {"frames": 60}),
        ("source", {"source": "RGB images"}),
    ],
)
def test_a_shared_sequence_must_be_the_same_source(field, changes):
    other = make_result("b")
    other.sequences[0] = replace(other.sequences[0], **changes)
    with pytest.raises(ProtocolMismatch, match=rf"{field} of uvg/Beauty is "):
        compare(make_result("a"), other)
    assert compare(make_result("a"), other, allow=[field]).differences[0].where == (
        "uvg/Beauty"
    )


def test_what_a_file_does_not_state_is_named_and_refused():
    other = with_protocol(make_result("b"), matrix=None)
    with pytest.raises(ProtocolMismatch, match=r"matrix is bt709_full in a and not st"):
        compare(make_result("a"), other)
    with pytest.raises(ProtocolMismatch, match="matrix is not stated in b and not sta"):
        compare(other, with_protocol(make_result("c"), matrix=None), anchor="b")
    comparison = compare(make_result("a"), other, allow=["unstated"])
    assert comparison.differences[0].values == ("bt709_full", "not stated")


def test_unstated_allows_no_difference_that_both_files_state():
    other = with_protocol(make_result("b"), crop="1920x1024", matrix=None)
    with pytest.raises(ProtocolMismatch, match="crop"):
        compare(make_result("a"), other, allow=["unstated"])


def test_an_unstated_limit_on_frames_is_judged_by_the_frames():
    other = with_protocol(make_result("b", 0.9), max_frames=None)
    assert compare(make_result("a"), other).differences == ()
    other.sequences[0].frames = 97
    with pytest.raises(ProtocolMismatch, match="frames of uvg/Beauty is 96 in a and"):
        compare(make_result("a"), other)


def test_metrics_that_are_not_compared_may_be_defined_otherwise():
    metrics = ("psnr_yuv", "lpips_alex")
    results = [make_result(n, metrics=metrics) for n in "ab"]
    results[1].protocol.definitions["lpips_alex"] = "another"
    with pytest.raises(ProtocolMismatch, match=r"definitions\.lpips_alex"):
        compare(*results)
    comparison = compare(*results, metrics=["psnr_yuv"])
    assert comparison.metrics == ("psnr_yuv",)


@pytest.mark.parametrize("name", ["nonsense", "definition.psnr_yuv"])
def test_a_field_that_does_not_exist_cannot_be_allowed(name):
    with pytest.raises(ValueError, match=f"--allow {name}: no such field"):
        compare(make_result("a"), make_result("b"), allow=[name])


def test_an_unknown_anchor_lists_the_names_there_are():
    with pytest.raises(ValueError, match=r"no result is called 'x'; there are \['a'"):
        compare(make_result("a"), make_result("b"), anchor="x")


def test_two_files_of_one_name_are_refused():
    with pytest.raises(ValueError, match="more than one result is called 'a'"):
        compare(make_result("a"), make_result("a"))


def test_sets_and_metrics_can_be_chosen_and_wrong_ones_are_refused():
    pair = make_result("a"), make_result("b", 0.9)
    assert compare(*pair, sets=["hevc_d"]).sets == {"hevc_d": ("BQSquare",)}
    with pytest.raises(ValueError, match="share no set uvgg; they share uvg, hevc_d"):
        compare(*pair, sets=["uvgg"])
    with pytest.raises(ValueError, match=r"none of vmaf \(a: psnr_yuv; b: psnr_yuv\)"):
        compare(*pair, metrics=["vmaf"])


def test_the_papers_number_stands_beside_ours_with_what_differs():
    anchor = make_result("rt", codec="DCVC-RT")
    comparison = compare(anchor, make_result("mine", 0.9, codec="UI2C"), anchor="rt")
    papers = {paper.set: paper for paper in comparison.papers}
    assert papers["uvg"].bd_rate == -6.1
    assert papers["hevc_d"].bd_rate == -23.5
    assert papers["uvg"].source == "arXiv 2510.14431, Table 1"
    assert papers["uvg"].row == ("mine", "psnr_yuv", "uvg")
    assert papers["uvg"].differs == (
        "max_frames is all in the paper and 96 here",
        "rate is estimate in the paper and bitstream here",
    )
    assert papers[None].bd_rate == -12.1
    assert any("averages over hevc_b" in text for text in papers[None].differs)
    other = compare(make_result("x265"), make_result("UI2C"), anchor="x265")
    assert other.papers == ()


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


@pytest.fixture
def report(monkeypatch):
    """Stand in for the report, which has tests of its own."""
    import experiments.report

    calls = []

    def write_report(comparison, results, output):
        calls.append((comparison, results, output))
        return [output / "report.md"]

    monkeypatch.setattr(experiments.report, "write_report", write_report)
    return calls


def test_the_command_prints_a_table_and_writes_numbers(tmp_path, capsys, report):
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


def test_a_mismatch_ends_with_code_2_and_one_line(tmp_path, capsys):
    other = with_protocol(make_result("b"), intra_period=32)
    files = save(tmp_path, make_result("a"), other)
    code, said = run(capsys, *files, "--anchor", "a")
    assert code == 2
    assert said.err.startswith("error: the files were not measured alike: intra_period")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_explain_says_what_a_difference_costs_and_still_refuses(tmp_path, capsys):
    other = with_protocol(
        make_result("b"), matrix="bt601", definitions={"psnr_yuv": "4:1:1"}
    )
    files = save(tmp_path, make_result("a"), other)
    code, said = run(capsys, *files, "--anchor", "a", "--explain")
    assert code == 2
    assert "matrix is bt709_full in a and bt601 in b" in said.out
    assert "more than 1 dB" in said.out
    assert "0.14 to 0.69 dB" in said.out


def test_an_allowed_mismatch_is_shown_before_the_numbers(tmp_path, capsys):
    other = with_protocol(make_result("b", 0.9), intra_period=32, crop="1024")
    files = save(tmp_path, make_result("a"), other)
    code, said = run(
        capsys, *files, "--anchor", "a", "--allow", "intra_period,crop", "--explain"
    )
    assert code == 0
    warning = said.out.index("not measured alike: intra_period is -1 in a and 32 in b")
    assert warning < said.out.index("-10.00")


def test_flags_are_footnotes_of_the_table(tmp_path, capsys):
    files = save(tmp_path, make_result("a"), make_result("b", 0.9, rates=RATES[:3]))
    _, said = run(capsys, *files, "--anchor", "a")
    assert " d  a curve has no more points than the interpolation needs" in said.out
    assert "noise" not in said.out


def test_a_narrow_terminal_gets_more_tables_and_loses_no_number(
    tmp_path, capsys, monkeypatch
):
    costs = {"a": 1.0, "b": 0.9, "c": 0.8, "a_codec_with_a_long_name": 0.7}
    files = save(tmp_path, *(make_result(name, cost) for name, cost in costs.items()))
    monkeypatch.setattr("experiments.terminal.WIDE", 80)
    _, said = run(capsys, *files, "--anchor", "a")
    assert said.out.count("BD-rate in %") == 3
    assert said.out.replace("\n", "").count("…") == said.out.count(" … ")
    for number in ("-10.00", "-20.00", "-30.00"):
        assert said.out.count(number) == 9


def test_a_number_that_cannot_be_computed_is_none_and_never_0(tmp_path, capsys):
    files = save(tmp_path, make_result("a"), make_result("b", rates=RATES[:2]))
    code, said = run(capsys, *files, "--anchor", "a")
    assert code == 0
    line = next(text for text in said.out.splitlines() if "BQSquare" in text)
    assert "none a" in line
    assert "0.00" not in line


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


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom experiments.compare import main\n"
        "try:\n main(['--help'])\nexcept SystemExit:\n pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'scipy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)


def test_bd_json_holds_no_nan(tmp_path, capsys, report):
    files = save(tmp_path, make_result("a"), make_result("b", rates=RATES[:2]))
    output = tmp_path / "report"
    run(capsys, *files, "--anchor", "a", "--output", output)

    def refuse(constant):
        raise AssertionError(constant)

    data = json.loads((output / "bd.json").read_text(), parse_constant=refuse)
    assert data["rows"][0]["rate"]["value"] is None
    assert all(math.isfinite(bpp) for c in data["curves"] for bpp in c["bpp"])
