"""Means over sequences and sets, mean curves, and the flags beside them."""

from dataclasses import replace

import pytest

from experiments.compare.rows import curves_of

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_d": ("BQSquare",)}


def kinds(row):
    return {flag.kind for flag in row.flags}


def test_a_codec_that_needs_a_tenth_fewer_bits_everywhere_has_minus_10_percent(
    compare, make_result
):
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


def test_a_set_mean_is_the_mean_of_its_sequences(compare, make_result, value):
    test = make_result("b", 0.9)
    for point in test.sequences[1].points:
        point.bpp *= 2
    comparison = compare(make_result("a"), test)
    assert value(comparison, "sequence", "uvg", "Jockey") == pytest.approx(80)
    assert value(comparison, "set_mean", "uvg") == pytest.approx((-10 + 80) / 2)
    assert value(comparison, "set_mean", "hevc_d") == pytest.approx(-10)


def test_the_overall_mean_is_the_mean_over_sets_not_over_sequences(
    compare, make_result, value
):
    test = make_result("b", 0.9)
    for point in test.sequences[1].points:
        point.bpp *= 2
    comparison = compare(make_result("a"), test)
    assert value(comparison, "overall_mean") == pytest.approx((35 - 10) / 2)


def test_the_mean_curve_weighs_sequences_by_their_frames(make_result, make_sequence):
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
    assert mean.rates == (0.0, 21.0, 42.0, 63.0)


def test_the_two_conventions_differ_where_sequences_differ_in_bits(
    compare, make_result, value
):
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


def test_a_set_whose_rate_points_differ_has_no_mean_curve(compare, make_result, value):
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


def test_points_of_equal_targets_make_a_mean_curve_whatever_their_knob(
    compare, make_result, value
):
    test = make_result("b", 0.9)
    for i, sequence in enumerate(test.sequences):
        for target, point in enumerate(sequence.points, 1):
            point.target_bpp = 0.01 * target
            point.rate += i
    comparison = compare(make_result("a"), test)
    assert value(comparison, "set_curve", "uvg") == pytest.approx(-10)


def test_a_sequence_without_a_number_makes_its_mean_incomplete(compare, make_result):
    test = make_result("b", 0.9)
    del test.sequences[0].points[2:]
    comparison = compare(make_result("a"), test)
    row = comparison.row("b", "psnr_yuv", "set_mean", "uvg")
    assert row.rate.value == pytest.approx(-10)
    assert "incomplete" in kinds(row)
    assert any("Beauty" in flag.text for flag in row.flags)


def test_the_error_bar_of_a_mean_is_the_mean_of_its_ends_if_all_have_one(
    compare, make_result
):
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


def test_an_outlier_is_flagged_with_the_mean_without_it(compare, make_result):
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


def test_differences_below_1_percent_are_noise(compare, make_result):
    comparison = compare(make_result("a"), make_result("b", 0.995))
    assert all("noise" in kinds(row) for row in comparison.rows)
    comparison = compare(make_result("a"), make_result("b", 0.98))
    assert not any("noise" in kinds(row) for row in comparison.rows)


def test_flags_of_sequences_are_counted_in_their_means(compare, make_result):
    three = {"rates": (0.0, 21.0, 42.0)}
    comparison = compare(make_result("a"), make_result("b", 0.9, **three))
    texts = [
        f.text
        for f in comparison.row("b", "psnr_yuv", "set_mean", "uvg").flags
        if f.kind == "few_points"
    ]
    assert texts == ["2 of 2 sequences"]
