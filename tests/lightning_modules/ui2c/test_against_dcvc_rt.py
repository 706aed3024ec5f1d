import pytest

from lightning_modules.alternating import alternating
from lightning_modules.ui2c.against_dcvc_rt import main


def test_what_is_no_checkout_is_said_so(tmp_path, capsys):
    assert main([str(tmp_path), "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "DCVC-family/DCVC-RT" in error


@pytest.mark.parametrize("size", ["256", "250x256", "0x64", "64x-16"])
def test_a_size_that_cannot_be_is_refused(size, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--sizes", size])
    assert "such as 832x480" in capsys.readouterr().err


def test_both_run_in_turns():
    order = []
    first, second, ratio = alternating(
        lambda: order.append("ours"), lambda: order.append("theirs"), 2
    )
    assert order == ["ours", "theirs"] * 3
    assert first >= 0 and second >= 0 and ratio > 0
