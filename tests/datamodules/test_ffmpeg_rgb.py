"""4:2:0 as FFmpeg makes PNGs of it, beside the arithmetic and FFmpeg's own reading."""

import av
import numpy as np
import pytest

from datamodules.ffmpeg_rgb import convert_as_ffmpeg
from datamodules.frames import open_video
from datamodules.sequences.files import read_codes
from datamodules.sequences.find import find_sequences
from datamodules.video_reader import VideoError
from datamodules.yuv import dequantise, planes_to_rgb


def noise(height, width):
    draw = np.random.default_rng(height * width)
    small = ((height + 1) // 2, (width + 1) // 2)
    shapes = ((height, width), small, small)
    return tuple(draw.integers(0, 256, shape, np.uint8) for shape in shapes)


def bt601(codes, full_range):
    """ITU-R BT.601 with repeated chroma, 0..255; neither the suite's nor FFmpeg's."""
    y, u, v = (plane.astype(np.float64) for plane in codes)
    u, v = (np.kron(p, np.ones((2, 2)))[: y.shape[0], : y.shape[1]] for p in (u, v))
    luma, scale = (y / 255, 255) if full_range else ((y - 16) / 219, 224)
    u, v = (u - 128) / scale, (v - 128) / scale
    green = luma - (0.299 * 1.402 * v + 0.114 * 1.772 * u) / 0.587
    return np.clip([luma + 1.402 * v, green, luma + 1.772 * u], 0, 1) * 255


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("size", [(16, 24), (18, 22), (17, 23), (1, 1), (270, 480)])
def test_it_is_bt601_a_code_too_dark(size, full_range):
    codes = noise(*size)
    rgb = convert_as_ffmpeg(codes, full_range=full_range)
    assert rgb.shape == (3, *size)
    off = bt601(codes, full_range) - rgb.mul(255).numpy()
    assert np.abs(off).max() < 3 and -0.5 < off.mean() < 1.5


def test_a_raw_file_becomes_what_ffmpeg_shows_of_a_container_without_tags(tmp_path):
    frames = [noise(48, 64), tuple(plane[::-1] for plane in noise(48, 64))]
    raw, container = tmp_path / "a_64x48_25.yuv", tmp_path / "a.nut"
    raw.write_bytes(b"".join(p.tobytes() for frame in frames for p in frame))
    with av.open(str(container), "w") as file:
        stream = file.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames:
            flat = np.concatenate([plane.ravel() for plane in frame])
            picture = av.VideoFrame.from_ndarray(flat.reshape(72, 64), "yuv420p")
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    with av.open(str(container)) as file:
        shown = [f.reformat(format="rgb24").to_ndarray() for f in file.decode(video=0)]
    (sequence,) = find_sequences([str(raw)])
    read = list(read_codes(sequence, "rgb", yuv_as="ffmpeg"))
    assert len(read) == len(shown) == 2
    for codes, picture in zip(read, shown, strict=True):
        assert np.array_equal(np.stack(codes, -1), picture)
    full709 = next(read_codes(sequence, "rgb"))
    assert np.abs(np.stack(full709, -1).astype(int) - shown[0]).mean() > 5


@pytest.mark.parametrize(
    ("tag", "full_range"),
    [("", False), (" XCOLORRANGE=LIMITED", False), (" XCOLORRANGE=FULL", True)],
)
def test_a_y4m_has_the_range_that_it_states(tmp_path, tag, full_range):
    codes = noise(6, 8)
    path = tmp_path / "a.y4m"
    header = f"YUV4MPEG2 W8 H6 F25:1 C420jpeg{tag}\nFRAME\n".encode()
    path.write_bytes(header + b"".join(plane.tobytes() for plane in codes))
    with open_video(path, yuv_as="ffmpeg") as video:
        (frame,) = video
    assert frame.equal(convert_as_ffmpeg(codes, full_range=full_range))


def test_decoded_video_loses_a_decibel_by_the_limited_range():
    # As much error as a coder leaves, on a video that has no extremes.
    draw = np.random.default_rng(0)
    source = tuple(p // 4 + 96 for p in noise(96, 96))
    decoded = tuple(
        (p + draw.integers(-4, 5, p.shape)).astype(np.uint8) for p in source
    )

    def psnr(convert):
        a, b = (convert(codes).mul(255).round().double() for codes in (source, decoded))
        return 10 * np.log10(255**2 / float((a - b).square().mean()))

    full709 = psnr(lambda codes: planes_to_rgb(dequantise(codes), "yuv420"))
    ffmpeg = psnr(lambda codes: convert_as_ffmpeg(codes, full_range=False))
    assert full709 - ffmpeg == pytest.approx(20 * np.log10(255 / 219), abs=0.35)


def test_more_than_8_bits_are_refused(tmp_path):
    path = tmp_path / "a.yuv"
    path.write_bytes(bytes(2 * 6))
    with pytest.raises(VideoError, match=r"a\.yuv has 10 bits, but only 8"):
        open_video(path, size=(2, 2), fps=25, depth=10, yuv_as="ffmpeg")
