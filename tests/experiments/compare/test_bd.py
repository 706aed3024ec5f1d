import math
import warnings

import numpy as np
import pytest

from experiments.compare.bd import MIN_POINTS, compare_curves, make_curve

# Rate and PSNR of the example in Bjøntegaard's spreadsheet for VCEG-M33, with the
# numbers it states; kept in tbr/bjontegaard_etro,
# bjontegaard_etro_standalone_example.xlsm, sheet "M33 Example".
M33_ANCHOR = [(90.33, 27.95), (181.03, 31.17), (332.99, 34.44), (547.79, 38.11)]
M33_TEST = [(127.1719, 29.9286), (186.14, 32.4165), (307.2924, 34.7013)]
M33_TEST += [(481.5588, 37.4561)]
M33_BD_RATE, M33_BD_PSNR = -13.261772993093556, 0.80071318397395785

# Pairs of JCTVC-E137 with the results of the JCT-VC spreadsheet (pchip), as fractions;
# in Netflix/vmaf, python/test/bd_rate_calculator_test.py.
E137 = [
    (
        [
            (18883.6928, 34.2911),
            (33905.6656, 37.247),
            (61279.976, 40.3953),
            (108048.8736, 43.6471),
        ],
        [
            (18910.912, 34.3147),
            (33928.7472, 37.2761),
            (61299.9936, 40.4232),
            (108061.2784, 43.6768),
        ],
        -0.00465215420752807,
    ),
    (
        [
            (1017.6184, 32.0603),
            (2394.488, 33.8977),
            (7622.7456, 35.3756),
            (40433.8848, 37.5761),
        ],
        [
            (1017.0984, 32.0822),
            (2390.0944, 33.9194),
            (7587.0024, 35.4025),
            (40370.12, 37.5982),
        ],
        -0.018779823450567612,
    ),
]


def curve(points, metric="psnr_yuv", codec="codec"):
    numbered = [(float(i), *point) for i, point in enumerate(points)]
    return make_curve(codec, metric, "set", "sequence", numbered)


def bd(anchor, test, method="pchip", metric="psnr_yuv"):
    pair = curve(anchor, metric, "anchor"), curve(test, metric, "test")
    return compare_curves(*pair, method)


def kinds(flags):
    return [flag.kind for flag in flags]


def scaled(points, factor):
    return [(rate * factor, quality) for rate, quality in points]


def test_cubic_gives_the_numbers_that_bjontegaards_own_spreadsheet_states():
    rate, quality, _ = bd(M33_ANCHOR, M33_TEST, "cubic")
    assert rate.value == pytest.approx(M33_BD_RATE, abs=1e-8)
    assert quality.value == pytest.approx(M33_BD_PSNR, abs=1e-9)


@pytest.mark.parametrize(("anchor", "test", "published"), E137)
def test_pchip_gives_the_published_numbers_of_the_jctvc_spreadsheet(
    anchor, test, published
):
    rate, _, _ = bd(anchor, test, "pchip")
    assert rate.value == pytest.approx(100 * published, abs=1e-10)


def test_a_cubic_can_be_absurd_where_pchip_is_not():
    # Values printed in Anserw/Bjontegaard_metric, issue 3.
    anchor = [(2014.65, 96.622), (3014.7, 99.51432), (4012.23, 99.91607)]
    test = [(2054.35, 97.1181), (3067.89, 99.66744), (4000.03, 99.94996)]
    anchor, test = [*anchor, (5012.39, 99.97751)], [*test, (5096.02, 99.98146)]
    assert bd(anchor, test, "cubic")[0].value == pytest.approx(100421.2267, rel=1e-6)
    assert abs(bd(anchor, test, "pchip")[0].value) < 5


@pytest.mark.parametrize("method", MIN_POINTS)
def test_a_curve_against_itself_is_exactly_0(method):
    rate, quality, flags = bd(M33_ANCHOR, M33_ANCHOR, method)
    assert (rate.value, quality.value) == (0, 0)
    assert (rate.overlap, quality.overlap) == (100, 100)
    assert "noise" in kinds(flags)


@pytest.mark.parametrize("method", MIN_POINTS)
def test_the_same_quality_for_a_tenth_fewer_bits_is_minus_10_percent(method):
    rate, quality, flags = bd(M33_ANCHOR, scaled(M33_ANCHOR, 0.9), method)
    assert rate.value == pytest.approx(-10, abs=1e-9)
    assert quality.value > 0
    assert "noise" not in kinds(flags)


def test_a_constant_gain_in_quality_is_that_gain():
    better = [(rate, quality + 0.25) for rate, quality in M33_ANCHOR]
    rate, quality, _ = bd(M33_ANCHOR, better)
    assert quality.value == pytest.approx(0.25)
    assert rate.value < 0


def test_swapping_the_curves_inverts_the_ratio():
    there, back = bd(M33_ANCHOR, M33_TEST)[0], bd(M33_TEST, M33_ANCHOR)[0]
    product = (1 + there.value / 100) * (1 + back.value / 100)
    assert product == pytest.approx(1)


def test_bd_rate_is_the_mean_distance_of_straight_lines():
    # Straight in log rate, so every interpolation is exact: test has 10^0.1 times the
    # rate at 30 and 10^0.3 times at 36, in the mean 10^0.2.
    grid = np.linspace(30, 36, 4)
    anchor = [(10 ** (0.1 * q), q) for q in grid]
    test = [(10 ** (0.1 * q + 0.1 + 0.2 * (q - 30) / 6), q) for q in grid]
    for method in MIN_POINTS:
        assert bd(anchor, test, method)[0].value == pytest.approx(
            100 * (10**0.2 - 1), abs=1e-6
        )


def test_lower_is_better_metrics_count_the_other_way():
    anchor = [(1, 0.4), (2, 0.3), (4, 0.2), (8, 0.1)]
    fewer_bits = scaled(anchor, 0.5)
    rate, quality, flags = bd(anchor, fewer_bits, metric="lpips_alex")
    assert rate.value == pytest.approx(-50)
    assert quality.value == pytest.approx(-0.1)
    assert quality.low <= quality.value <= quality.high
    assert "not_monotone" not in kinds(flags)


def test_curves_may_have_different_numbers_of_points():
    anchor = [(2**i, 30 + i) for i in range(8)]
    rate, _, _ = bd(anchor, scaled(anchor[1:7:2], 0.8))
    assert rate.value == pytest.approx(-20)


def test_three_points_are_computed_and_flagged_and_have_no_error_bar():
    rate, quality, flags = bd(M33_ANCHOR[:3], scaled(M33_ANCHOR[:3], 0.9))
    assert rate.value == pytest.approx(-10)
    assert (rate.low, rate.high, quality.low) == (None, None, None)
    assert [f.text for f in flags if f.kind == "few_points"] == [
        "anchor has 3 points, the least that pchip takes",
        "test has 3 points, the least that pchip takes",
    ]


@pytest.mark.parametrize(
    ("method", "count"), [("pchip", 2), ("pchip", 0), ("akima", 3), ("cubic", 3)]
)
def test_too_few_points_give_no_number_and_the_reason(method, count):
    rate, quality, flags = bd(M33_ANCHOR, M33_TEST[:count], method)
    assert (rate.value, quality.value) == (None, None)
    assert flags[-1].kind == "not_computable"
    need = MIN_POINTS[method]
    assert f"needs {need} points of each curve, test has {count}" in flags[-1].text


def test_dominated_points_are_left_out_and_flagged():
    bump = [*M33_ANCHOR, (200.0, 30.0)]
    shown = curve(bump)
    assert [shown.bpp[i] for i in shown.left_out] == [200.0]
    rate, _, flags = bd(bump, scaled(M33_ANCHOR, 0.9))
    assert rate.value == pytest.approx(-10)
    text = next(f.text for f in flags if f.kind == "not_monotone")
    assert "anchor: 1 of 5 points (rate 4)" in text
    assert "favours anchor" in text


def test_equal_quality_for_more_bits_is_dominated_too():
    assert curve([(1, 30), (2, 30), (3, 31)]).left_out == (1,)


def test_rates_and_qualities_are_never_sorted_apart():
    # Sorted apart, this falling curve would be a good one.
    shown = curve([(1, 40), (2, 38), (3, 36), (4, 34)])
    assert shown.quality == (40, 38, 36, 34)
    assert shown.left_out == (1, 2, 3)
    assert "not_computable" in kinds(
        bd([(1, 40), (2, 38), (3, 36), (4, 34)], M33_ANCHOR)[2]
    )


def test_points_may_come_in_any_order():
    shuffled = [M33_TEST[i] for i in (2, 0, 3, 1)]
    assert bd(M33_ANCHOR, shuffled)[0] == bd(M33_ANCHOR, M33_TEST)[0]


def test_curves_without_common_quality_have_no_bd_rate():
    far = [(rate, quality + 50) for rate, quality in M33_ANCHOR]
    rate, quality, flags = bd(M33_ANCHOR, far)
    assert (rate.value, rate.low, rate.overlap) == (None, None, 0)
    assert quality.value == pytest.approx(50)
    assert [f.text for f in flags if f.kind == "not_computable"] == [
        "the curves have no quality in common"
    ]


def test_curves_without_common_rate_have_no_bd_quality():
    rate, quality, _ = bd(M33_ANCHOR, scaled(M33_ANCHOR, 100))
    assert rate.value == pytest.approx(9900)
    assert (quality.value, quality.overlap) == (None, 0)


def test_overlap_is_the_shared_part_of_what_both_span():
    anchor = [(1, 30), (2, 32), (4, 34), (8, 40)]
    test = [(2, 35), (3, 38), (5, 41), (9, 50)]
    rate, quality, flags = bd(anchor, test)
    assert rate.overlap == pytest.approx(100 * (40 - 35) / (50 - 30))
    shared = math.log(8) - math.log(2)
    assert quality.overlap == pytest.approx(100 * shared / math.log(9))
    assert "25 % of the quality axis" in [f.text for f in flags]


def test_the_error_bar_is_the_range_without_any_one_point():
    rate, _, _ = bd(M33_ANCHOR, M33_TEST)
    without = [
        bd([p for p in M33_ANCHOR if p != point], M33_TEST)[0].value
        for point in M33_ANCHOR
    ]
    without += [
        bd(M33_ANCHOR, [p for p in M33_TEST if p != point])[0].value
        for point in M33_TEST
    ]
    assert rate.low == pytest.approx(min(*without, rate.value))
    assert rate.high == pytest.approx(max(*without, rate.value))
    assert rate.low < rate.value < rate.high


def test_an_overlap_that_hangs_on_one_point_has_no_error_bar():
    test = [(1, 35), (2, 38), (4, 40), (8, 44)]
    anchor = [(1, 30), (2, 31), (4, 32), (8, 36)]
    rate, _, flags = bd(anchor, test)
    assert rate.value is not None
    assert (rate.low, rate.high) == (None, None)
    assert any("without one of the points" in f.text for f in flags)


@pytest.mark.parametrize("bpp", [0.0, -1.0, math.nan, math.inf])
def test_rates_that_are_no_positive_numbers_are_refused(bpp):
    with pytest.raises(ValueError, match=r"codec, set/sequence, psnr_yuv: the point"):
        curve([*M33_ANCHOR, (bpp, 50)])


def test_qualities_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="both finite"):
        curve([*M33_ANCHOR, (600, math.nan)])


def test_two_points_with_the_same_bits_are_refused():
    with pytest.raises(ValueError, match=r"rates 1 and 4 both have 181.03 bpp"):
        curve([*M33_ANCHOR, (181.03, 50)])


def test_warnings_of_the_package_become_flags():
    # Five decimals of one dB: the polynomial's fit is badly conditioned.
    flat = [(1 + i, 40 + 1e-7 * i) for i in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, flags = bd(flat, scaled(flat, 0.9), "cubic")
    texts = [f.text for f in flags if f.kind == "package"]
    assert any("poorly conditioned" in text for text in texts)
