"""What evaluate prints of a result: every metric, in the width of a terminal."""

from pathlib import Path

import pytest

from callbacks.metrics.table import METRICS
from experiments.evaluate.show import WIDTH, in_width, print_result
from experiments.results.drawing import tables
from experiments.results.drawing.tables import Table, numbers, words
from experiments.results.result import Point


@pytest.mark.parametrize("width", [WIDTH, 80])
def test_all_that_was_measured_is_shown_and_fits(result_of, capsys, monkeypatch, width):
    monkeypatch.setattr(tables, "WIDE", width)
    names = [name for name, metric in METRICS.items() if not metric.pooled]
    metrics = {name: 0.001 * n for n, name in enumerate(names)}
    more = {"metrics": metrics, "seconds": {"encode": 1.25, "decode": 2.5}}
    points = [Point(float(n), 0.1 + n, **more) for n in (3, 4)]
    print_result(result_of("mine", points), Path("mine.json"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for name in names:
        unit = METRICS[name].unit
        label = METRICS[name].label + (f" ({unit})" if unit else "")
        assert any(
            line.split("  ")[1].strip() == label for line in lines if "  " in line
        )
    # In parts, each with its sequence.
    heads = [line for line in lines if line.split()[:2] == ["set", "sequence"]]
    assert text.count("  set   one") == len(points) * len(heads) > len(points)


def test_a_wide_table_is_several_that_tell_their_rows_apart():
    columns = [*words("set", "sequence"), *numbers("frames", "rate", "scales")]
    columns += numbers(*(f"metric {n}" for n in range(9)))
    row = ["uvg", "Beauty", 96, 21, "all", *(0.5 + n for n in range(9))]
    parts = in_width(Table("title", columns, [row]), width=60)
    labels = [[column.label for column in part.columns] for part in parts]
    assert labels[0][:5] == ["set", "sequence", "frames", "rate", "scales"]
    assert all(own[:4] == ["set", "sequence", "rate", "scales"] for own in labels[1:])
    shown = [label for own in labels for label in own if label.startswith("metric")]
    assert shown == [f"metric {n}" for n in range(9)]
    assert [part.title for part in parts] == ["title", *[""] * (len(parts) - 1)]
    values = [v for part in parts for v in part.rows[0] if isinstance(v, float)]
    assert values == [0.5 + n for n in range(9)]


def test_a_narrow_table_stays_one():
    table = Table("title", [*words("set"), *numbers("bpp")], [["uvg", 0.5]])
    (part,) = in_width(table)
    assert (part.title, part.rows) == ("title", table.rows)
