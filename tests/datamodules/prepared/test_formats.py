"""Frames of each format: as the format says they are, whatever part is read."""

import os

import cv2
import numpy as np
import pytest
import torch

from datamodules.prepared.formats import FORMATS, Place
from datamodules.sources.source import ClipError, Window
from datamodules.yuv import dequantise, planes_to_rgb, quantise, rgb_to_planes
from datamodules.yuv_codes import codes_to_rgb8, rgb8_to_codes

FRAMES, HEIGHT, WIDTH = 4, 147, 271
WINDOWS = [
    Window(0, 0, HEIGHT, WIDTH),
    Window(1, 127, 130, 140),
    Window(120, 3, 16, 16),
    Window(146, 270, 1, 1),
    Window(3, 0, 64, WIDTH),
]


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (FRAMES, 10, 18, 3), np.uint8)
    return np.stack(
        [cv2.resize(c, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for c in coarse]
    )


@pytest.fixture(params=FORMATS)
def stored(request, clip, tmp_path):
    codec = FORMATS[request.param](HEIGHT, WIDTH, 95)
    parts = [codec.encode(frame) for frame in clip]
    data, ends = b"before" + b"".join(parts), np.cumsum([len(part) for part in parts])
    place = Place(6, len(data))
    path = tmp_path / "frames"
    path.write_bytes(data + ends.astype("<u8").tobytes() * codec.has_table)
    if codec.bytes_per_pixel is not None:
        assert abs(len(parts[0]) / HEIGHT / WIDTH - codec.bytes_per_pixel) < 0.01
    file = os.open(path, os.O_RDONLY)
    yield request.param, lambda *what: codec.read(file, place, *what), path
    os.close(file)


def test_every_part_of_every_frame_is_that_of_the_whole(stored, clip):
    name, read, _ = stored
    whole = read(range(FRAMES), WINDOWS[0])
    error = np.abs(whole.astype(int) - clip)
    assert error.max() <= {"rgb": 0, "yuv420": 60, "jpeg": 40}[name]
    assert error.mean() < {"rgb": 1e-9, "yuv420": 4, "jpeg": 2}[name]
    for window in WINDOWS:
        for numbers in ([0, 1, 2, 3], [1, 3], [3], [0, 2]):
            part = read(numbers, window)
            top, left, rows, columns = window
            want = whole[numbers, top : top + rows, left : left + columns]
            assert (part == want).all()


def test_what_a_disk_gives_in_parts_is_read_whole(stored, monkeypatch):
    _, read, _ = stored
    whole, preadv = read(range(FRAMES), WINDOWS[1]), os.preadv

    def parts(file, buffers, start):
        return preadv(file, [memoryview(buffers[0]).cast("B")[:1000]], start)

    monkeypatch.setattr(os, "preadv", parts)
    assert (read(range(FRAMES), WINDOWS[1]) == whole).all()


def test_a_shorter_file_is_an_error_and_no_black_frame(stored):
    _, read, path = stored
    os.truncate(path, 6 + path.stat().st_size // 2)
    with pytest.raises(ClipError, match="damaged: a file is shorter than it was"):
        read([3], WINDOWS[0])


def test_a_damaged_tile_is_an_error(clip, tmp_path):
    codec = FORMATS["jpeg"](HEIGHT, WIDTH, 95)
    data = codec.encode(clip[0])
    for begin, end in ((24, 400), (0, 24)):
        path = tmp_path / "frames"
        broken = data[:begin] + b"\xff" * (end - begin) + data[end:]
        path.write_bytes(broken + np.array([len(data)], "<u8").tobytes())
        with path.open("rb") as file, pytest.raises(ClipError, match="damaged"):
            codec.read(file.fileno(), Place(0, len(data)), [0], WINDOWS[0])


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1)])
def test_codes_are_those_of_the_suites_own_colour(size):
    frame = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    rgb = torch.from_numpy(frame).permute(2, 0, 1) / 255
    codes = rgb8_to_codes(frame)
    for own, other in zip(codes, quantise(rgb_to_planes(rgb, "yuv420")), strict=True):
        assert own.shape == other.shape
        assert np.abs(own.astype(int) - other).max() <= 1
    back = codes_to_rgb8(tuple(plane[None] for plane in codes))[0]
    want = planes_to_rgb(dequantise(codes), "yuv420").mul(255).round()
    assert np.abs(back.astype(int) - want.permute(1, 2, 0).numpy()).max() <= 1


def test_grey_of_420_comes_back_as_it_was():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    back = codes_to_rgb8(tuple(plane[None] for plane in rgb8_to_codes(grey)))[0]
    assert np.abs(back.astype(int) - grey).max() <= 1
