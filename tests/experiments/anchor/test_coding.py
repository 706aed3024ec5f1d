"""What anchors code: bytes, quality, and the pictures that encoders are given."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from experiments.anchor.coders import make_coder
from experiments.anchor.pictures import PIXEL_FORMATS, from_samples, to_samples
from experiments.anchor.settings import load_preset


@pytest.mark.parametrize("colour", ["yuv420", "rgb"])
def test_bytes_are_those_of_the_file_and_of_its_frames(anchor, tmp_path, colour, pyav):
    codec, preset, rate = pyav
    coder = anchor.coder_of(codec, preset)
    cost, decoded = anchor.code(coder, tmp_path, rate, colour=colour)
    (path,) = tmp_path.iterdir()
    assert path.name == f"stream{coder.preset.run['suffix']}"
    assert cost.nbytes == path.stat().st_size
    assert len(cost.frame_bits) == len(decoded) == anchor.FRAMES
    assert 0 <= 8 * cost.nbytes - sum(cost.frame_bits) < 800
    assert cost.frame_bits[0] == max(cost.frame_bits)
    assert anchor.psnr(anchor.scene(colour), decoded) > 27
    assert cost.seconds["encode"] > 0 and cost.seconds["decode"] > 0


def test_a_higher_qp_costs_less_and_looks_worse(anchor, tmp_path, pyav):
    codec, preset, rate = pyav
    points = []
    for number, value in enumerate((rate - 12, rate, rate + 12)):
        folder = tmp_path / str(number)
        folder.mkdir()
        cost, decoded = anchor.code(anchor.coder_of(codec, preset), folder, value)
        points.append((cost.nbytes, anchor.psnr(anchor.scene(), decoded)))
    assert points == sorted(points, reverse=True)
    assert points[0][1] - points[2][1] > 3


def test_a_second_run_gives_the_same_bytes(anchor, tmp_path, pyav):
    codec, preset, rate = pyav
    files = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        # As a worker gets it.
        coder = pickle.loads(pickle.dumps(anchor.coder_of(codec, preset)))
        anchor.code(coder, folder, rate)
        files.append(next(folder.iterdir()).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_encoders_do_not_sign_their_files(anchor, tmp_path, codec):
    anchor.code(anchor.coder_of(codec, "ldp_medium"), tmp_path, 27)
    (path,) = tmp_path.iterdir()
    assert codec.encode() not in path.read_bytes()


def test_x264_at_qp_zero_is_lossless(anchor, tmp_path):
    _, decoded = anchor.code(anchor.coder_of("x264"), tmp_path, 0)
    for frame, planes in zip(anchor.scene(), decoded, strict=True):
        for plane, other in zip(frame, planes, strict=True):
            assert np.array_equal(plane, (other * 255).numpy())


def test_the_same_qp_is_the_same_step_at_eight_and_ten_bits(anchor, tmp_path):
    codes = anchor.scene()
    results = []
    for name, formats in (("8", {}), ("10", {"yuv420": "yuv420p10le"})):
        preset = load_preset("x264", "ldp_medium")
        formats = {**preset.pixel_formats, **formats}
        preset = replace(preset, pixel_formats=formats)
        (tmp_path / name).mkdir()
        coder = make_coder(preset, "qp", -1, name="anchor")
        cost, decoded = anchor.code(coder, tmp_path / name, 27, codes)
        results.append((cost.nbytes, anchor.psnr(codes, decoded)))
    assert results[1][0] == pytest.approx(results[0][0], rel=0.1)
    assert results[1][1] == pytest.approx(results[0][1], abs=0.5)


@pytest.mark.parametrize("colour", ["yuv420", "rgb"])
def test_odd_sizes_are_padded_and_cut_again(anchor, tmp_path, colour, pyav):
    codec, preset, _ = pyav
    codes = anchor.scene(colour, 47, 63)
    _, decoded = anchor.code(
        anchor.coder_of(codec, preset), tmp_path, 20, codes, colour
    )
    assert [p.shape for p in decoded[0]] == [p.shape for p in codes[0]]
    assert anchor.psnr(codes, decoded) > 29


def test_ten_bit_pictures_hold_eight_bit_frames_exactly():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    codes = (values, values[:8, :8], values[8:, 8:])
    samples = to_samples(codes, "yuv420", PIXEL_FORMATS["yuv420p10le"])
    assert np.array_equal(samples[0], values.astype(int) * 4)
    planes = from_samples(samples, "yuv420", PIXEL_FORMATS["yuv420p10le"], 16, 16)
    for plane, code_plane in zip(planes, codes, strict=True):
        assert np.array_equal((plane * 255).round().numpy(), code_plane)


def test_ten_bit_444_keeps_every_rgb_colour():
    generator = np.random.default_rng(0)
    codes = tuple(generator.integers(0, 256, (64, 64), dtype=np.uint8) for _ in "rgb")
    samples = to_samples(codes, "rgb", PIXEL_FORMATS["yuv444p10le"])
    planes = from_samples(samples, "rgb", PIXEL_FORMATS["yuv444p10le"], 64, 64)
    for plane, code_plane in zip(planes, codes, strict=True):
        assert np.array_equal((plane * 255).round().numpy(), code_plane)
    # The matrix is BT.709's, over the full range.
    r, g, b = (plane.astype(float) / 255 for plane in codes)
    luma = np.round(1023 * (0.2126 * r + 0.7152 * g + 0.0722 * b))
    assert np.abs(samples[0] - luma).max() <= 1


def test_rgb_without_444_is_subsampled_and_comes_back_smooth():
    codes = tuple(np.full((6, 8), value, dtype=np.uint8) for value in (200, 90, 30))
    pixel_format = PIXEL_FORMATS["yuv420p10le"]
    samples = to_samples(codes, "rgb", pixel_format)
    assert [s.shape for s in samples] == pixel_format.shapes(6, 8)
    planes = from_samples(samples, "rgb", pixel_format, 6, 8)
    for plane, code_plane in zip(planes, codes, strict=True):
        assert np.array_equal((plane * 255).round().numpy(), code_plane)


def test_420_frames_are_not_coded_as_444(anchor):
    with pytest.raises(ValueError, match=r"not coded as yuv444p10le"):
        to_samples(anchor.scene()[0], "yuv420", PIXEL_FORMATS["yuv444p10le"])


def test_encoders_leave_the_priority_of_the_process_alone(anchor, tmp_path):
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    anchor.code(anchor.coder_of("av1", "ld_preset8"), tmp_path, 40)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_crf_may_be_fractional(anchor, tmp_path):
    cost, _ = anchor.code(anchor.coder_of("x264", "dvc_era", "crf"), tmp_path, 23.5)
    assert cost.nbytes > 100
