"""One table, shown in a terminal, in Markdown and in HTML."""

import pytest

from experiments.results.drawing.tables import (
    Table,
    numbers,
    print_table,
    to_html,
    to_markdown,
    words,
)

EVIL = "[/b]|<i>`x`"


@pytest.fixture
def table():
    columns = [*words("codec", missing="not stated"), *numbers("bpp", spec=".3f")]
    rows = [["UI2C", 0.12345], [EVIL, None], [None, 7]]
    return Table("Bits", [*columns, *numbers(EVIL)], [[*r, 1e-7] for r in rows], ["n"])


def test_cells_are_written_as_their_columns_say(table):
    assert table.texts() == [
        ["UI2C", "0.123", "1e-07"],
        [EVIL, "", "1e-07"],
        ["not stated", "7", "1e-07"],
    ]
    (column,) = words("any", missing="none")
    assert column.text({"a": [1, None], "b": 2.5}) == "a 1, none, b 2.5"


def test_a_terminal_shows_everything_and_takes_nothing_for_markup(table, capsys):
    print_table(table)
    said = capsys.readouterr().out
    for text in ("Bits", "codec", "0.123", EVIL, "not stated", "\nn\n"):
        assert text in said


def test_nothing_is_cut_where_a_terminal_is_narrow(capsys, monkeypatch):
    monkeypatch.setattr("experiments.results.drawing.tables.WIDE", 30)
    name = "a name that is far longer than the screen is wide"
    print_table(Table(name, [*words(name), *numbers(name)], [[name, "1234567.25"]]))
    said = capsys.readouterr().out
    assert "…" not in said and "1234567.25" in said
    assert said.replace(" ", "").replace("\n", "").count("screen") == 4


def test_markdown_and_html_align_numbers_and_escape_names(table):
    lines = to_markdown(table, level=3).splitlines()
    assert lines[0] == "### Bits" and lines[3] == "| :-- | --: | --: |"
    assert lines[5] == r"| \[/b\]\|&lt;i&gt;\`x\` |  | 1e-07 |"
    assert lines[-1] == "n"
    page = to_html(table, heading="h3")
    assert page.startswith("<section><h3>Bits</h3>") and "<li>n</li>" in page
    assert '<td class="words">UI2C</td><td class="number">0.123</td>' in page
    assert "<i>" not in page


def test_a_table_without_rows_is_nothing(capsys):
    empty = Table("Bits", words("codec"))
    assert to_markdown(empty) == to_html(empty) == ""
    print_table(empty)
    assert capsys.readouterr().out == ""
