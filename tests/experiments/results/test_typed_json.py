"""Whatever stands in a JSON file, it is read, or refused with file and place."""

import copy
import json
import re
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import pytest

from callbacks.metrics.table import METRICS
from experiments.compare.assemble import compare_results
from experiments.compare.report.condition_tables import (
    bits_table,
    codec_table,
    cost_table,
    protocol_table,
)
from experiments.compare.terminal import print_comparison
from experiments.propagation.findings import Finding, Report
from experiments.propagation.numbers import NUMBERS
from experiments.propagation.tables import make_markdown, print_reports
from experiments.results.dcvc import to_dcvc
from experiments.results.joining import join_results
from experiments.results.load import load_any
from experiments.results.result import (
    Point,
    Pool,
    Protocol,
    Result,
    ResultError,
    SequenceResult,
)

INFINITE = json.loads("1e999")
WRONG = (None, "text", "1/0", [], ["text"], -1, INFINITE)
NAMES = ("psnr_yuv", "fid")


def make_result(name="a", fingerprint="0"):
    """Return a result that has everything that a file may hold."""

    def make_point(number):
        return Point(
            float(number),
            0.01 * 2**number,
            nbytes=100,
            estimated_bpp=0.01,
            kbps=3.0,
            metrics={"psnr_yuv": 30.0 + number},
            per_frame={"bits": [400.0, 400.0], "psnr_yuv": [30.0, 31.0]},
            seconds={"encode": 0.1},
            peak_memory={"encode": 1 << 20},
            pictures={"0": "a.png"},
            unavailable={"tof": "frames are too small"},
        )

    partial = replace(make_point(0), scales=2, target_bpp=0.01)
    sequence = SequenceResult(
        "uvg",
        "Beauty",
        64,
        48,
        Fraction(30000, 1001),
        2,
        [*map(make_point, range(3)), partial],
        "stored",
        {"0": "source.png"},
        [0],
    )
    pools = [
        Pool(
            "uvg",
            ["Beauty"],
            float(number),
            0.01 * 2**number,
            metrics={"fid": 40.0 - number},
            samples={"fid": 2},
            unavailable={"kid": "too few"},
        )
        for number in range(3)
    ]
    codec = {"name": "UI2C", "kind": "learned", "fingerprint": fingerprint}
    codec |= {"rate_unit": "qp", "architecture": {"backbone": "lean", "qp": 1}}
    definitions = {name: METRICS[name].definition for name in NAMES}
    return Result(
        name,
        codec,
        Protocol("yuv420", 2, -1, "bitstream", definitions=definitions),
        {"device": "cpu", "unavailable": {"vmaf": "not asked for"}},
        [sequence],
        pools=pools,
    )


def make_report():
    """Return a report that has everything that a file may hold."""
    series = {
        "position": {"position": [1.0, 2.0], "ep": [0.0, 0.1]},
        "slope": {"psnr": [30.0, 31.0], "psnr_intra": [30.0, 30.0]},
        "low_reference": {"offset": [0.0, 1.0], "psnr_loss": [2.0, 1.0]},
        "sweep": {"rate": [0.0, 1.0], "bpp": [0.1, 0.2]},
    }
    series["low_reference"]["bits_rise"] = [1.0, 2.0]
    values = {"position": "epi", "slope": "drift", "low_reference": "pd"}
    means = [
        Finding(
            test,
            None if test == "sweep" else 1.0,
            {values.get(test, "range"): 1.0},
            own,
        )
        for test, own in series.items()
    ]
    sequence = {"set": "uvg", "name": "Beauty", "width": 64, "height": 48}
    return Report(
        "a",
        {"name": "UI2C", "rate_unit": "qp", "architecture": {"size": "tiny"}},
        {"tests": list(series), "max_frames": 2, "targets": 1, "sweep": 2},
        {"device": "cpu", "threads": 1},
        [{**sequence, "fps": "25", "frames": 2, "source": "stored"}],
        {"target_rate": "too short"},
        [replace(mean, set="uvg", sequence="Beauty") for mean in means],
        means,
        {"epi": NUMBERS["epi"].definition},
    )


def places(value, path=()):
    """Give the path of every leaf and every container; of lists the first and last."""
    if path:
        yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else sorted({0, len(value) - 1})
        for key in keys:
            yield from places(value[key], (*path, key))


def changed(data, path, value):
    data = copy.deepcopy(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return data


def damaged_files(path, whole):
    """Give files in which one place after the other holds something wrong."""
    whole.save(path)
    data = json.loads(path.read_text())
    for place in places(data):
        for wrong in WRONG:
            path.write_text(json.dumps(changed(data, place, wrong)))
            yield place, wrong


def show(result):
    """Make everything of a result that needs no pictures and no plots."""
    bits_table([result]), codec_table(result), cost_table([result])
    protocol_table([result])
    other = replace(make_result("other"), path=result.path)
    same = replace(make_result(result.name, "1"), path=result.path)
    with suppress(ValueError):
        join_results([result, same])
    with suppress(ValueError):
        comparison = compare_results(
            [result, other], "other", allow=["unstated"], at_bpp=[0.02]
        )
        print_comparison(comparison, comparison.metrics)
    with suppress(ValueError):
        to_dcvc(result.with_scales(None))


def test_what_loads_of_a_damaged_result_can_be_shown(tmp_path, capsys):
    path = tmp_path / "a.json"
    loaded = refused = 0
    for place, wrong in damaged_files(path, make_result()):
        try:
            result = load_any(path)
        except ResultError as error:
            assert str(path) in str(error), (place, wrong)
            refused += 1
            continue
        try:
            show(result)
        except Exception as error:
            raise AssertionError(f"{place} is {wrong!r}") from error
        result.save(path)
        assert replace(Result.load(path), path=None) == replace(result, path=None)
        loaded += 1
    assert refused > 2 * loaded > 0


def test_what_loads_of_a_damaged_report_can_be_shown(tmp_path, capsys):
    path = tmp_path / "a.json"
    other = replace(make_report(), name="other")
    loaded = refused = 0
    for place, wrong in damaged_files(path, make_report()):
        try:
            report = Report.load(path)
        except ResultError as error:
            assert str(path) in str(error), (place, wrong)
            refused += 1
            continue
        try:
            make_markdown([report, other], [])
            print_reports([report, other])
        except Exception as error:
            raise AssertionError(f"{place} is {wrong!r}") from error
        report.save(path)
        assert Report.load(path) == report
        loaded += 1
    assert refused > loaded > 0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("sequences", 0, "points", 2, "metrics", "psnr_yuv"), None, "valid number"),
        (("sequences", 0, "points", 2, "per_frame"), None, "be an object"),
        (("sequences", 0, "points", 2, "bpp"), 0, "greater than 0"),
        (("sequences", 0, "points", 2, "rate"), "22", "valid number"),
        (("sequences", 0, "points", 2, "rate"), True, "valid number"),
        (("sequences", 0, "fps"), "1/0", "valid fraction"),
        (("sequences", 0, "fps"), INFINITE, "fraction"),
        (("sequences", 0, "frames"), 10**400, "less than or equal"),
        (("sequences", 0, "frames"), "2", "valid integer"),
        (("name",), ["a"], "valid string"),
        (("codec", "kind"), None, "valid string"),
        (("codec", "architecture"), "big", "be an object"),
        (("environment", "unavailable"), None, "be an object"),
        (("pools", 1, "samples"), {}, "fid is missing"),
        (("protocol", "colour"), 3, "valid string"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_what_is_allowed(
    tmp_path, path, value, message
):
    file = tmp_path / "a.json"
    make_result().save(file)
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(ResultError) as caught:
        Result.load(file)
    place = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path)[1:]
    said = str(caught.value)
    assert said.startswith(f"{file} is a damaged file: {place}"), said
    assert message in said and (repr(value) in said or len(said) > 60), said


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("codec", "rate_unit"), None),
        (("protocol", "tests"), "sweep"),
        (("sequences", 0, "frames"), "2"),
        (("findings", 0, "values", "epi"), None),
        (("means", 1, "series", "psnr", 1), "x"),
        (("means", 0, "rate"), "low"),
        (("definitions", "epi"), 1),
        (("left_out",), []),
    ],
)
def test_a_wrong_value_of_a_report_is_named_with_its_place(tmp_path, path, value):
    file = tmp_path / "a.json"
    make_report().save(file)
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    place = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path)[1:]
    said = re.escape(f"{file} is a damaged file: {place} is {value!r}: Input should")
    with pytest.raises(ResultError, match=said):
        Report.load(file)


@pytest.mark.parametrize("key", ["unheard", "rate"])
def test_keys_that_are_unknown_or_missing_are_named(tmp_path, key):
    path = tmp_path / "a.json"
    make_result().save(path)
    data = json.loads(path.read_text())
    point = data["sequences"][0]["points"][1]
    point.pop(key, None) or point.update({key: 1})
    path.write_text(json.dumps(data))
    reason = "missing" if key == "rate" else "unknown"
    with pytest.raises(ResultError, match=rf"points\[1\]\.{key} is {reason}$"):
        Result.load(path)


def test_an_infinite_number_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.json"
    make_result().save(path)
    data = json.loads(path.read_text())
    data["environment"]["load"] = INFINITE
    path.write_text(json.dumps(data))
    with pytest.raises(ResultError, match="NaN or infinite, it must be a finite"):
        Result.load(path)


def test_a_file_of_nothing_but_brackets_is_no_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    for load in (Result.load, Report.load, load_any):
        with pytest.raises(ResultError, match="cannot be read as JSON"):
            load(path)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    for load in (Result.load, Report.load, load_any):
        with pytest.raises(ResultError, match=r"a\.json does not exist$"):
            load(tmp_path / "a.json")


def test_a_round_trip_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    for whole in (make_result(), make_report()):
        whole.save(path)
        text = path.read_text()
        again = type(whole).load(path)
        if isinstance(again, Result):
            assert again.path == path
            again.path = None
        assert again == whole
        again.save(path)
        assert path.read_text() == text


@pytest.mark.parametrize(
    ("test", "series", "least"),
    [
        ("position", {"position": [], "ep": []}, 1),
        ("slope", {"psnr": [1.0, 2.0], "psnr_intra": [1.0]}, 1),
        ("low_reference", {"offset": [1.0], "psnr_loss": [1.0]}, 1),
        ("sweep", {"rate": [0.0], "bpp": [0.1]}, 2),
    ],
)
def test_series_that_cannot_be_drawn_are_refused(tmp_path, test, series, least):
    report = make_report()
    report.means = [Finding(test, None, {}, series)]
    report.save(tmp_path / "a.json")
    with pytest.raises(ResultError, match=rf"means\[0\].*at least {least}"):
        Report.load(tmp_path / "a.json")
