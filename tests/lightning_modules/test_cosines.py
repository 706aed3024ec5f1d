"""What starts share: orthonormal transforms, and which samples stand where."""

import pytest
import torch

from lightning_modules.cosines import correlations, cosines, opponents, quarters


@pytest.mark.parametrize("matrix", [cosines(8), opponents(), quarters(3, 4)])
def test_transforms_keep_lengths(matrix):
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)))


def test_frequencies_rise_and_nearly_diagonalise_a_chain():
    spread = cosines(8) @ correlations(8, 0.95) @ cosines(8).T
    powers = spread.diagonal()
    assert (powers.diff() < 0).all() and powers[0] > 6
    assert (spread - powers.diag()).abs().max() < 0.05 * powers[0]


def test_quarters_are_ordered_row_by_row():
    block = torch.arange(2 * 4 * 4.0).reshape(2, 4, 4)
    parts = (quarters(2, 4) @ block.flatten()).reshape(4, 2, 2, 2)
    for place in range(4):
        row, column = divmod(place, 2)
        own = block[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(parts[place], own)
