"""Comparisons on FID and KID, and of codecs with one file for each rate."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest

from callbacks.metrics.table import METRICS
from experiments.compare.command import main
from experiments.compare.report.page_data import make_page_data
from experiments.compare.report.write import write_report
from experiments.results.joining import join_results
from experiments.results.result import (
    Point,
    Pool,
    Protocol,
    Result,
    SequenceResult,
)

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_d": ("BQSquare",)}


def kinds(row):
    return {flag.kind for flag in row.flags}


FIDS = (40.0, 20.0, 10.0, 5.0)


@pytest.fixture(scope="module")
def make_result():
    def make(name, cost=1.0, *, samples=5000, fids=FIDS, sets=SETS, codec=None):
        sequences, pools = [], []
        for set, members in sets.items():
            bpps = [cost * 0.01 * 2**i for i in range(len(fids))]
            for member in members:
                points = [
                    Point(i, bpp, metrics={"psnr_yuv": 30.0 + 2 * i})
                    for i, bpp in enumerate(bpps)
                ]
                sequences.append(
                    SequenceResult(set, member, 416, 240, Fraction(50), 96, points, "p")
                )
            pools += [
                Pool(
                    set,
                    list(members),
                    i,
                    bpp,
                    metrics={"fid": fid, "kid": fid / 1000},
                    samples={"fid": samples, "kid": samples},
                )
                for i, (bpp, fid) in enumerate(zip(bpps, fids, strict=True))
            ]
        definitions = {n: METRICS[n].definition for n in ("psnr_yuv", "fid", "kid")}
        protocol = Protocol("yuv420", 96, -1, "bitstream", definitions=definitions)
        described = codec or {"name": name, "kind": "learned"}
        return Result(name, described, protocol, sequences=sequences, pools=pools)

    return make


def test_fewer_bits_for_the_same_fid_are_a_negative_bd_rate(compare, make_result):
    comparison = compare(make_result("a"), make_result("b", 0.6))
    for metric in ("fid", "kid"):
        rows = [row for row in comparison.rows if row.metric == metric]
        assert [(row.kind, row.set) for row in rows] == [
            ("set_pool", "uvg"),
            ("set_pool", "hevc_d"),
            ("overall_pool", None),
        ]
        for row in rows:
            assert row.rate.value == pytest.approx(-40)
            # At equal bits a lower FID.
            assert row.quality.value < 0
    assert comparison.headline == "psnr_yuv"
    assert all(c.sequence is None for c in comparison.curves if c.metric == "fid")


def test_a_lower_fid_at_the_same_bits_is_better(compare, make_result):
    lower = tuple(fid - 4 for fid in FIDS)
    comparison = compare(make_result("a"), make_result("b", fids=lower))
    row = comparison.row("b", "fid", "set_pool", "uvg")
    assert row.quality.value == pytest.approx(-4)
    assert row.rate.value < -10


def test_the_interval_that_is_integrated_over_is_told(compare, make_result):
    worse = tuple(fid + 4 for fid in FIDS)
    comparison = compare(make_result("a"), make_result("b", fids=worse))
    row = comparison.row("b", "fid", "set_pool", "uvg")
    assert row.rate.interval == (9.0, 40.0)
    assert row.rate.overlap == pytest.approx(100 * (40 - 9) / (44 - 5))
    assert row.quality.interval == pytest.approx((0.01, 0.08))
    assert comparison.row("b", "fid", "overall_pool", None).rate.interval is None


def test_three_points_are_enough_for_pchip_and_said(compare, make_result):
    three = make_result("b", 0.9, fids=FIDS[:3])
    comparison = compare(make_result("a", fids=FIDS[:3]), three)
    row = comparison.row("b", "fid", "set_pool", "uvg")
    assert row.rate.value == pytest.approx(-10)
    assert row.rate.low is None
    assert kinds(row) == {"few_points"}
    assert kinds(comparison.row("b", "fid", "overall_pool", None)) == {"few_points"}
    for method in ("akima", "cubic"):
        other = compare(make_result("a"), three, method=method)
        row = other.row("b", "fid", "set_pool", "uvg")
        assert row.rate.value is None
        assert f"{method} needs 4 points" in row.flags[-1].text


def test_few_pictures_are_flagged_of_fid_only(compare, make_result):
    comparison = compare(make_result("a"), make_result("b", 0.9, samples=2047))
    (flag,) = comparison.row("b", "fid", "set_pool", "uvg").flags
    assert flag.kind == "few_samples" and "b: FID of 2047 pictures" in flag.text
    (flag,) = comparison.row("b", "fid", "overall_pool", None).flags
    assert flag.text == "2 of 2 sets"
    assert not comparison.row("b", "kid", "set_pool", "uvg").flags
    enough = compare(make_result("a"), make_result("b", 0.9, samples=2048))
    assert not enough.row("b", "fid", "set_pool", "uvg").flags


def test_a_fid_of_other_sequences_than_those_compared_is_left_out(compare, make_result):
    fewer = make_result("b", sets={"uvg": ("Beauty",), "hevc_d": ("BQSquare",)})
    comparison = compare(make_result("a"), fewer)
    row = comparison.row("b", "fid", "set_pool", "uvg")
    assert row.rate.value is None and kinds(row) == {"not_computable"}
    assert comparison.row("b", "fid", "set_pool", "hevc_d").rate.value is not None
    assert "incomplete" in kinds(comparison.row("b", "fid", "overall_pool", None))
    (note,) = [text for text in comparison.notes if text.startswith("a: FID")]
    assert "of uvg are of 2 sequences" in note
    # With that set alone there is nothing of the kind to compare.
    assert "fid" not in compare(make_result("a"), fewer, sets=["uvg"]).metrics


def test_a_set_without_a_value_says_why(compare, make_result):
    lacking = make_result("b")
    for pool in lacking.pools:
        if pool.set == "hevc_d":
            pool.metrics.clear()
            pool.unavailable["fid"] = "frames of 416x240 have no squares"
    comparison = compare(make_result("a"), lacking)
    row = comparison.row("b", "fid", "set_pool", "hevc_d")
    assert row.flags[0].text == "FID of the set was not measured of both"
    said = "b has no fid of hevc_d: frames of 416x240 have no squares."
    assert said in comparison.notes


def test_fids_that_were_computed_otherwise_are_refused(compare, make_result):
    other = make_result("b")
    other.protocol.definitions["fid"] = "FID with antialiasing"
    with pytest.raises(
        ValueError, match=r"definitions\.fid is .*with antialiasing in b"
    ):
        compare(make_result("a"), other)


def test_the_papers_numbers_stand_beside_fid_over_all_sets(compare, make_result):
    architecture = {
        "size": "paper",
        "backbone": "lean_vae",
        "channels": 128,
        "frames_per_unit": 9,
        "overlap": True,
    }
    codec = {
        "name": "VideoVAE",
        "kind": "learned",
        "architecture": architecture,
        "training": {"alpha": 1e-3, "beta": 1.0, "lpips": "alex"},
    }
    anchor = make_result("a", codec={"name": "DCVC-FM", "kind": "imported"})
    ours = make_result("b", 0.6, codec=codec)
    comparison = compare(anchor, ours)
    (paper,) = comparison.papers
    assert (paper.bd_rate, paper.metric, paper.set) == (-39.54, "fid", None)
    assert paper.row == ("b", "fid", None)
    architecture["backbone"] = "cv_vae"
    assert compare(anchor, ours).papers[0].bd_rate == -64.81


def test_the_report_shows_fid_where_rates_differ_from_the_other_metrics(
    compare, make_result, tmp_path
):
    results = [make_result("a"), make_result("b", 0.6)]
    for result in results:
        # Measured later and at fewer rates; not of one set.
        result.pools = [p for p in result.pools if p.set == "uvg" and p.rate]
        result.path = tmp_path / f"{result.name}.json"
    comparison = compare(*results)
    write_report(comparison, results, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    table = text.partition("## FID and KID of all sequences")[2].partition("##")[0]
    assert "| FID, lower is better | uvg | b | 3 | 5000 | 5 | 20 | 5 to 20" in table
    assert "hevc_d" not in table
    assert (tmp_path / "report" / "plots" / "uvg" / "kid.svg").is_file()
    assert not (tmp_path / "report" / "plots" / "hevc_d" / "kid.svg").exists()
    curves = make_page_data(comparison, results)["curves"]
    for curve in curves:
        lengths = {len(values) for values in curve["quality"].values()}
        assert lengths == {len(curve["bpp"])}
    assert sum("fid" in curve["quality"] for curve in curves) == 2


def test_fid_can_be_the_headline(compare, make_result, tmp_path):
    comparison = compare(make_result("a"), make_result("b", 0.6), metrics=["fid"])
    results = [make_result("a"), make_result("b", 0.6)]
    write_report(comparison, results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    headline = text.partition("## BD-rate against a, FID")[2].partition("##")[0]
    assert headline.count("-40.00") == 3
    assert "None" not in text


LAMBDAS = (0.05, 0.1, 0.2)


def make_parts(make_result, cost=1.0, lambdas=LAMBDAS, name="vae"):
    """Return one file for each lambda, as separate checkpoints give them."""
    whole = make_result(name, cost, fids=FIDS[: len(lambdas)])
    parts = []
    for i, lmbda in enumerate(lambdas):
        codec = {
            "name": "VideoVAE",
            "kind": "learned",
            "fingerprint": f"{i}",
            "rate_unit": "lmbda",
            "architecture": {"lmbda": lmbda, "channels": 64},
        }
        sequences = [
            replace(s, points=[replace(s.points[i], rate=lmbda)])
            for s in whole.sequences
        ]
        pools = [replace(p, rate=lmbda) for p in whole.pools if p.rate == i]
        parts.append(replace(whole, codec=codec, sequences=sequences, pools=pools))
    return parts


def test_checkpoints_of_several_lambdas_are_one_curve(compare, make_result):
    joined = join_results(
        [*make_parts(make_result)[::-1], make_result("a", fids=FIDS[:3])]
    )
    assert [r.name for r in joined] == ["vae", "a"]
    vae = joined[0]
    assert [p.rate for p in vae.sequences[0].points] == list(LAMBDAS)
    assert len(vae.pools) == 3 * 2
    assert vae.codec["fingerprint"] == "2, 1, 0"
    comparison = compare(*joined)
    rows = {row.kind: row for row in comparison.rows if row.set == "uvg"}
    assert rows["set_pool"].rate.value == pytest.approx(0, abs=1e-6)
    assert "few_points" in kinds(rows["set_pool"])


def test_ranges_of_one_lambda_are_one_curve_and_others_are_not(make_result):
    parts = make_parts(make_result)
    for part in parts:
        lmbda = part.codec["architecture"].pop("lmbda")
        part.codec["architecture"]["lmbda_range"] = [lmbda, lmbda]
    assert len(join_results(parts)) == 1
    parts[1].codec["architecture"]["lmbda_range"] = [0.1, 0.2]
    assert len(join_results(parts)) == 3


def test_other_codecs_of_one_name_are_not_joined(compare, make_result):
    parts = make_parts(make_result)
    for change in (
        {"architecture": {"lmbda": 0.1, "channels": 128}},
        {"fingerprint": "0"},
        {"name": "UI2C"},
    ):
        parts[1].codec = {**make_parts(make_result)[1].codec, **change}
        assert len(join_results(parts)) == 3
    parts = make_parts(make_result)
    parts[1].protocol = replace(parts[1].protocol, max_frames=32)
    with pytest.raises(ValueError, match="more than one result is called 'vae'"):
        compare(*join_results(parts), make_result("a"))


def test_a_point_that_two_files_have_is_named(make_result, tmp_path):
    parts = make_parts(make_result, lambdas=(0.1, 0.1))
    for number, part in enumerate(parts):
        part.path = tmp_path / f"{number}.json"
    with pytest.raises(ValueError, match=r"0\.json and .*1\.json are one curve, vae"):
        join_results(parts)


def test_joined_pictures_are_found_beside_their_own_files(make_result, tmp_path):
    parts = make_parts(make_result)
    for number, part in enumerate(parts):
        part.sequences[0].points[0].pictures = {"0": "x.png"}
        part.path = tmp_path / str(number) / "a.json"
    (vae,) = join_results(parts)
    found = [p.pictures["0"] for p in vae.sequences[0].points]
    assert found == [str(tmp_path / str(n) / "x.png") for n in range(3)]


def test_the_command_joins_files(make_result, tmp_path, capsys):
    files = []
    for number, result in enumerate(
        [make_result("a", fids=FIDS[:3]), *make_parts(make_result, 0.6)]
    ):
        files.append(str(tmp_path / f"{number}.json"))
        result.save(tmp_path / f"{number}.json")
    assert main([*files, "--anchor=a", "--metric=fid", f"--output={tmp_path}/r"]) == 0
    assert "-40.00" in capsys.readouterr().out
    comparison = json.loads((tmp_path / "r" / "bd.json").read_text())
    assert comparison["codecs"] == ["vae"]
