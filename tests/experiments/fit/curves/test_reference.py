"""What validations are measured against: points of a CSV, of a run, of a file."""

import csv
from pathlib import Path

import pytest
import yaml

from experiments.fit.curves.reference import load_reference
from experiments.fit.curves.validations import Validation, last_validations, rate_of
from experiments.fit.loggers.metrics_csv import COLUMNS
from experiments.results.result import Point

DATA = {"source": "folder", "root": "clips", "val_clips": 4, "val_frames": 8}
PSNR = (20.0, 25.0, 30.0, 33.0)


def rows(step, stage, shift=0.0):
    """Return a validation's rows, and some that are none."""
    found = [(step, stage, "val/psnr", 27.0), (step, stage, "val/0.1bpp/psnr", 26.0)]
    found += [(step, stage, "train/slot1/bpp", 0.1)]
    for number, psnr in enumerate(PSNR):
        found += [
            (step, stage, f"val/qp{number}/bpp", 0.05 * 2**number),
            (step, stage, f"val/qp{number}/psnr", psnr + shift),
        ]
    return found


@pytest.fixture
def run(tmp_path):
    """A run of two stages, the first validated twice."""
    found = rows(5, "one", -9.0) + rows(10, "one") + rows(15, "two", 1.0)
    folder = tmp_path / "other"
    for stage in ("one", "two", "three"):
        (folder / stage).mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *found])
    stages = [{"name": "one", "data": {"val_clips": 2}}, {"name": "two"}]
    config = {"data": DATA, "stages": stages, "seed": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_the_last_validation_of_each_stage_counts():
    found = rows(5, "one", -9.0) + rows(10, "one") + rows(15, "two")
    stages = last_validations([*found, (20, "three", "val/loss", 1.0)])
    assert [(each.stage, each.step) for each in stages.values()] == [
        ("one", 10),
        ("two", 15),
    ]
    assert stages["one"].points["qp1"] == {"bpp": 0.1, "psnr": 25.0}
    assert list(stages["one"].points) == ["qp0", "qp1", "qp2", "qp3"]
    assert [rate_of(name) for name in ("qp21", "lmbda512", "quality0.33")] == [
        21.0,
        512.0,
        0.33,
    ]


def test_points_that_no_curve_can_have_are_left_out():
    nan = float("nan")
    values = [(0.0, 1.0), (0.1, 20.0), (0.1, 22.0), (0.2, nan), (0.3, 30.0)]
    points = {f"qp{i}": {"bpp": b, "psnr": v} for i, (b, v) in enumerate(values)}
    curve = Validation("one", 1, points).curve("psnr", "alex")
    assert (curve.bpp, curve.quality) == ((0.1, 0.3), (22.0, 30.0))
    assert Validation("one", 1, points).curve("tof", "alex") is None


def test_a_run_or_a_stage_of_it_is_a_reference(run):
    last = load_reference(str(run), ["psnr", "bpp", "tof"], "alex")
    assert (last.name, list(last.curves)) == ("other/two", ["psnr"])
    assert last.curves["psnr"].quality == tuple(psnr + 1 for psnr in PSNR)
    first = load_reference(str(run / "one"), ["psnr"], "alex")
    assert (first.name, first.curves["psnr"].quality) == ("other/one", PSNR)
    # Of the same clips nothing needs to be said; of others, what differs.
    assert last.caveat_of({**DATA, "seed": 1, "workers": 9}) == ""
    assert first.caveat_of({**DATA, "seed": 0, "val_root": "else"}) == (
        "other/one was validated with other data (root 'clips', here 'else'; clips 2, "
        "here 4; seed 1, here 0)"
    )


def test_a_shrunk_run_had_no_data_of_its_stages(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "shrink": {"crop": 64}}))
    first = load_reference(str(run / "one"), ["psnr"], "alex")
    assert first.caveat_of({**DATA, "seed": 1}) == ""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "there is no such file or folder: give a result file"),
        ("other/three", "it holds no validation"),
        ("other/../other/..", "it holds no validation"),
        ("other/config.yaml", "config.yaml cannot be read as JSON"),
        ("latin", "metrics.csv is no table"),
        ("closed", "Permission denied"),
    ],
)
def test_what_is_no_reference_is_refused(run, place, message, monkeypatch):
    (run.parent / "latin").mkdir()
    (run.parent / "latin" / "metrics.csv").write_bytes(b"\xe9")
    given = str(run.parent / place)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    if place == "closed":
        # The tests may run as root, who may read everything.
        monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(ValueError, match=message) as error:
        load_reference(given, ["psnr"], "alex")
    assert str(error.value).startswith(f"--tracking.reference {given}: ")


def test_a_reference_without_a_curve_is_refused(run):
    with pytest.raises(ValueError, match=r"3 rate points in one of tof; it has none"):
        load_reference(str(run), ["tof", "bpp"], "alex")
    (run / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"does not say which clips .*'two'.*restore"):
        load_reference(str(run), ["psnr"], "alex")


def points(count):
    metrics = [
        {"psnr_rgb": 20.0 + i, "psnr_rgb_unrounded": 21.0 + i, "fid": 9.0 - i}
        for i in range(count)
    ]
    return [Point(float(i), 0.1 * 2**i, metrics=own) for i, own in enumerate(metrics)]


def test_a_result_file_is_a_reference(result_of, tmp_path):
    path = tmp_path / "x264.json"
    result_of("x264", points(4)).save(path)
    reference = load_reference(str(path), ["psnr", "fid", "bpp"], "alex")
    # Unrounded frames, as in validation; no FID, which is of other pictures.
    assert list(reference.curves) == ["psnr"]
    assert reference.points["2"] == {"bpp": pytest.approx(0.4), "psnr": 23.0}
    assert reference.caveat_of(DATA) == (
        "x264 is of other clips than validation (1 of set, 64x64), and its bits are "
        "real bytes, those of validation estimates"
    )


def test_a_result_file_of_too_few_points_is_refused(result_of, tmp_path):
    path = tmp_path / "x264.json"
    result_of("x264", points(2)).save(path)
    with pytest.raises(ValueError, match="it has psnr of 2: give another one, or more"):
        load_reference(str(path), ["psnr"], "alex")
