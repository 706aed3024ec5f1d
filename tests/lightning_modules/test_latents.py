"""How many numbers stand for a block."""

import pytest

from lightning_modules.latents import Latents


def test_levels_add_up():
    latents = Latents((2, 4, 8), {"coarse": 3, "fine": 13})
    assert latents.numbers == 16 and latents.per_pixel == 0.25


@pytest.mark.parametrize(
    ("block", "levels"), [((0, 4, 4), {"y": 1}), ((1, 4, 4), {"y": 0}), ((1, 4, 4), {})]
)
def test_what_is_no_block_is_refused(block, levels):
    with pytest.raises(ValueError, match="must be at least 1"):
        Latents(block, levels)
