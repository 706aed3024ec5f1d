"""Pictures of a folder, each a sequence of one frame of its own size."""

import cv2
import numpy as np

from datamodules.sequences.files import read_codes, source_kind
from datamodules.sequences.find import find_sequences


def write(path, value, height, width):
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


def test_each_picture_is_a_sequence_of_one_frame_and_its_own_size(tmp_path):
    root = tmp_path / "kodak"
    # Numbers that follow each other make no video of them.
    write(root / "kodim01.png", 10, 32, 48)
    write(root / "kodim02.png", 20, 48, 32)
    write(root / "kodim10.jpg", 30, 7, 5)
    write(root / "below" / "deeper.png", 40, 8, 8)
    write(root / ".hidden.png", 50, 8, 8)
    (root / "notes.txt").touch()
    found = find_sequences([f"stills={root}/"])
    assert [(s.set, s.name, s.width, s.height, s.frames) for s in found] == [
        ("kodak", "kodim01", 48, 32, 1),
        ("kodak", "kodim02", 32, 48, 1),
        ("kodak", "kodim10", 5, 7, 1),
    ]
    for sequence, value in zip(found, (10, 20, 30), strict=True):
        # More frames than it has may be asked for, as of any folder.
        (planes,) = read_codes(sequence, "rgb", 96)
        assert all(abs(int(plane.mean()) - value) < 2 for plane in planes)
        assert planes[0].shape == (sequence.height, sequence.width)
        assert source_kind(sequence) == "RGB images"
    assert [s.name for s in find_sequences([f"Stills:2={root}"])] == [
        "kodim01",
        "kodim02",
    ]


def test_two_formats_of_one_picture_are_two_sequences(tmp_path):
    write(tmp_path / "s" / "a.png", 10, 8, 8)
    write(tmp_path / "s" / "a.jpg", 10, 8, 8)
    write(tmp_path / "s" / "b.jpg", 10, 8, 8)
    names = [s.name for s in find_sequences([f"stills={tmp_path / 's'}"])]
    assert names == ["a.jpg", "a.png", "b"]


def test_what_is_no_folder_of_pictures_is_refused(message, tmp_path):
    root = tmp_path / "s"
    write(root / "a.png", 10, 8, 8)
    assert "there is no directory" in message(f"stills={tmp_path}/no")
    assert "to say where that set is, write stills=ROOT" in message("stills")
    for amount in ("0", "x", "-1"):
        assert "give a number from 1, or none" in message(f"stills:{amount}={root}")
    said = message(f"stills:2={root}")
    assert "and not below, for 2 pictures (.png .jpg .jpeg); found a.png" in said
    assert "not below, for pictures" in message(f"stills={tmp_path}")
    (root / "b.png").write_bytes((root / "a.png").read_bytes()[:40])
    (root / "c.jpg").write_text("no picture")
    said = message(f"stills={root}")
    assert "b.png cannot be decoded" in said and "c.jpg cannot be decoded" in said
    write(tmp_path / "uvg" / "a.png", 10, 8, 8)
    assert "is called like a standard set" in message(f"stills={tmp_path / 'uvg'}")


def test_a_folder_that_is_no_video_says_how_its_pictures_are_named(tmp_path, caplog):
    write(tmp_path / "p" / "a.png", 10, 8, 8)
    write(tmp_path / "v" / "1.png", 10, 8, 8)
    write(tmp_path / "v" / "2.png", 10, 8, 9)
    (video,) = find_sequences([str(tmp_path)])
    assert f"can be measured as stills={tmp_path / 'p'}" in caplog.text
    try:
        list(read_codes(video, "rgb"))
    except ValueError as error:
        assert "frame 1 (from 0) is 9x8, but the first is 8x8; pict" in str(error)
        assert "stills=DIR" in str(error)
    else:
        raise AssertionError("frames of two sizes were read as one video")
