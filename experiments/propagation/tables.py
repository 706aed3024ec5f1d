"""``propagation.md`` and what the terminal shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.propagation.findings import Report
from experiments.propagation.numbers import AT_ONE_RATE, NUMBERS, TESTS
from experiments.results.drawing.tables import (
    Table,
    escape,
    make_console,
    numbers,
    print_table,
    to_markdown,
    words,
)

HOW_TO_READ = """\
**EPI**, **slope** and **D** are 0 if what a frame looks like does not depend on how
many frames came before it; above 0 (EPI, D) or below (slope) quality drifts away.
**PD** is what the frames after a bad one lose, **RO** what they cost more: a codec
without error propagation pays with bits only. Read them beside **bpp** and what is
**saved** against all-intra coding: never referring to anything has no drift either.
**std, content removed** and **jump at intra** are what a viewer may notice as flicker.
Only exactly 0 is written as 0."""


def differences(reports: Sequence[Report]) -> list[str]:
    """Say what was not measured alike, of what should be.

    Rates and positions are each codec's own.
    """
    said = []
    first = reports[0]
    for other in reports[1:]:
        shared = ["max_frames", "quality", "bits"]
        for test, name in (("position", "targets"), ("sweep", "sweep")):
            if all(test in report.protocol["tests"] for report in (first, other)):
                shared.append(name)
        names = [n for n in shared if first.protocol.get(n) != other.protocol.get(n)]
        if _frames(first) != _frames(other):
            names.append("sequences or their number of frames")
        if names:
            said.append(f"{first.name} and {other.name} differ in {', '.join(names)}")
    return said


def _frames(report: Report) -> list[tuple[str, str, int]]:
    return [(each["set"], each["name"], each["frames"]) for each in report.sequences]


def mean_tables(reports: Sequence[Report]) -> list[Table]:
    """Return the numbers over all sequences, one column per codec and rate."""
    tables = []
    for title, chosen in (
        ("Error propagation", AT_ONE_RATE),
        ("Rate control", tuple(test for test in TESTS if test not in AT_ONE_RATE)),
    ):
        labels, values = [], []
        for report in reports:
            rates: list[float | None] = [*report.rates]
            for rate in rates if chosen == AT_ONE_RATE else [None]:
                found = [report.mean(test, rate) for test in chosen]
                own = {k: v for each in found if each for k, v in each.values.items()}
                if own:
                    labels.append(report.label(rate))
                    values.append(own)
        if values:
            rows = [[title, *texts] for title, texts in _texts(values).items()]
            columns = [*words("number"), *numbers(*labels)]
            tables.append(Table(f"{title}, over all sequences", columns, rows))
    return tables


def sequence_tables(reports: Sequence[Report]) -> list[Table]:
    """Return what each test gave on each sequence."""
    tables = []
    for test in TESTS:
        found = [(r, each) for r in reports for each in r.findings if each.test == test]
        if found:
            texts = _texts([each.values for _, each in found])
            rows = [
                [report.label(each.rate), f"{each.set}/{each.sequence}", *cells]
                for (report, each), *cells in zip(found, *texts.values(), strict=True)
            ]
            columns = [*words("codec", "sequence"), *numbers(*texts)]
            tables.append(Table(test, columns, rows))
    return tables


def _texts(values: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """Return each number that any of several findings has as all of them write it."""
    return {
        NUMBERS[name].title: [
            NUMBERS[name].text(each[name]) if name in each else "" for each in values
        ]
        for test in TESTS.values()
        for name in test
        if any(name in each for each in values)
    }


def make_markdown(reports: Sequence[Report], figures: Sequence[Path]) -> str:
    """Return the text of ``propagation.md``.

    Args:
        reports: What is shown, one codec each.
        figures: PNG files beside it.
    """
    names = ", ".join(report.name for report in reports)
    blocks = [f"# {escape(f'How far errors reach: {names}')}"]
    blocks += [f"> **Not measured alike: {escape(t)}**" for t in differences(reports)]
    blocks += [HOW_TO_READ]
    blocks += map(to_markdown, mean_tables(reports))
    blocks += [
        f"* left out of {escape(report.name)}: {escape(what)}: {escape(reason)}"
        for report in reports
        for what, reason in report.left_out.items()
    ]
    blocks += [f"![{path.stem}]({path.name})" for path in figures]
    blocks += map(to_markdown, sequence_tables(reports))
    definitions = {k: v for report in reports for k, v in report.definitions.items()}
    rows = [[NUMBERS[name].title, text] for name, text in definitions.items()]
    blocks.append(to_markdown(Table("Numbers", words("number", "what it is"), rows)))
    for part in ("protocol", "codec", "environment"):
        keys = dict.fromkeys(key for report in reports for key in getattr(report, part))
        rows = [[key, *(getattr(r, part).get(key) for r in reports)] for key in keys]
        columns = words("", *(report.name for report in reports), missing="not stated")
        blocks.append(to_markdown(Table(part.capitalize(), columns, rows)))
    return "\n\n".join(filter(None, blocks)) + "\n"


def print_reports(reports: Sequence[Report]) -> None:
    """Print the numbers over all sequences."""
    console = make_console()
    for text in differences(reports):
        console.print(f"not measured alike: {text}", style="bold")
    for table in mean_tables(reports):
        print_table(table, console)
