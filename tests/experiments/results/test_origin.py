"""What every file of figures says of the codec that they are of."""

import pytest

from experiments.results.origin import describe


@pytest.mark.parametrize(
    ("coding", "options"),
    [
        ({"gop_batch": 4}, None),
        ({"pipeline": 2}, None),
        ({"gop_batch": 4, "gop_overlap": False}, {"gop_overlap": False}),
        ({"refresh": 8}, {"refresh": 8}),
        (None, None),
    ],
)
def test_a_curve_is_named_by_options_that_change_bits_alone(
    lively_module, coding, options
):
    codec = lively_module("UI2C").codec.eval()
    assert describe(codec, coding).get("options") == options
