"""Standard sets: their table, how files are found, what is said if one is wrong."""

import pickle
from fractions import Fraction

import cv2
import numpy as np
import pytest

from datamodules.sequences.files import read_codes, source_kind
from datamodules.sequences.find import find_sequences
from datamodules.sequences.standard_sets import STANDARD_SETS, parse_name


def test_the_table_has_the_53_sequences_of_the_field():
    counts = {key: len(rows) for key, rows in STANDARD_SETS.items()}
    assert counts == dict(uvg=7, mcl_jcv=30, hevc_b=5, hevc_c=4, hevc_d=4, hevc_e=3)
    frames = {key: sum(row.frames for row in v) for key, v in STANDARD_SETS.items()}
    assert frames == dict(
        uvg=3900, mcl_jcv=4115, hevc_b=2080, hevc_c=1900, hevc_d=1900, hevc_e=1800
    )
    rows = {(row.set, row.name): row for v in STANDARD_SETS.values() for row in v}
    assert len(rows) == 53
    for key, expected in {
        ("uvg", "ShakeNDry"): (1920, 1080, 120, 300),
        ("uvg", "ReadySteadyGo"): (1920, 1080, 120, 600),
        ("mcl_jcv", "videoSRC18"): (1920, 1080, 25, 125),
        ("mcl_jcv", "videoSRC29"): (1920, 1080, 24, 120),
        ("mcl_jcv", "videoSRC30"): (1920, 1080, 30, 150),
        ("hevc_b", "Kimono1"): (1920, 1080, 24, 240),
        ("hevc_c", "RaceHorses"): (832, 480, 30, 300),
        ("hevc_d", "BQSquare"): (416, 240, 60, 600),
        ("hevc_e", "Johnny"): (1280, 720, 60, 600),
    }.items():
        row = rows[key]
        assert (row.width, row.height, row.fps, row.frames) == expected


@pytest.mark.parametrize(
    ("stem", "size", "fps", "depth"),
    [
        ("Beauty_1920x1080_120fps_420_8bit_YUV", (1080, 1920), 120, 8),
        ("BQMall_832x480_60", (480, 832), 60, None),
        ("clip_352X288_29.97", (288, 352), Fraction(2997, 100), None),
        ("clip_416x240_420_10bit", (240, 416), None, 10),
        ("clip_416x240_8bit", (240, 416), None, 8),
        ("Kimono1_1920x1080_24_RGB", (1080, 1920), 24, None),
        ("clip_30fps_64x48", (48, 64), 30, None),
        ("clip_64x48_0", (48, 64), None, None),
        ("foreman_cif", None, None, None),
    ],
)
def test_a_name_says_size_rate_and_depth(stem, size, fps, depth):
    assert parse_name(stem)[:3] == (size, fps, depth)


@pytest.mark.parametrize(
    ("stem", "chroma", "depth"),
    [
        ("a_192x128_120fps_420_10bit", "420", 10),
        ("a_192x128_420", "420", None),
        ("a_192x128_30_yuv422p10le", "422", 10),
        ("a_yuv444p_192x128_30", "444", None),
        ("take_444_192x128_30", None, None),
        ("a_192x128_4200", None, None),
    ],
)
def test_a_name_says_the_layout_of_chroma(stem, chroma, depth):
    stated = parse_name(stem)
    assert (stated.chroma, stated.depth) == (chroma, depth)


def test_a_standard_set_is_found_and_read_bit_exactly(samples, tmp_path):
    samples.write_hevc_d(tmp_path, written=(0, 1, 2, 299))
    found = find_sequences([f"hevc_d={tmp_path}"])
    assert [s.name for s in found] == list(samples.HEVC_D)
    for number, (sequence, (fps, frames)) in enumerate(
        zip(found, samples.HEVC_D.values(), strict=True)
    ):
        assert (sequence.set, sequence.width, sequence.height) == ("hevc_d", 416, 240)
        assert (sequence.fps, sequence.frames, sequence.listed) == (fps, frames, True)
        assert source_kind(sequence) == "8-bit 4:2:0 planes as stored"
        codes = list(read_codes(sequence, "yuv420", 3))
        assert len(codes) == 3
        for frame, planes in enumerate(codes):
            assert samples.same(planes, samples.codes_of(number, frame, 240, 416))
    *_, last = read_codes(found[-1], "yuv420")
    assert samples.same(last, samples.codes_of(3, 299, 240, 416))
    assert pickle.loads(pickle.dumps(found)) == found


def test_names_are_found_in_any_case_below_folders_and_by_other_names(
    samples, tmp_path
):
    names = [
        "a/beauty_1920x1080_120fps_420_8bit_YUV.yuv",
        "a/b/Bosphorus.YUV",
        "HoneyBee_1920x1080.yuv",
        "Jockey-1920X1080-120.yuv",
        "ReadySetGo_1920x1080_120fps_420_8bit_YUV.yuv",
        "YachtRide_1920x1080_120fps_420_8bit_YUV.yuv",
        "ShakeNDry_1920x1080_120fps_420_8bit_YUV.yuv",
    ]
    for number, name in enumerate(names):
        frames = 300 if "Shake" in name else 600
        samples.write_raw(tmp_path / name, number, 1080, 1920, frames, written=[0])
    # None of these is meant.
    (tmp_path / "Beauty_1920x1080_120fps_420_10bit_YUV.yuv").touch()
    (tmp_path / "Jockey_3840x2160_120fps_420_8bit_YUV.yuv").touch()
    (tmp_path / "Jockey2_1920x1080.yuv").touch()
    (tmp_path / ".Bosphorus.yuv").touch()
    found = {s.name: s for s in find_sequences([f"UVG={tmp_path}"])}
    expected = "Beauty Bosphorus HoneyBee Jockey ReadySteadyGo YachtRide ShakeNDry"
    for number, (name, path) in enumerate(zip(expected.split(), names, strict=True)):
        assert (found[name].set, found[name].path) == ("uvg", tmp_path / path)
        (codes,) = read_codes(found[name], "yuv420", 1)
        assert samples.same(codes, samples.codes_of(number, 0, 1080, 1920))


def test_classes_c_and_d_may_lie_in_one_tree(samples, message, tmp_path):
    small = samples.write_raw(
        tmp_path / "D/RaceHorses_416x240_30.yuv", 0, 240, 416, 300, [0]
    )
    large = samples.write_raw(
        tmp_path / "C/RaceHorses_832x480_30.yuv", 1, 480, 832, 300, [0]
    )
    for key, path in (("hevc_c", large), ("hevc_d", small)):
        (sequence,) = find_sequences([f"{key}:RaceHorses={tmp_path}"])
        assert sequence.path == path
    small.unlink()
    assert "not C/RaceHorses_832x480_30.yuv, its name says 832x480" in message(
        f"hevc_d:RaceHorses={tmp_path}"
    )


def test_links_make_nothing_ambiguous(samples, tmp_path):
    samples.write_hevc_d(tmp_path / "real")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "root" / "RaceHorses.yuv").symlink_to(
        tmp_path / "real" / "RaceHorses_416x240_30.yuv"
    )
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "root")
    assert len(find_sequences([f"hevc_d={tmp_path / 'root'}"])) == 4
    found = find_sequences([str(tmp_path / "real")])
    assert sorted(s.frames for s in found) == [300, 500, 500, 600]


def test_a_part_of_a_set_can_be_named(samples, message, tmp_path):
    samples.write_hevc_d(tmp_path)
    found = find_sequences([f"hevc_d:racehorses, BQSquare={tmp_path}"])
    assert [s.name for s in found] == ["BQSquare", "RaceHorses"]
    assert "no sequence 'kimono1', only BQSquare" in message(
        f"hevc_d:Kimono1={tmp_path}"
    )
    # Longer than any file's name may be.
    names = ",".join(f"videoSRC{n:02}" for n in range(1, 31))
    assert "missing: videoSRC01" in message(f"mcl_jcv:{names}={tmp_path}")


def test_all_that_is_wrong_with_a_set_is_said_at_once(samples, message, tmp_path):
    samples.write_hevc_d(tmp_path)
    (tmp_path / "BQSquare_416x240_60.yuv").unlink()
    (tmp_path / "BQSquare_416x240_60.yuv.7z").touch()
    short = samples.write_raw(
        tmp_path / "BasketballPass_416x240_50.yuv", 1, 240, 416, 499, [0]
    )
    twin = tmp_path / "again" / "RaceHorses.yuv"
    samples.write_raw(twin, 3, 240, 416, 300, [0])
    said = message(f"hevc_d={tmp_path}")
    assert "missing: BQSquare (not BQSquare_416x240_60.yuv.7z" in said
    assert "NAME*.yuv, NAME*.y4m and directories NAME* of PNG images" in said
    assert f"{short} has {499 * 149760} bytes" in said
    assert f"500 frames of 416x240 8-bit 4:2:0 have {500 * 149760}" in said
    assert "it would be 499 frames of 416x240" in said
    assert f"RaceHorses is ambiguous, there are {tmp_path / 'RaceHorses_416'}" in said
    assert str(twin) in said
    assert f"write hevc_d:BlowingBubbles={tmp_path}" in said
    assert len(find_sequences([f"hevc_d:BlowingBubbles={tmp_path}"])) == 1


@pytest.mark.parametrize(
    ("nbytes", "meant"),
    [
        (2 * 300 * 149760, "600 frames of 416x240 or 300 frames of more than 8 bits"),
        (300 * 149760 - 1, "299 frames of 416x240 and a part of one"),
        (300 * 599040, "1200 frames of 416x240 or 300 frames of 832x480"),
        (300 * 3110400, "300 frames of 1920x1080"),
        (0, "0 frames"),
    ],
)
def test_a_wrong_size_is_explained(message, tmp_path, nbytes, meant):
    with (tmp_path / "RaceHorses.yuv").open("wb") as file:
        file.truncate(nbytes)
    said = message(f"hevc_d:RaceHorses={tmp_path}")
    assert f"RaceHorses.yuv has {nbytes} bytes" in said
    assert meant in said


def test_a_standard_set_may_be_y4m(samples, message, tmp_path):
    path = samples.write_y4m(tmp_path / "RaceHorses.y4m", 3, 240, 416, 300)
    (sequence,) = find_sequences([f"hevc_d:RaceHorses={tmp_path}"])
    # The header says 25, the table 30.
    assert (sequence.fps, sequence.frames) == (30, 300)
    codes = list(read_codes(sequence, "yuv420"))
    assert len(codes) == 300
    assert all(
        samples.same(c, samples.codes_of(3, i, 240, 416)) for i, c in enumerate(codes)
    )
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert "it would be 299 frames and a part of one" in message(
        f"hevc_d:RaceHorses={tmp_path}"
    )
    path.write_bytes(content.replace(b"W416 H240", b"W208 H480"))
    assert "is 208x480, not 416x240" in message(f"hevc_d:RaceHorses={tmp_path}")


@pytest.mark.parametrize("pattern", ["im{}.png", "im{:05d}.png"])
def test_a_standard_set_may_be_images_of_either_numbering(
    samples, message, tmp_path, pattern
):
    path = tmp_path / "x" / "racehorses_416x240_30"
    samples.write_pngs(path, 0, 240, 416, 300, pattern)
    (path / "._im1.png").write_text("what another system leaves")
    (sequence,) = find_sequences([f"hevc_d:RaceHorses={tmp_path}"])
    assert (sequence.frames, source_kind(sequence)) == (300, "RGB images")
    for frame, codes in enumerate(read_codes(sequence, "rgb", 12)):
        expected = [samples.codes_of(i, frame, 240, 416)[0] for i in range(3)]
        assert samples.same(codes, expected)
    (path / pattern.format(300)).unlink()
    assert "holds 299 images, not 300" in message(f"hevc_d:RaceHorses={tmp_path}")
    cv2.imwrite(str(path / pattern.format(301)), np.zeros((240, 416, 3), np.uint8))
    assert f"{pattern.format(299)} is followed by {pattern.format(301)}" in message(
        f"hevc_d:RaceHorses={tmp_path}"
    )
