"""Fixture: the values of every sample encode sequence and frame, so that a wrong file,
frame or plane cannot pass."""

import json
import os
import pickle
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from datamodules.frames import VideoError
from datamodules.sequences import (
    VideoSequence,
    find_sequences,
    frames_to_read,
    read_codes,
    source_kind,
)
from datamodules.standard_sets import STANDARD_SETS, find_standard, parse_name

HEVC_D = {
    "BQSquare": (60, 600),
    "BasketballPass": (50, 500),
    "BlowingBubbles": (50, 500),
    "RaceHorses": (30, 300),
}


def codes_of(sequence, frame, height, width):
    """Three planes that no other sequence and frame have."""
    rows, columns = np.mgrid[:height, :width]
    small = (slice((height + 1) // 2), slice((width + 1) // 2))
    y = (3 * rows + 5 * columns + 31 * sequence + frame) % 256
    u = (40 + 20 * sequence + rows)[small] % 256
    v = (frame // 2 + 3 * (frame % 2) + 2 * columns)[small] % 256
    return tuple(plane.astype(np.uint8) for plane in (y, u, v))


def raw_frame(sequence, frame, height, width):
    planes = codes_of(sequence, frame, height, width)
    return b"".join(plane.tobytes() for plane in planes)


def write_raw(path, sequence, height, width, frames, written=None):
    """Write frames by number (default: all); the others are holes in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbytes = height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
    with path.open("wb") as file:
        file.truncate(nbytes * frames)
        for frame in range(frames) if written is None else written:
            file.seek(nbytes * frame)
            file.write(raw_frame(sequence, frame, height, width))
    return path


def write_y4m(path, sequence, height, width, frames, tags="C420 XCOLORRANGE=FULL"):
    header = f"YUV4MPEG2 W{width} H{height} F25:1 {tags}\n".encode()
    raw = [raw_frame(sequence, frame, height, width) for frame in range(frames)]
    path.write_bytes(header + b"".join(b"FRAME\n" + frame for frame in raw))
    return path


def write_pngs(path, sequence, height, width, frames, pattern="im{:05d}.png"):
    """R, G and B of a frame are all of luma's size."""
    path.mkdir(parents=True)
    for frame in range(frames):
        planes = [codes_of(sequence + i, frame, height, width)[0] for i in range(3)]
        name = path / pattern.format(frame + 1)
        cv2.imwrite(str(name), np.stack(planes, axis=-1)[..., ::-1])
    return path


def write_hevc_d(root, written=(0, 1)):
    for number, (name, (fps, frames)) in enumerate(HEVC_D.items()):
        path = root / f"{name}_416x240_{fps}.yuv"
        write_raw(path, number, 240, 416, frames, written)
    return root


def same(codes, others):
    return all(np.array_equal(a, b) for a, b in zip(codes, others, strict=True))


def message(spec):
    with pytest.raises(ValueError) as caught:
        find_sequences([str(spec)])
    return str(caught.value)


def rgb_of(codes):
    """BT.709 full range with repeated chroma, rounded; not the suite's code."""
    y, u, v = (plane.astype(np.float64) for plane in codes)
    u, v = (
        np.kron(plane, np.ones((2, 2)))[: y.shape[0], : y.shape[1]] - 127.5
        for plane in (u, v)
    )
    green = y - 0.2126 / 0.7152 * 1.5748 * v - 0.0722 / 0.7152 * 1.8556 * u
    return [np.clip(p, 0, 255) for p in (y + 1.5748 * v, green, y + 1.8556 * u)]


def planes_of(rgb):
    """The reverse with means over 2 x 2, an odd edge repeated."""
    r, g, b = (plane.astype(np.float64) for plane in rgb)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    chroma = []
    for plane in ((b - y) / 1.8556 + 127.5, (r - y) / 1.5748 + 127.5):
        height, width = plane.shape
        full = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
        chroma.append(sum(full[i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4)
    return [y, *chroma]


def close(codes, values):
    """Codes are the values rounded, but for what float32 does to a half."""
    pairs = zip(codes, values, strict=True)
    return all(
        a.dtype == np.uint8 and np.abs(a - b).max() <= 0.5 + 1e-3 for a, b in pairs
    )


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
    assert parse_name(stem) == (size, fps, depth)


def test_a_standard_set_is_found_and_read_bit_exactly(tmp_path):
    write_hevc_d(tmp_path, written=(0, 1, 2, 299))
    found = find_sequences([f"hevc_d={tmp_path}"])
    assert [s.name for s in found] == list(HEVC_D)
    for number, (sequence, (fps, frames)) in enumerate(
        zip(found, HEVC_D.values(), strict=True)
    ):
        assert (sequence.set, sequence.width, sequence.height) == ("hevc_d", 416, 240)
        assert (sequence.fps, sequence.frames, sequence.listed) == (fps, frames, True)
        assert source_kind(sequence) == "8-bit 4:2:0 planes as stored"
        codes = list(read_codes(sequence, "yuv420", 3))
        assert len(codes) == 3
        for frame, planes in enumerate(codes):
            assert same(planes, codes_of(number, frame, 240, 416))
    *_, last = read_codes(found[-1], "yuv420")
    assert same(last, codes_of(3, 299, 240, 416))
    assert pickle.loads(pickle.dumps(found)) == found


def test_names_are_found_in_any_case_below_folders_and_by_other_names(tmp_path):
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
        write_raw(tmp_path / name, number, 1080, 1920, frames, written=[0])
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
        assert same(codes, codes_of(number, 0, 1080, 1920))


def test_classes_c_and_d_may_lie_in_one_tree(tmp_path):
    small = write_raw(tmp_path / "D/RaceHorses_416x240_30.yuv", 0, 240, 416, 300, [0])
    large = write_raw(tmp_path / "C/RaceHorses_832x480_30.yuv", 1, 480, 832, 300, [0])
    for key, path in (("hevc_c", large), ("hevc_d", small)):
        (sequence,) = find_sequences([f"{key}:RaceHorses={tmp_path}"])
        assert sequence.path == path
    small.unlink()
    assert "not C/RaceHorses_832x480_30.yuv, its name says 832x480" in message(
        f"hevc_d:RaceHorses={tmp_path}"
    )


def test_links_make_nothing_ambiguous(tmp_path):
    write_hevc_d(tmp_path / "real")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "root" / "RaceHorses.yuv").symlink_to(
        tmp_path / "real" / "RaceHorses_416x240_30.yuv"
    )
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "root")
    assert len(find_sequences([f"hevc_d={tmp_path / 'root'}"])) == 4
    found = find_sequences([str(tmp_path / "real")])
    assert sorted(s.frames for s in found) == [300, 500, 500, 600]


def test_a_part_of_a_set_can_be_named(tmp_path):
    write_hevc_d(tmp_path)
    found = find_sequences([f"hevc_d:racehorses, BQSquare={tmp_path}"])
    assert [s.name for s in found] == ["BQSquare", "RaceHorses"]
    assert "no sequence 'kimono1', only BQSquare" in message(
        f"hevc_d:Kimono1={tmp_path}"
    )
    # Longer than any file's name may be.
    names = ",".join(f"videoSRC{n:02}" for n in range(1, 31))
    assert "missing: videoSRC01" in message(f"mcl_jcv:{names}={tmp_path}")


def test_all_that_is_wrong_with_a_set_is_said_at_once(tmp_path):
    write_hevc_d(tmp_path)
    (tmp_path / "BQSquare_416x240_60.yuv").unlink()
    (tmp_path / "BQSquare_416x240_60.yuv.7z").touch()
    short = write_raw(tmp_path / "BasketballPass_416x240_50.yuv", 1, 240, 416, 499, [0])
    twin = tmp_path / "again" / "RaceHorses.yuv"
    write_raw(twin, 3, 240, 416, 300, [0])
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
def test_a_wrong_size_is_explained(tmp_path, nbytes, meant):
    with (tmp_path / "RaceHorses.yuv").open("wb") as file:
        file.truncate(nbytes)
    said = message(f"hevc_d:RaceHorses={tmp_path}")
    assert f"RaceHorses.yuv has {nbytes} bytes" in said
    assert meant in said


def test_a_standard_set_may_be_y4m(tmp_path):
    path = write_y4m(tmp_path / "RaceHorses.y4m", 3, 240, 416, 300)
    (sequence,) = find_sequences([f"hevc_d={tmp_path}".replace("=", ":RaceHorses=")])
    # The header says 25, the table 30.
    assert (sequence.fps, sequence.frames) == (30, 300)
    codes = list(read_codes(sequence, "yuv420"))
    assert len(codes) == 300
    assert all(same(c, codes_of(3, i, 240, 416)) for i, c in enumerate(codes))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert "it would be 299 frames and a part of one" in message(
        f"hevc_d:RaceHorses={tmp_path}"
    )
    path.write_bytes(content.replace(b"W416 H240", b"W208 H480"))
    assert "is 208x480, not 416x240" in message(f"hevc_d:RaceHorses={tmp_path}")


@pytest.mark.parametrize("pattern", ["im{}.png", "im{:05d}.png"])
def test_a_standard_set_may_be_images_of_either_numbering(tmp_path, pattern):
    path = tmp_path / "x" / "racehorses_416x240_30"
    write_pngs(path, 0, 240, 416, 300, pattern)
    (path / "._im1.png").write_text("what another system leaves")
    (sequence,) = find_sequences([f"hevc_d:RaceHorses={tmp_path}"])
    assert (sequence.frames, source_kind(sequence)) == (300, "RGB images")
    for frame, codes in enumerate(read_codes(sequence, "rgb", 12)):
        expected = [codes_of(i, frame, 240, 416)[0] for i in range(3)]
        assert same(codes, expected)
    (path / pattern.format(300)).unlink()
    assert "holds 299 images, not 300" in message(f"hevc_d:RaceHorses={tmp_path}")
    cv2.imwrite(str(path / pattern.format(301)), np.zeros((240, 416, 3), np.uint8))
    assert f"{pattern.format(299)} is followed by {pattern.format(301)}" in message(
        f"hevc_d:RaceHorses={tmp_path}"
    )


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 23), (11, 13)])
@pytest.mark.parametrize("suffix", [".yuv", ".y4m"])
def test_raw_files_of_any_size_give_their_own_codes(tmp_path, height, width, suffix):
    path = tmp_path / f"a_{width}x{height}_50{suffix}"
    write = write_raw if suffix == ".yuv" else write_y4m
    write(path, 2, height, width, 4)
    (sequence,) = find_sequences([str(path)])
    assert (sequence.height, sequence.width, sequence.frames) == (height, width, 4)
    assert sequence.fps == (50 if suffix == ".yuv" else 25)
    codes = list(read_codes(sequence, "yuv420"))
    assert [plane.dtype for plane in codes[0]] == [np.uint8] * 3
    assert len(codes) == 4
    for frame, planes in enumerate(codes):
        assert same(planes, codes_of(2, frame, height, width))
    for frame, planes in enumerate(read_codes(sequence, "rgb")):
        assert close(planes, rgb_of(codes_of(2, frame, height, width)))


def test_a_y4m_with_words_on_its_frame_lines_gives_its_own_codes(tmp_path):
    path = write_y4m(tmp_path / "a.y4m", 1, 6, 6, 3)
    path.write_bytes(path.read_bytes().replace(b"FRAME\n", b"FRAME Ip\n"))
    (sequence,) = find_sequences([str(path)])
    assert sequence.frames is None
    codes = list(read_codes(sequence, "yuv420", 9))
    assert len(codes) == 3
    assert same(codes[2], codes_of(1, 2, 6, 6))
    assert len(list(read_codes(sequence, "rgb", 2))) == 2


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 23)])
def test_images_become_planes_by_the_full_range_matrix(tmp_path, height, width):
    path = write_pngs(tmp_path / "clip_24fps", 0, height, width, 2)
    (sequence,) = find_sequences([str(path)])
    assert (sequence.set, sequence.name, sequence.fps) == ("clip_24fps",) * 2 + (24,)
    for frame, codes in enumerate(read_codes(sequence, "yuv420")):
        rgb = [codes_of(i, frame, height, width)[0] for i in range(3)]
        assert close(codes, planes_of(rgb))


def test_a_studio_range_y4m_is_stretched_on_its_way(tmp_path):
    tags = "C420jpeg XCOLORRANGE=LIMITED"
    path = tmp_path / "a.y4m"
    header = f"YUV4MPEG2 W2 H2 F25:1 {tags}\nFRAME\n".encode()
    path.write_bytes(header + bytes([16, 235, 16, 235, 128, 128]))
    (sequence,) = find_sequences([str(path)])
    assert source_kind(sequence) == "studio-range 4:2:0 planes, converted to RGB"
    ((y, u, v),) = read_codes(sequence, "yuv420")
    assert y.tolist() == [[0, 255], [0, 255]]
    # Neutral chroma is half a code from 128 in full range.
    assert u[0, 0] in (127, 128) and v[0, 0] in (127, 128)


def test_a_container_is_decoded_by_its_own_tags(tmp_path):
    path = tmp_path / "v.mkv"
    planes = [np.full((32, 32), 126), np.full((16, 16), 100), np.full((16, 16), 150)]
    flat = np.concatenate([p.ravel() for p in planes]).astype(np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        for _ in range(3):
            picture = av.VideoFrame.from_ndarray(flat.reshape(48, 32), "yuv420p")
            picture.colorspace = picture.color_range = 1
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    (sequence,) = find_sequences([str(path)])
    assert source_kind(sequence) == "decoded to RGB by FFmpeg"
    # The container itself does not say how many.
    assert (sequence.fps, sequence.frames) == (25, 3)
    codes = list(read_codes(sequence, "yuv420", 99))
    assert len(codes) == 3
    full = [(126 - 16) / 219, (100 - 128) / 224 + 0.5, (150 - 128) / 224 + 0.5]
    for plane, value in zip(codes[2], full, strict=True):
        assert np.abs(plane - 255 * value).max() < 1.5


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


def test_dcvcs_configuration_is_read_as_it_is(tmp_path):
    data = tmp_path / "data"
    write_raw(data / "HEVC_D" / "RaceHorses_416x240_30.yuv", 0, 240, 416, 300, [0, 95])
    write_raw(data / "HEVC_D" / "BQSquare_416x240_60.yuv", 1, 240, 416, 96, [0, 95])
    write_pngs(data / "png" / "mine_24x16_25", 2, 16, 24, 5, "im{}.png")
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
        assert same(codes[95], codes_of(number, 95, 240, 416))
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


def test_a_cropped_version_is_not_the_standard_sequence(tmp_path):
    assert find_standard("HEVC-B", "Cactus_1920x1080_50").name == "Cactus"
    assert find_standard("HEVC-B", "Cactus_1920x1024_50") is None
    assert find_standard("Mine", "Cactus_1920x1080_50") is None
    write_raw(tmp_path / "BQSquare_60fps.yuv", 0, 192, 384, 2)
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
        (lambda d: first(d).update(width=13), "1 frames of 13x10 and a part of one"),
        (lambda d: rename(d, "a.yuv"), "a.yuv must say its frames per second"),
        (lambda d: rename(d, "no_12x10_25.yuv"), "there is no file"),
        (lambda d: rename(d, "a_12x10_25.rgb"), "is no .yuv, .y4m or directory"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, change, said):
    for name in ("a.yuv", "a_12x10_25.yuv", "a_12x10_25.rgb"):
        write_raw(tmp_path / name, 0, 10, 12, 2)
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


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "c.json").write_text("{")
    assert "cannot be read as JSON" in message(tmp_path / "c.json")
    assert "cannot be read as JSON" in message(f"{tmp_path}/no.json={tmp_path}")


def test_a_directory_gives_all_that_is_below_it(tmp_path, caplog):
    root = tmp_path / "clips"
    write_raw(root / "deep" / "a_24x16_50.yuv", 0, 16, 24, 3)
    write_y4m(root / "b.y4m", 1, 16, 24, 2)
    write_pngs(root / "c", 2, 16, 24, 4)
    write_pngs(root / "stills", 3, 16, 24, 2, "{}_of_two.png")
    (root / "notes.txt").touch()
    found = find_sequences([f"{root}/."])
    assert [(s.set, s.name, s.frames) for s in found] == [
        ("clips", "b", 2),
        ("clips", "c", 4),
        ("clips", "deep_a_24x16_50", 3),
    ]
    assert "stills is no sequence" in caplog.text
    # All there is, where no list says how much there must be.
    assert [len(list(read_codes(s, "yuv420", 3))) for s in found] == [2, 3, 3]
    assert same(next(read_codes(found[2], "yuv420")), codes_of(0, 0, 16, 24))


def test_all_that_is_wrong_with_a_directory_is_said_at_once(tmp_path):
    for name in ("a.yuv", "b_12x10_25_10bit.yuv", "c_13x10_25.yuv", "d_12x10_25.yuv"):
        write_raw(tmp_path / name, 0, 10, 12, 2)
    (tmp_path / "d_12x10_25.yuv").write_bytes(b"")
    write_y4m(tmp_path / "e.y4m", 0, 10, 12, 2, "C420p10")
    write_y4m(tmp_path / "f.y4m", 0, 10, 12, 2, "C444")
    write_pngs(tmp_path / "g", 0, 10, 12, 3)
    (tmp_path / "g" / "im00002.png").unlink()
    (tmp_path / "h.mp4").write_text("no video")
    said = message(tmp_path)
    for part in (
        "a.yuv must say its size and frames per second in its name, like name_416x240",
        "b_12x10_25_10bit.yuv has 10 bits by its name, only 8",
        "c_13x10_25.yuv has 360 bytes, which is not a whole number of 13x10",
        "d_12x10_25.yuv holds no frame",
        "e.y4m has 10 bits, only 8",
        "f.y4m is no y4m that can be read: its samples are C444, only 4:2:0",
        "im00001.png is followed by im00003.png",
        "h.mp4 cannot be opened",
    ):
        assert part in said


def test_a_stray_image_is_not_taken_for_a_frame(tmp_path):
    write_pngs(tmp_path / "a", 0, 10, 12, 3)
    (tmp_path / "a" / "im00001.png").rename(tmp_path / "a" / "cover.png")
    (tmp_path / "a" / "im00003.png").rename(tmp_path / "a" / "im00001.png")
    assert "cover.png is followed by im00001.png" in message(tmp_path)


def test_variables_are_expanded(tmp_path, monkeypatch):
    write_hevc_d(tmp_path / "hevc" / "d")
    monkeypatch.setenv("TEST_SETS", str(tmp_path / "hevc"))
    (one, *_) = find_sequences(["hevc_d=${TEST_SETS}/d"])
    assert one.path == tmp_path / "hevc" / "d" / "BQSquare_416x240_60.yuv"
    assert len(find_sequences(["$TEST_SETS"])) == 4
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(find_sequences(["hevc_d=~/hevc", "~/hevc/d"])) == 8
    monkeypatch.delenv("TEST_SETS")
    assert "variable TEST_SETS is not set" in message("hevc_d=${TEST_SETS}/d")


def test_what_names_nothing_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no standard set 'vimeo', only uvg, mcl_jcv" in message(f"vimeo={tmp_path}")
    assert "no standard set" in message(f"{tmp_path}/no=thing")
    assert "write uvg:Beauty=ROOT" in message("uvg:Beauty")
    assert "there is no such file or directory" in message(tmp_path / "no.mp4")
    assert "there is no directory" in message(f"uvg={tmp_path}/no")
    assert "found nothing: the directory is empty" in message(tmp_path / "empty")
    with pytest.raises(ValueError, match="no sequences"):
        find_sequences([])


def test_a_directory_cannot_pass_for_a_standard_set(tmp_path):
    path = write_y4m(tmp_path / "Beauty.y4m", 0, 10, 12, 1)
    (tmp_path / "uvg").mkdir()
    path = path.rename(tmp_path / "uvg" / "Beauty.y4m")
    assert f"write uvg={tmp_path / 'uvg'} if it is that" in message(tmp_path / "uvg")
    assert "called like a standard set" in message(path)


def test_the_same_sequence_twice_is_refused(tmp_path):
    path = write_y4m(tmp_path / "a.y4m", 0, 10, 12, 1)
    for specs in ([path, path], [tmp_path, path]):
        with pytest.raises(ValueError, match=r"'a' of set .* is named twice"):
            find_sequences([str(spec) for spec in specs])
    write_pngs(tmp_path / "a", 0, 10, 12, 1)
    assert f"{tmp_path / 'a'} and {path}" in message(tmp_path)


def make(path, frames, listed):
    return VideoSequence("set", "name", path, 12, 10, Fraction(25), frames, listed)


@pytest.mark.parametrize(
    ("frames", "listed", "max_frames", "expected"),
    [
        (10, True, 10, 10),
        (10, True, 9, 9),
        (10, True, None, 10),
        (10, False, 11, 10),
        (None, False, 11, 11),
        (None, False, None, None),
    ],
)
def test_how_many_frames_are_read(tmp_path, frames, listed, max_frames, expected):
    assert frames_to_read(make(tmp_path, frames, listed), max_frames) == expected


def test_more_frames_than_a_listed_sequence_has_are_refused_before_reading(tmp_path):
    sequence = make(tmp_path / "absent.yuv", 10, True)
    with pytest.raises(ValueError, match=r"11 frames were asked for.* has 10"):
        read_codes(sequence, "yuv420", 11)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"max_frames is {wrong}"):
            read_codes(sequence, "yuv420", wrong)


@pytest.mark.parametrize("colour", ["yuv420", "rgb"])
@pytest.mark.parametrize("suffix", [".yuv", ".y4m", ".png"])
def test_a_source_that_ends_early_is_refused_at_the_frame(tmp_path, suffix, colour):
    path = tmp_path / f"a_12x10_25{suffix}"
    if suffix == ".yuv":
        write_raw(path, 0, 10, 12, 5)
    elif suffix == ".y4m":
        write_y4m(path, 0, 10, 12, 5)
    else:
        write_pngs(path, 0, 10, 12, 5)
    (sequence,) = find_sequences([str(path)])
    if suffix == ".png":
        (path / "im00005.png").unlink()
        (path / "im00004.png").unlink()
    else:
        path.write_bytes(
            path.read_bytes()[: -2 * 186 if suffix == ".y4m" else -2 * 180]
        )
    taken = []
    with pytest.raises(VideoError, match=r"frame 3 \(from 0\)|3 frames") as caught:
        for codes in read_codes(sequence, colour):
            taken.append(codes)
    assert str(path) in str(caught.value)
    assert len(taken) in (0, 3)
    assert len(list(read_codes(sequence, colour, 3))) == 3
