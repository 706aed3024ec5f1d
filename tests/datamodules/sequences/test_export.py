"""Motion patterns as files that other suites read: ``exchange patterns=DIR OUT``."""

import json

import cv2
import numpy as np
import pytest

from datamodules.sequences import motion_patterns
from datamodules.sequences.files import read_codes
from datamodules.sequences.find import find_sequences
from experiments.results.exchange import main

FRAMES = 3


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(motion_patterns, "PATTERNS", ("fade", "shake"))
    monkeypatch.setattr(motion_patterns, "FRAMES", FRAMES)
    monkeypatch.setattr(motion_patterns, "SIDE", 32)
    monkeypatch.setattr(motion_patterns, "MIN_SIDE", 72)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        small = draw.integers(0, 256, (24, 24, 3), np.uint8)
        cv2.imwrite(str(folder / f"{name}.jpg"), cv2.resize(small, (72, 72)))
    return folder


@pytest.mark.parametrize(
    ("kind", "colours"), [("png", ("rgb", "yuv420")), ("yuv", ("yuv420",))]
)
def test_what_is_written_is_read_back_to_equal_frames(
    samples, pictures, tmp_path, capsys, kind, colours
):
    out = tmp_path / "new" / "out"
    assert main([f"patterns={pictures}", str(out)]) == 0
    assert f"--sequences {out}/dcvc_{kind}.json" in capsys.readouterr().out
    own = find_sequences([f"patterns={pictures}"])
    found = find_sequences([str(out / f"dcvc_{kind}.json")])
    assert [(s.set, s.name, s.fps, s.frames) for s in found] == [
        (s.set, f"{s.name}_32x32_25fps", s.fps, FRAMES) for s in own
    ]
    for one, other in zip(own, found, strict=True):
        for colour in colours:
            expected, read = (list(read_codes(s, colour)) for s in (one, other))
            assert len(read) == FRAMES
            for frame, again in zip(expected, read, strict=True):
                assert samples.same(frame, again)


def test_the_configuration_has_what_dcvcs_program_asks_for(pictures, tmp_path):
    out = tmp_path / "out"
    assert main([f"patterns:2={pictures}", str(out)]) == 0
    for kind, source, name in (
        ("png", "png", "one_32x32_25fps"),
        ("yuv", "yuv420", "one_32x32_25fps.yuv"),
    ):
        data = json.loads((out / f"dcvc_{kind}.json").read_text())
        assert data["root_path"] == str(out)
        motion = data["test_classes"]["motion_shake"]
        assert (motion["test"], motion["src_type"]) == (1, source)
        assert motion["base_path"] == f"{kind}/motion_shake"
        entry = {"width": 32, "height": 32, "frames": FRAMES}
        entry |= {"gop": FRAMES, "intra_period": FRAMES}
        assert motion["sequences"][name] == entry
        assert (out / kind / "motion_shake" / name).exists()
    images = sorted((out / "png" / "motion_shake" / "one_32x32_25fps").iterdir())
    assert [path.name for path in images] == [f"im0000{n}.png" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("patterns:1", "give a number from 2"),
        ("patterns=/nowhere", "no directory /nowhere"),
        ("patterns={pictures}", "the directory is not empty"),
        ("patterns={pictures}", "rename its picture"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    pictures, tmp_path, capsys, monkeypatch, spec, message
):
    out = tmp_path / "out"
    if "empty" in message:
        out.mkdir()
        (out / "mine.txt").touch()
    if "rename" in message:
        # Another rate than the one that stands behind it.
        rename = lambda path: f"{path.stem}_30fps.jpg"  # noqa: E731
        monkeypatch.setattr(motion_patterns, "_name", rename)
    before = sorted(tmp_path.rglob("*"))
    assert main([spec.format(pictures=pictures), str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
