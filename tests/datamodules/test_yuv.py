import io

import numpy as np
import pytest
import torch

from datamodules.writing import write_picture
from datamodules.yuv import (
    chroma_size,
    dequantise,
    planes_to_rgb,
    quantise,
    read_yuv420_frame,
    rgb_to_planes,
    rgb_to_yuv,
    yuv420_frame_size,
    yuv420_to_444,
    yuv444_to_420,
    yuv_to_rgb,
)

# ITU-R BT.709 written as a matrix with the decimals of the recommendation's own table.
FORWARD = np.array(
    [
        [0.2126, 0.7152, 0.0722],
        [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5],
        [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748],
    ]
)
CENTRE = np.array([0.0, 0.5, 0.5])


def test_both_directions_agree_with_the_inverted_matrix():
    rgb = torch.rand(2, 5, 3, 4, 7, dtype=torch.float64)
    pixels = rgb.movedim(-3, -1).numpy()
    yuv = pixels @ FORWARD.T + CENTRE
    back = (yuv - CENTRE) @ np.linalg.inv(FORWARD).T

    ours = rgb_to_yuv(rgb)
    np.testing.assert_allclose(ours.movedim(-3, -1).numpy(), yuv, atol=1e-12)
    np.testing.assert_allclose(
        yuv_to_rgb(ours).movedim(-3, -1).numpy(), back, atol=1e-12
    )
    torch.testing.assert_close(yuv_to_rgb(ours), rgb)


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [
        ((0, 0, 0), (0, 0.5, 0.5)),
        ((1, 1, 1), (1, 0.5, 0.5)),
        ((0.3, 0.3, 0.3), (0.3, 0.5, 0.5)),
        ((1, 0, 0), (0.2126, 0.5 - 0.2126 / 1.8556, 1.0)),
        ((0, 0, 1), (0.0722, 1.0, 0.5 - 0.0722 / 1.5748)),
        ((1, 1, 0), (0.9278, 0.0, 0.5 + 0.0722 / 1.5748)),
    ],
)
def test_known_colours_have_their_values(rgb, yuv):
    x = torch.tensor(rgb, dtype=torch.float32).reshape(3, 1, 1)
    torch.testing.assert_close(
        rgb_to_yuv(x).flatten(), torch.tensor(yuv, dtype=torch.float32)
    )


def test_gradients_flow_through_both_directions():
    x = torch.rand(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: yuv_to_rgb(rgb_to_yuv(t) ** 2), x)
    assert torch.autograd.gradcheck(lambda t: yuv444_to_420(t), x)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 6), (4, 7), (5, 7), (1, 1)])
def test_subsampling_averages_and_upsampling_repeats(height, width):
    x = torch.rand(2, 3, height, width)
    y, u, v = yuv444_to_420(x)
    assert torch.equal(y, x[:, 0])
    padded = np.pad(
        x.numpy(), ((0, 0), (0, 0), (0, height % 2), (0, width % 2)), mode="edge"
    )
    rows, columns = chroma_size(height, width)
    for plane, ours in ((1, u), (2, v)):
        assert ours.shape == (2, rows, columns)
        for i in range(rows):
            for j in range(columns):
                block = padded[:, plane, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                np.testing.assert_allclose(ours[:, i, j], block.mean((1, 2)), rtol=1e-6)

    up = yuv420_to_444(y, u, v)
    assert up.shape == x.shape
    assert torch.equal(up[:, 1, height - 1, width - 1], u[:, -1, -1])
    for ours, plane in zip(yuv444_to_420(up), (y, u, v), strict=True):
        torch.testing.assert_close(ours, plane)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7)])
def test_planes_of_either_colour_become_the_same_rgb(height, width):
    # Chroma that is constant over 2 x 2, so that nothing is lost.
    small = torch.rand(3, (height + 1) // 2, (width + 1) // 2, dtype=torch.float64)
    x = small.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]
    y, u, v = rgb_to_planes(x, "yuv420")
    assert y.shape == (height, width)
    assert u.shape == v.shape == chroma_size(height, width)
    pixels = (x.movedim(0, -1).numpy() @ FORWARD.T + CENTRE)[::2, ::2]
    for ours, theirs in zip(
        (y[::2, ::2], u, v), np.moveaxis(pixels, -1, 0), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    torch.testing.assert_close(planes_to_rgb((y, u, v), "yuv420"), x)

    r, g, b = rgb_to_planes(x, "rgb")
    assert torch.equal(torch.stack([r, g, b]), x)
    assert torch.equal(planes_to_rgb((r, g, b), "rgb"), x)


def test_rgb_of_planes_is_clamped():
    ends = (torch.tensor([[-0.1, 1.2]]),) * 3
    assert planes_to_rgb(ends, "rgb").tolist() == [[[0, 1]]] * 3
    wild = (torch.ones(2, 2), torch.ones(1, 1), torch.zeros(1, 1))
    rgb = planes_to_rgb(wild, "yuv420")
    assert rgb.min() >= 0 and rgb.max() == 1


@pytest.mark.parametrize("depth", [8, 10])
def test_a_written_frame_reads_back_exactly(depth):
    sample = "u1" if depth == 8 else "<u2"
    codes = [
        np.random.default_rng(i).integers(0, 2**depth, shape).astype(sample)
        for i, shape in enumerate([(5, 7), (3, 4), (3, 4)])
    ]
    file = io.BytesIO()
    write_picture(file, tuple(codes))
    assert file.tell() == yuv420_frame_size(5, 7, depth) == 59 * (1 + (depth > 8))
    file.seek(0)
    for ours, plane in zip(read_yuv420_frame(file, 5, 7, depth), codes, strict=True):
        np.testing.assert_array_equal(ours, plane)


def test_ten_bit_samples_are_little_endian_words():
    file = io.BytesIO()
    values = (0x0102, 1, 0x3FF)
    planes = tuple(torch.full((1, 1), value / 0x3FF) for value in values)
    write_picture(file, quantise(planes, 10))
    assert file.getvalue() == bytes([0x02, 0x01, 0x01, 0x00, 0xFF, 0x03])


def test_eight_bit_samples_are_not_taken_for_ten_bit_ones():
    whole = io.BytesIO(bytes(range(200, 248)))
    with pytest.raises(ValueError, match="more than 10 bits hold"):
        read_yuv420_frame(whole, 4, 4, 10)


def test_a_short_file_is_refused():
    with pytest.raises(ValueError, match=r"needs 24 bytes, 23 are left"):
        read_yuv420_frame(io.BytesIO(bytes(23)), 4, 4)


@pytest.mark.parametrize("depth", [7, 17])
def test_an_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=f"bit depth {depth}"):
        yuv420_frame_size(4, 4, depth)


@pytest.mark.parametrize("depth", [8, 10])
def test_every_code_survives_floats(depth):
    codes = np.arange(2**depth).reshape(1, -1)
    for plane in quantise(dequantise((codes, codes, codes), depth), depth):
        np.testing.assert_array_equal(plane, codes)


def test_chroma_is_rounded_like_luma():
    planes = tuple(torch.tensor([[100.6 / 255, -0.2, 1.3]]) for _ in range(3))
    for plane in quantise(planes):
        np.testing.assert_array_equal(plane, [[101, 0, 255]])


@pytest.mark.parametrize("depth", [8, 10])
def test_studio_range_ends_become_black_white_and_grey(depth):
    step = 2 ** (depth - 8)
    y = np.array([[16, 235]]) * step
    chroma = np.array([[128]]) * step
    planes = dequantise((y, chroma, chroma), depth, full_range=False)
    rgb = yuv_to_rgb(yuv420_to_444(*planes))
    torch.testing.assert_close(rgb, torch.tensor([0.0, 1.0]).expand(3, 1, 2))


def test_rgb_through_eight_bit_444_loses_less_than_two_codes():
    # Half a code of V weighs 1.5748, of U 1.8556, plus half a code of Y.
    rgb = torch.rand(3, 64, 64)
    coded = (rgb_to_yuv(rgb) * 255).round() / 255
    error = (yuv_to_rgb(coded) - rgb).abs().max() * 255
    assert 0.5 < error < 0.5 + 0.5 * 1.8556
