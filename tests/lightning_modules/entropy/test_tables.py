"""Tables of whole numbers hold the probabilities, and what coders look up in them."""

import math

import numpy as np
import pytest
import torch

from lightning_modules.entropy import tables as tables_module
from lightning_modules.entropy.tables import CdfTables, gaussian_tables, tables_from_pmf

SCALES = np.exp(np.linspace(math.log(0.11), math.log(16), 128))
TABLES = gaussian_tables(SCALES, max_symbol=8)
WIDE = gaussian_tables(SCALES)


def test_gaussian_tables_reach_as_far_as_the_paper_says():
    for tables, cap in ((TABLES, 8), (WIDE, 10**9)):
        for row, scale in enumerate(SCALES):
            reach = 2
            while 0.5 * math.erfc(reach / scale / math.sqrt(2)) >= 1e-4 and reach < cap:
                reach += 1
            assert tables.offset[row] == -reach
            assert tables.length[row] == 2 * reach + 3


def test_gaussian_tables_hold_the_probabilities():
    for row in (0, 60, 127):
        frequency = np.diff(WIDE.cdf[row, : WIDE.length[row]])
        values = WIDE.offset[row] + np.arange(len(frequency) - 1)
        edges = np.append(values - 0.5, values[-1] + 0.5) / SCALES[row] / math.sqrt(2)
        below = np.array([0.5 * math.erfc(-edge) for edge in edges])
        expected = np.append(np.diff(below), 1 - (below[-1] - below[0])) * 65536
        assert np.abs(frequency - expected).max() < 5
        assert (frequency[:-1] == frequency[:-1][::-1]).mean() > 0.9


def test_frequencies_are_positive_whole_and_sum_to_65536():
    generator = np.random.default_rng(1)
    pmf = generator.random((500, 40)) ** generator.integers(1, 60, (500, 1))
    pmf[0] = 0
    pmf[0, 3] = 1
    length = generator.integers(1, 41, 500)
    length[0] = 40
    tables = tables_from_pmf(pmf, length, np.zeros(500, int), generator.random(500))
    for row in range(500):
        frequency = np.diff(tables.cdf[row, : length[row] + 2])
        assert frequency.min() >= 1
        assert frequency.sum() == 65536
    assert tables.cdf[0, 4] - tables.cdf[0, 3] > 65536 / 3


def test_a_table_as_large_as_possible_is_uniform():
    width = (1 << 15) - 2
    tables = tables_from_pmf(np.ones((1, width)), [width], [0], 1.0)
    assert set(np.diff(tables.cdf[0])) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("pmf", "length", "tail"),
    [
        ([[0.5, -0.1]], [2], 0.1),
        ([[0.5, math.nan]], [2], 0.1),
        ([[0.0, 0.0]], [2], 0.0),
        ([[0.5, 0.5]], [3], 0.1),
        ([[0.5, 0.5]], [0], 0.1),
        ([[0.5, 0.5]], [2, 2], 0.1),
        ([[0.5, 0.5]], [2], -0.1),
    ],
)
def test_what_is_no_probability_is_refused(pmf, length, tail):
    with pytest.raises(ValueError):
        tables_from_pmf(pmf, length, [0], tail)


def test_broken_tables_are_refused():
    good = tables_from_pmf([[0.5, 0.3, 0.1], [1, 0, 0]], [3, 2], [-1, 0], 0.1)
    changes = [
        ("cdf", (0, 0), 1),
        ("cdf", (0, 2), int(good.cdf[0, 1])),
        ("cdf", (0, 4), 65535),
        ("cdf", (1, 4), 7),
        ("length", 0, 4),
        ("length", 1, 2),
        ("length", 1, 6),
        ("offset", 0, -(2**31)),
    ]
    for name, position, value in changes:
        tensors = good.to_tensors()
        tensors[name][position] = value
        with pytest.raises(ValueError, match="table"):
            CdfTables.from_tensors(tensors)
    with pytest.raises(ValueError, match="offset"):
        CdfTables.from_tensors({"cdf": torch.zeros(1, 3), "length": torch.zeros(1)})
    with pytest.raises(ValueError, match="shape"):
        CdfTables(good.cdf[0], good.length, good.offset)
    with pytest.raises(ValueError, match="each of"):
        CdfTables(good.cdf, good.length[:1], good.offset)


def test_tables_survive_a_checkpoint_and_cannot_be_changed(tmp_path):
    torch.save(TABLES.to_tensors(), tmp_path / "tables.pt")
    loaded = torch.load(tmp_path / "tables.pt", weights_only=True)
    again = CdfTables.from_tensors(loaded)
    assert again.to_bytes() == TABLES.to_bytes() != WIDE.to_bytes()
    with pytest.raises(ValueError):
        again.cdf[0, 1] = 5


@pytest.mark.parametrize("most", [1 << 18, 1 << 12, 1 << 8])
def test_a_bucket_begins_with_the_symbol_that_its_first_frequency_has(
    monkeypatch, most
):
    monkeypatch.setattr(tables_module, "BUCKETS", most)
    tables = CdfTables(WIDE.cdf, WIDE.length, WIDE.offset)
    buckets, places = tables.buckets
    assert len(buckets) <= most
    for row, place in enumerate(places.tolist()):
        width = 1 << (place & 255)
        starts = np.arange(0, 65536, width)
        found = buckets[place >> 8 :][: len(starts)]
        cdf = tables.cdf[row, : tables.length[row]]
        number = np.searchsorted(cdf, starts, side="right") - 1
        assert (found == tables.symbols[tables.first[row] + number]).all()


def test_products_stand_in_for_divisions_exactly():
    frequency = np.arange(1, 65536)
    cdf = np.stack([0 * frequency, frequency, 65536 + 0 * frequency], axis=1)
    tables = CdfTables(cdf, np.full(65535, 3), np.zeros(65535, int))
    factors, entries = tables.entries.reshape(-1, 2, 2)[:, 0].T.tolist()
    largest = np.random.default_rng(0).integers(1 << 47, 1 << 48, 65535).tolist()
    for f, factor, entry, q in zip(
        frequency.tolist(), factors, entries, largest, strict=True
    ):
        assert (entry & 0xFFFF, entry >> 16 & 0xFFFF) == (0, f)
        # Where a quotient is the largest, and where one ends and the next begins.
        for x in (f << 48) - 1, q * f - 1, q * f, q * f + f - 1:
            found = (x + (entry >> 40)) * factor >> 64 + (entry >> 32 & 255)
            assert found == x // f


def test_too_many_tables_are_refused():
    cdf = np.tile(np.array([0, 9, 65536]), (65537, 1))
    with pytest.raises(ValueError, match="65537 tables are too many: at most 65536"):
        CdfTables(cdf, np.full(65537, 3), np.zeros(65537, int))
