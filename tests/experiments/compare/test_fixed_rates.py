"""Quality at fixed rates, read off a rate-distortion curve."""

import pytest

from experiments.compare.bd import qualities_at, quality_at
from experiments.compare.comparison import Curve


def mean_curve(bpp, quality, left_out=(), sequence=None):
    rates = tuple(range(len(bpp)))
    return Curve("c", "psnr_rgb", "s", sequence, rates, bpp, quality, left_out)


def test_quality_at_a_rate_lies_on_the_curve_in_log_rate():
    line = mean_curve((0.05, 0.1, 0.2, 0.4), (30.0, 33.0, 36.0, 39.0))
    assert quality_at(line, 0.1) == pytest.approx(33)
    assert quality_at(line, 0.1 * 2**0.5) == pytest.approx(34.5)
    assert quality_at(line, 0.05) == pytest.approx(30)
    assert quality_at(line, 0.4) == pytest.approx(39)
    assert quality_at(line, 0.0499) is None
    assert quality_at(line, 0.4001) is None


def test_quality_at_a_rate_passes_over_points_that_are_left_out():
    bent = mean_curve((0.05, 0.1, 0.2), (30.0, 29.0, 34.0), left_out=(1,))
    assert quality_at(bent, 0.1) == pytest.approx(32)
    assert quality_at(mean_curve((0.1,), (30.0,)), 0.1) is None
    assert quality_at(mean_curve((), ()), 0.1) is None


def test_only_mean_curves_are_read_off_and_no_rate_below_0():
    curves = [mean_curve((0.1, 0.2), (1.0, 2.0), sequence=s) for s in (None, "one")]
    (value,) = qualities_at(curves, [0.2])
    assert (value.bpp, value.value) == (0.2, pytest.approx(2.0))
    with pytest.raises(ValueError, match="-1 bpp"):
        qualities_at(curves, [-1.0])
