"""Principal components against what is known of their blocks."""

import pytest
import torch

from experiments.profile.components import find_components

BLOCK = (2, 6, 5)
SAMPLES = 2 * 3 * 6 * 5


def mirrored(blocks):
    """Return blocks and their mirror images: left, below, and both."""
    return torch.cat([blocks, *(blocks.flip(d) for d in ((-1,), (-2,), (-1, -2)))])


def plain_errors(training, blocks):
    """The same as the code, of all mirror images at once."""
    flat = mirrored(training).flatten(1)
    mean = flat.mean(0)
    covariance = (flat - mean).T @ (flat - mean)
    vectors = torch.linalg.eigh(covariance)[1].flip(1)
    kept = ((blocks.flatten(1) - mean) @ vectors).square().mean(0)
    return (kept.sum() - torch.cat([kept.new_zeros(1), kept.cumsum(0)])) / SAMPLES


def test_parts_by_symmetry_give_what_mirror_images_give():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(SAMPLES, SAMPLES, generator=generator, dtype=torch.float64)
    drawn = torch.randn(600, SAMPLES, generator=generator, dtype=torch.float64)
    blocks = (0.5 + drawn @ mixing).unflatten(1, (2, 3, 6, 5))
    training, other = blocks[:500], blocks[500:]
    found = find_components(training.split(64), BLOCK)
    assert found.trained_on == 500
    errors = found.errors(other.split(64))
    torch.testing.assert_close(errors, plain_errors(training, other))
    # Fewer are never better, and all of them lose nothing.
    assert (errors.diff() <= 0).all() and errors[-1] == 0
    # A batch is an arrangement, no fact.
    torch.testing.assert_close(found.errors([other]), errors)


def test_a_source_of_few_dimensions_has_its_known_ceiling():
    # Even and odd patterns, orthonormal, of the variances 9, 4 and 1.
    rows, columns = torch.arange(6) - 2.5, torch.arange(5) - 2.0
    patterns = torch.stack(
        [
            torch.ones(2, 3, 6, 5),
            rows[:, None].expand(2, 3, 6, 5),
            (rows[:, None] * columns).expand(2, 3, 6, 5),
        ]
    ).double()
    patterns /= patterns.flatten(1).norm(dim=1)[:, None, None, None, None]
    signs = torch.tensor([[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)])
    amounts = signs * torch.tensor([1.0, 3.0, 2.0])
    blocks = 0.25 + torch.einsum("nk,kfchw->nfchw", amounts.double(), patterns)
    errors = find_components([blocks], BLOCK).errors([blocks])
    known = torch.tensor([14.0, 5.0, 1.0, 0.0], dtype=torch.float64) / SAMPLES
    torch.testing.assert_close(errors[:4], known, rtol=1e-9, atol=1e-15)
    assert errors[4:].max() < 1e-15


def test_blocks_of_one_pixel_and_of_none():
    colours = torch.rand(50, 1, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    errors = find_components([colours], (1, 1, 1)).errors([colours])
    assert len(errors) == 4 and errors[0] > errors[3] == 0
    with pytest.raises(ValueError, match="no block to train on"):
        find_components([], BLOCK)
    with pytest.raises(ValueError, match="no block to measure on"):
        find_components([colours], (1, 1, 1)).errors([])
