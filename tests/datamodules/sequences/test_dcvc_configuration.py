"""Sequences that a configuration file of DCVC lists."""

import json
import os

import pytest

from datamodules.sequences.files import read_codes
from datamodules.sequences.find import find_sequences
from datamodules.sequences.standard_sets import find_standard


def write_config(path, root_path, **classes):
    data = {"root_path": root_path, "test_classes": classes}
    path.write_text(json.dumps(data))
    return path


def dcvc_class(src_type, base_path, sequences, test=1):
    keys = ("width", "height", "frames", "intra_period")
    return {
        "test": test,
        "base_path": base_path,
        "src_type": src_type,
        "sequences": {
            name: dict(zip(keys, (*numbers, -1), strict=True))
            for name, numbers in sequences.items()
        },
    }


def test_dcvcs_configuration_is_read_as_it_is(samples, message, tmp_path):
    data = tmp_path / "data"
    samples.write_raw(
        data / "HEVC_D" / "RaceHorses_416x240_30.yuv", 0, 240, 416, 300, [0, 95]
    )
    samples.write_raw(
        data / "HEVC_D" / "BQSquare_416x240_60.yuv", 1, 240, 416, 96, [0, 95]
    )
    samples.write_pngs(data / "png" / "mine_24x16_25", 2, 16, 24, 5, "im{}.png")
    config = write_config(
        tmp_path / "config.json",
        "data",
        HEVC_D=dcvc_class(
            "yuv420",
            "HEVC_D",
            {
                "RaceHorses_416x240_30.yuv": (416, 240, 96),
                "BQSquare_416x240_60.yuv": (416, 240, 96),
            },
        ),
        Mine=dcvc_class("png", "png", {"mine_24x16_25": (24, 16, 4)}),
        Absent=dcvc_class("yuv420", "none", {"a_2x2_9.yuv": (2, 2, 1)}, test=0),
    )
    found = find_sequences([str(config)])
    assert [(s.set, s.name, s.fps, s.frames, s.listed) for s in found] == [
        ("hevc_d", "RaceHorses", 30, 96, True),
        ("hevc_d", "BQSquare", 60, 96, True),
        ("Mine", "mine_24x16_25", 25, 4, True),
    ]
    for number, sequence in enumerate(found[:2]):
        codes = list(read_codes(sequence, "yuv420"))
        assert len(codes) == 96
        assert samples.same(codes[95], samples.codes_of(number, 95, 240, 416))
    assert len(list(read_codes(found[2], "rgb"))) == 4
    with pytest.raises(
        ValueError, match=r"97 frames.* RaceHorses of set hevc_d has 96"
    ):
        read_codes(found[0], "yuv420", 97)

    elsewhere = write_config(
        tmp_path / "elsewhere.json", "/nowhere", **json_classes(config)
    )
    again = find_sequences([f"{elsewhere}={data}"])
    assert [s.path for s in again] == [s.path for s in found]
    assert f"there is no file {os.sep}nowhere" in message(elsewhere)


def json_classes(config):
    return json.loads(config.read_text())["test_classes"]


def test_a_cropped_version_is_not_the_standard_sequence(samples, tmp_path):
    assert find_standard("HEVC-B", "Cactus_1920x1080_50").name == "Cactus"
    assert find_standard("HEVC-B", "Cactus_1920x1024_50") is None
    assert find_standard("Mine", "Cactus_1920x1080_50") is None
    samples.write_raw(tmp_path / "BQSquare_60fps.yuv", 0, 192, 384, 2)
    config = write_config(
        tmp_path / "c.json",
        str(tmp_path),
        HEVC_D=dcvc_class("yuv420", "", {"BQSquare_60fps.yuv": (384, 192, 2)}),
    )
    (sequence,) = find_sequences([str(config)])
    assert (sequence.set, sequence.name) == ("HEVC_D", "BQSquare_60fps")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("root_path"), "'root_path' is None, it must be a text"),
        (lambda d: d.pop("test_classes"), "'test_classes' is None"),
        (lambda d: d["test_classes"]["A"].pop("test"), "A: 'test' is None"),
        (lambda d: d["test_classes"]["A"].update(test=0), 'no class with "test": 1'),
        (lambda d: d["test_classes"]["A"].update(src_type="rgb"), "src_type 'rgb'"),
        (lambda d: d["test_classes"]["A"].update(src_type="png"), "no directory of im"),
        (lambda d: d["test_classes"]["A"].update(sequences=[]), "must be an object"),
        (lambda d: first(d).pop("frames"), "A, a_12x10_25.yuv: 'frames' is None"),
        (lambda d: first(d).update(width="12"), "'width' is '12', it must be a number"),
        (lambda d: first(d).update(frames=0), "cannot have 0 frames of 12x10"),
        (lambda d: first(d).update(frames=3), "has 360 bytes, 3 frames of 12x10"),
        (lambda d: first(d).update(width=13), "12x10: correct the list, or rename"),
        (lambda d: rename(d, "b_10x12_25.yuv"), "of 12x10, but its name says 10x12"),
        (lambda d: rename(d, "b_12x10_25_10bit.yuv"), "but its name says 10 bits"),
        (lambda d: rename(d, "b_12x10_25_444.yuv"), "but its name says 444 chroma"),
        (lambda d: rename(d, "../x/a_12x10_25.yuv"), "../x/a_12x10_25.yuv leads out"),
        (lambda d: rename(d, "/x/a_12x10_25.yuv"), "/x/a_12x10_25.yuv leads out of"),
        (lambda d: d["test_classes"]["A"].update(base_path=".."), "leads out of the r"),
        (lambda d: d["test_classes"]["A"].update(base_path="/x"), "as FILE.json=ROOT"),
        (lambda d: rename(d, "a.yuv"), "a.yuv must say its frames per second"),
        (lambda d: rename(d, "no_12x10_25.yuv"), "there is no file"),
        (lambda d: rename(d, "a_12x10_25.rgb"), "is no .yuv, .y4m or directory"),
    ],
)
def test_a_wrong_configuration_is_refused(samples, message, tmp_path, change, said):
    unlike = ("b_10x12_25.yuv", "b_12x10_25_10bit.yuv", "b_12x10_25_444.yuv")
    for name in ("a.yuv", "a_12x10_25.yuv", "a_12x10_25.rgb", *unlike):
        samples.write_raw(tmp_path / name, 0, 10, 12, 2)
    config = tmp_path / "c.json"
    write_config(
        config, ".", A=dcvc_class("yuv420", ".", {"a_12x10_25.yuv": (12, 10, 2)})
    )
    assert len(find_sequences([str(config)])) == 1
    data = json.loads(config.read_text())
    change(data)
    config.write_text(json.dumps(data))
    text = message(config)
    assert said in text
    assert str(config) in text


def first(data):
    return data["test_classes"]["A"]["sequences"]["a_12x10_25.yuv"]


def rename(data, name):
    sequences = data["test_classes"]["A"]["sequences"]
    sequences[name] = sequences.pop("a_12x10_25.yuv")


def test_what_is_no_json_is_refused(message, tmp_path):
    (tmp_path / "c.json").write_text("{")
    assert "cannot be read as JSON" in message(tmp_path / "c.json")
    said = message(f"{tmp_path}/no.json={tmp_path}")
    assert said.endswith("no.json cannot be read as JSON: No such file or directory")


def test_a_link_out_of_the_root_is_said(samples, tmp_path, caplog):
    samples.write_raw(tmp_path / "store" / "a.yuv", 0, 10, 12, 2)
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "a_12x10_25.yuv").symlink_to(tmp_path / "store" / "a.yuv")
    listed = {"a_12x10_25.yuv": (12, 10, 2)}
    config = tmp_path / "c.json"
    write_config(config, "root", A=dcvc_class("yuv420", "sub/..", listed))
    assert len(find_sequences([str(config)])) == 1
    assert "is a link out of the root" in caplog.text


def test_a_nested_abyss_is_refused(message, tmp_path):
    (tmp_path / "c.json").write_text("[" * 100000)
    assert "cannot be read as JSON" in message(tmp_path / "c.json")
