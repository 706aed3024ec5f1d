from statistics import fmean

import pytest

from callbacks.metrics.table import METRICS
from experiments.compare.papers import load_tables, number


def table(source):
    (found,) = (t for t in load_tables() if t.source == source)
    return found


def numbers(row):
    return [number(cell) for cell in row]


AVERAGED = [(t.source, row) for t in load_tables() if t.average_of for row in t.rows]


@pytest.mark.parametrize(("source", "row"), AVERAGED)
def test_a_printed_average_is_the_mean_of_its_sets(source, row):
    printed = table(source)
    cells = {
        column.set: number(cell)
        for column, cell in zip(printed.columns, printed.rows[row], strict=True)
        if column.quantity == "bd_rate"
    }
    mean = fmean(cells[name] for name in printed.average_of)
    # Printed cells are rounded to a tenth themselves; these averages were made of them.
    assert cells[None] == pytest.approx(mean, abs=0.0501)


def test_there_are_the_tables_of_the_three_papers():
    assert len(AVERAGED) == 5 + 8
    assert sorted(t.source for t in load_tables()) == [
        "arXiv 2410.02598, Table II",
        "arXiv 2410.02598, Table III",
        "arXiv 2510.14431, Table 1",
        "arXiv 2510.14431, Table 2",
        "arXiv 2510.14431, Table 3",
        *(
            "“Perceptual Neural Video Compression with Video Variational Autoencoder "
            f"at Low Bitrates”, Table {n}"
            for n in (1, 2)
        ),
    ]


@pytest.mark.parametrize("printed", load_tables(), ids=lambda t: t.source)
def test_every_row_has_a_cell_of_each_column(printed):
    for cells in printed.rows.values():
        assert len(cells) == len(printed.columns)


@pytest.mark.parametrize("printed", load_tables(), ids=lambda t: t.source)
def test_every_table_states_its_conditions(printed):
    assert printed.conditions
    rates = [column for column in printed.columns if column.quantity == "bd_rate"]
    assert bool(rates) == (printed.anchor is not None)
    for column in rates:
        assert column.metrics
        assert set(column.metrics) <= {*METRICS}
    assert printed.conditions.get("colour", "rgb") in ("yuv420", "rgb", "not stated")
    assert printed.conditions.get("rate", "estimate") in ("estimate", "not stated")


def test_the_anchor_of_a_table_is_its_zero():
    for printed in load_tables():
        if printed.anchor in printed.rows:
            cells = printed.rows[printed.anchor]
            for column, cell in zip(printed.columns, cells, strict=True):
                assert column.quantity != "bd_rate" or number(cell) == 0


def test_units_agree_within_the_paper_of_ui2c():
    # 4.2: 35.7 % against VTM, 6.8 % against DCVC-FM: differences of the averages.
    rows = table("arXiv 2510.14431, Table 1").rows
    average = {name: number(cells[6]) for name, cells in rows.items()}
    ours = average["UI ² C (Ours)"]
    assert average["VTM-17.0"] - ours == pytest.approx(35.7)
    assert average["DCVC-FM"] - ours == pytest.approx(6.8)


def test_the_parallel_codec_of_dhvc_loses_what_the_text_says():
    rows = table("arXiv 2410.02598, Table II").rows
    parallel = rows["DHVC 2.0 (Parallel)"]
    # 20 and 33 frames per second; about 10 % better than HM.
    assert 1 / number(parallel[4]) == pytest.approx(20)
    assert 1 / number(parallel[5]) == pytest.approx(33, abs=0.5)
    assert number(parallel[6]) == pytest.approx(-10, abs=0.2)


def test_overlapping_costs_a_tenth_of_the_bits_in_every_column():
    rows = table(
        "“Perceptual Neural Video Compression with Video Variational Autoencoder at "
        "Low Bitrates”, Table 1"
    ).rows
    pairs = zip(
        numbers(rows["BPP (Before)"]), numbers(rows["BPP (After)"]), strict=True
    )
    for before, after in pairs:
        assert after / before == pytest.approx(12 / 11, abs=0.02)


def test_cells_keep_what_was_printed():
    rows = table("arXiv 2410.02598, Table II").rows
    assert rows["DCVC"][:3] == ("4+4", "77.64", "1126.40")
    assert number("4+4") is None
    assert number("-") is None
    assert number("-15.97%") == -15.97
