"""Reading sequences: codes of raw files, images and containers, how many frames."""

from fractions import Fraction

import av
import numpy as np
import pytest

from datamodules.sequences.files import (
    VideoSequence,
    frames_to_read,
    read_codes,
    source_kind,
)
from datamodules.sequences.find import find_sequences
from datamodules.video_reader import VideoError


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


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 23), (11, 13)])
@pytest.mark.parametrize("suffix", [".yuv", ".y4m"])
def test_raw_files_of_any_size_give_their_own_codes(
    samples, tmp_path, height, width, suffix
):
    path = tmp_path / f"a_{width}x{height}_50{suffix}"
    write = samples.write_raw if suffix == ".yuv" else samples.write_y4m
    write(path, 2, height, width, 4)
    (sequence,) = find_sequences([str(path)])
    assert (sequence.height, sequence.width, sequence.frames) == (height, width, 4)
    assert sequence.fps == (50 if suffix == ".yuv" else 25)
    codes = list(read_codes(sequence, "yuv420"))
    assert [plane.dtype for plane in codes[0]] == [np.uint8] * 3
    assert len(codes) == 4
    for frame, planes in enumerate(codes):
        assert samples.same(planes, samples.codes_of(2, frame, height, width))
    for frame, planes in enumerate(read_codes(sequence, "rgb")):
        assert close(planes, rgb_of(samples.codes_of(2, frame, height, width)))


def test_a_y4m_with_words_on_its_frame_lines_gives_its_own_codes(samples, tmp_path):
    path = samples.write_y4m(tmp_path / "a.y4m", 1, 6, 6, 3)
    path.write_bytes(path.read_bytes().replace(b"FRAME\n", b"FRAME Ip\n"))
    (sequence,) = find_sequences([str(path)])
    assert sequence.frames is None
    codes = list(read_codes(sequence, "yuv420", 9))
    assert len(codes) == 3
    assert samples.same(codes[2], samples.codes_of(1, 2, 6, 6))
    assert len(list(read_codes(sequence, "rgb", 2))) == 2


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 23)])
def test_images_become_planes_by_the_full_range_matrix(
    samples, tmp_path, height, width
):
    path = samples.write_pngs(tmp_path / "clip_24fps", 0, height, width, 2)
    (sequence,) = find_sequences([str(path)])
    assert (sequence.set, sequence.name, sequence.fps) == ("clip_24fps",) * 2 + (24,)
    for frame, codes in enumerate(read_codes(sequence, "yuv420")):
        rgb = [samples.codes_of(i, frame, height, width)[0] for i in range(3)]
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
def test_a_source_that_ends_early_is_refused_at_the_frame(
    samples, tmp_path, suffix, colour
):
    path = tmp_path / f"a_12x10_25{suffix}"
    if suffix == ".yuv":
        samples.write_raw(path, 0, 10, 12, 5)
    elif suffix == ".y4m":
        samples.write_y4m(path, 0, 10, 12, 5)
    else:
        samples.write_pngs(path, 0, 10, 12, 5)
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
