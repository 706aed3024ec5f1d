"""What of several files is compared: metrics, sequences, sets, the papers' numbers."""

import pytest

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_d": ("BQSquare",)}


def test_every_metric_that_two_files_share_is_compared(compare, make_result, value):
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


def test_rgb_results_have_rgb_as_headline(compare, make_result):
    results = [
        make_result(n, metrics=("psnr_yuv", "psnr_rgb"), colour="rgb") for n in "ab"
    ]
    assert compare(*results).headline == "psnr_rgb"


def test_only_shared_sequences_are_compared_and_the_others_are_named(
    compare, make_result
):
    wider = {**SETS, "hevc_e": ("Johnny",)}
    comparison = compare(make_result("a"), make_result("b", 0.9, wider))
    assert comparison.sets == SETS
    assert comparison.notes == (
        "b also has hevc_e/Johnny, which not every file has: left out.",
    )


def test_files_without_a_common_sequence_are_refused(compare, make_result):
    other = make_result("b", sets={"hevc_e": ("Johnny",)})
    with pytest.raises(ValueError, match=r"no sequence in common \(a: uvg/Beauty"):
        compare(make_result("a"), other)


def test_a_sequence_listed_twice_is_refused(compare, make_result):
    twice = make_result("b")
    twice.sequences.append(twice.sequences[0])
    with pytest.raises(ValueError, match="b lists uvg/Beauty more than once"):
        compare(make_result("a"), twice)


def test_an_unknown_anchor_lists_the_names_there_are(compare, make_result):
    with pytest.raises(ValueError, match=r"no result is called 'x'; there are \['a'"):
        compare(make_result("a"), make_result("b"), anchor="x")


def test_two_files_of_one_name_are_refused(compare, make_result):
    with pytest.raises(ValueError, match="more than one result is called 'a'"):
        compare(make_result("a"), make_result("a"))


def test_sets_and_metrics_can_be_chosen_and_wrong_ones_are_refused(
    compare, make_result
):
    pair = make_result("a"), make_result("b", 0.9)
    assert compare(*pair, sets=["hevc_d"]).sets == {"hevc_d": ("BQSquare",)}
    with pytest.raises(ValueError, match="share no set uvgg; they share uvg, hevc_d"):
        compare(*pair, sets=["uvgg"])
    with pytest.raises(ValueError, match=r"none of vmaf \(a: psnr_yuv; b: psnr_yuv\)"):
        compare(*pair, metrics=["vmaf"])


def test_the_papers_number_stands_beside_ours_with_what_differs(compare, make_result):
    anchor = make_result("rt", codec="DCVC-RT")
    anchor.codec |= {"kind": "imported", "version": "1.1"}
    mine = make_result("mine", 0.9, codec="UI2C")
    mine.codec["architecture"] = {
        "size": "paper",
        "frames_per_unit": 2,
        "divided": False,
        "skip_threshold": 0.0,
    }
    mine.codec["training"] = {
        "distortion": "yuv",
        "hybrid_references": True,
        "lmbda_range": [1.0, 768.0],
    }
    comparison = compare(anchor, mine, anchor="rt")
    papers = {paper.set: paper for paper in comparison.papers}
    assert papers["uvg"].bd_rate == -6.1
    assert papers["hevc_d"].bd_rate == -23.5
    assert papers["uvg"].source == "arXiv 2510.14431, Table 1"
    assert papers["uvg"].row == ("mine", "psnr_yuv", "uvg")
    assert papers["uvg"].differs == (
        "max_frames is all in the paper and 96 here",
        "rate is estimate in the paper and bitstream here",
        "the anchor is DCVC-RT there, 1.1 here",
    )
    assert papers[None].bd_rate == -12.1
    assert any("averages over hevc_b" in text for text in papers[None].differs)
    other = compare(make_result("x265"), make_result("UI2C"), anchor="x265")
    assert other.papers == ()
