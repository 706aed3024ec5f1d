from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from datamodules.frames import open_video
from datamodules.raw_video import read_y4m
from datamodules.sources.index import examine
from datamodules.sources.pyav_reader import PyAvReader
from datamodules.video_reader import VideoError
from datamodules.writing import create_video
from datamodules.yuv import yuv420_frame_size

FPS = Fraction(30000, 1001)


def scene(frames=5, height=48, width=64):
    """Smooth colours that differ in every frame, so that codecs keep them well."""
    rows = torch.linspace(0.2, 0.8, height).reshape(-1, 1).expand(height, width)
    columns = torch.linspace(0.3, 0.7, width).expand(height, width)
    return [
        torch.stack([rows, columns, torch.full((height, width), 0.1 + 0.1 * t)])
        for t in range(frames)
    ]


def noise(frames):
    """What no codec predicts, so that any damage is seen."""
    return list(torch.rand(frames, 3, 64, 64, generator=torch.manual_seed(0)))


def write(path, frames, **options):
    with create_video(path, *frames[0].shape[:0:-1], FPS, **options) as append:
        for frame in frames:
            append(frame)
    return path


def read(path, **options):
    with open_video(path, **options) as video:
        return list(video)


def worst(frames, others):
    pairs = zip(frames, others, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs) * 255


def test_a_png_directory_keeps_eight_bit_colours_exactly(tmp_path):
    frames = [torch.randint(0, 256, (3, 5, 7)) / 255 for _ in range(11)]
    path = write(tmp_path / "frames", frames)
    assert sorted(p.name for p in path.iterdir())[-1] == "im00011.png"
    with open_video(path) as video:
        assert (video.width, video.height, video.frames) == (7, 5, 11)
        assert worst(video, frames) == 0


def test_images_are_sorted_as_people_count(tmp_path):
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), np.full((2, 2, 3), number))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._f1.png").write_text("what another system leaves")
    values = [round(frame[0, 0, 0].item() * 255) for frame in read(tmp_path)]
    assert values == [1, 2, 10]


def test_one_sixteen_bit_image_is_a_video_of_one_frame(tmp_path):
    pixels = np.array([[[1, 300, 65535]]], dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "one.png"), pixels[..., ::-1])
    (frame,) = read(tmp_path / "one.png")
    torch.testing.assert_close(frame.flatten() * 65535, torch.tensor([1, 300.0, 65535]))


@pytest.mark.parametrize("name", ["v.yuv", "v.y4m"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
@pytest.mark.parametrize(("depth", "bound"), [(8, 4.0), (10, 2.5)])
def test_raw_video_round_trips(tmp_path, name, height, width, depth, bound):
    frames = scene(3, height, width)
    path = write(tmp_path / name, frames, depth=depth)
    size = (height, width)
    options = {} if name == "v.y4m" else {"size": size, "fps": FPS, "depth": depth}
    with open_video(path, **options) as video:
        assert (video.height, video.width, video.fps) == (*size, FPS)
        assert video.frames == 3
        decoded = list(video)
    assert worst(decoded, frames) < bound
    again = write(tmp_path / f"again{path.suffix}", decoded, depth=depth)
    # Chroma that is already constant over 2 x 2 loses no more than rounding.
    assert worst(read(again, **options), decoded) < 1.5


def test_a_grey_ramp_survives_raw_video_within_rounding(tmp_path):
    ramp = torch.arange(256).reshape(1, 1, 256).expand(3, 2, 256) / 255
    decoded = read(write(tmp_path / "v.y4m", [ramp]))
    assert worst(decoded, [ramp]) <= 1


def test_raw_samples_are_read_as_full_range(tmp_path):
    path = tmp_path / "v.yuv"
    path.write_bytes(bytes([0, 255, 100, 100, 128, 128]))
    (frame,) = read(path, size=(2, 2), fps=FPS)
    luma = 0.2126 * frame[0] + 0.7152 * frame[1] + 0.0722 * frame[2]
    torch.testing.assert_close(
        luma[1], torch.tensor([100 / 255] * 2), atol=1e-5, rtol=0
    )
    assert frame[:, 0, 0].max() < 0.01
    assert frame[:, 0, 1].min() > 0.99


def test_a_y4m_of_studio_range_is_stretched(tmp_path):
    samples = bytes([16, 235, 16, 235, 128, 128])
    for tags, white in ((b" XCOLORRANGE=LIMITED", 1.0), (b"", 235 / 255)):
        path = tmp_path / "v.y4m"
        path.write_bytes(b"YUV4MPEG2 W2 H2 F25:1" + tags + b"\nFRAME\n" + samples)
        (frame,) = read(path)
        torch.testing.assert_close(
            frame[:, 0, 1], torch.full((3,), white), atol=0.005, rtol=0
        )


@pytest.mark.parametrize(("depth", "layout"), [(8, "420mpeg2"), (10, "420p10")])
def test_a_y4m_gives_the_integers_that_it_holds(tmp_path, depth, layout):
    path = tmp_path / "v.y4m"
    kind = np.uint8 if depth == 8 else np.dtype("<u2")
    raw = [np.arange(t, 59 + t).astype(kind).tobytes() for t in range(3)]
    head = f"YUV4MPEG2 W7 H5 F30000:1001 C{layout} XCOLORRANGE=LIMITED\n".encode()
    path.write_bytes(head + b"".join(b"FRAME Ip\n" + frame for frame in raw))
    header = read_y4m(path)
    frames = list(header.codes())
    assert (header.width, header.height, header.fps) == (7, 5, FPS)
    assert (header.depth, header.full_range) == (depth, False)
    assert header.header_bytes == len(head)
    assert header.frame_bytes == len(b"FRAME\n") + len(raw[0])
    assert [b"".join(p.tobytes() for p in frame) for frame in frames] == raw
    assert [plane.shape for plane in frames[0]] == [(5, 7), (3, 4), (3, 4)]


def test_y4m_agrees_with_another_writer_and_reader(tmp_path):
    planes = np.random.default_rng(0).integers(0, 256, (72, 64), dtype=np.uint8)
    with av.open(str(tmp_path / "theirs.y4m"), "w", format="yuv4mpegpipe") as file:
        stream = file.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    content = (tmp_path / "theirs.y4m").read_bytes()
    header, raw = content.split(b"FRAME\n", 1)
    assert raw == planes.tobytes()
    full = header.replace(b"LIMITED", b"FULL").split(b"\n")[0] + b"\n"
    (tmp_path / "theirs.y4m").write_bytes(full + b"FRAME\n" + raw)
    (tmp_path / "v.yuv").write_bytes(raw)
    ours = read(tmp_path / "theirs.y4m")
    assert worst(ours, read(tmp_path / "v.yuv", size=(48, 64), fps=FPS)) == 0

    path = write(tmp_path / "ours.y4m", ours)
    with av.open(str(path)) as file:
        (frame,) = file.decode(video=0)
        stored = path.read_bytes().split(b"FRAME\n", 1)[1]
        assert frame.to_ndarray().tobytes() == stored


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
def test_container_video_is_visually_lossless(tmp_path, name, height, width):
    frames = scene(5, height, width)
    with open_video(write(tmp_path / name, frames)) as video:
        assert (video.height, video.width, video.fps) == (height, width, FPS)
        assert video.frames in (5, None)
        decoded = list(video)
    assert len(decoded) == 5
    assert decoded[0].dtype == torch.float32
    error = torch.stack(decoded) - torch.stack(frames)
    assert error.square().mean().sqrt() * 255 < 2
    # A wrong matrix or range shifts colours, coding noise does not.
    assert error.mean(dim=(0, 2, 3)).abs().max() * 255 < 0.6


@pytest.mark.parametrize(
    ("tag", "kr", "kb"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (2, 0.299, 0.114)]
)
@pytest.mark.parametrize("full_range", [False, True])
def test_container_colour_follows_the_files_tags(tmp_path, tag, kr, kb, full_range):
    y, u, v = 120, 100, 150
    planes = np.concatenate([np.full(1024, y), np.full(256, u), np.full(256, v)])
    planes = planes.astype(np.uint8).reshape(48, 32)
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full_range else 1
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace, frame.color_range = tag, 2 if full_range else 1
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    luma = y / 255 if full_range else (y - 16) / 219
    scale = 255 if full_range else 224
    red = luma + 2 * (1 - kr) * (v - 128) / scale
    blue = luma + 2 * (1 - kb) * (u - 128) / scale
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    (decoded,) = read(path)
    expected = torch.tensor([red, green, blue]).reshape(3, 1, 1).expand(3, 32, 32)
    assert worst([decoded], [expected]) < 0.6


def test_x264_chooses_its_own_picture_types(tmp_path):
    path = write(tmp_path / "v.mp4", scene(9))
    with av.open(str(path)) as file:
        assert sum(frame.key_frame for frame in file.decode(video=0)) < 9


def test_max_frames_and_fps_can_be_given(tmp_path):
    path = write(tmp_path / "v.mkv", scene(5))
    with open_video(path, max_frames=2, fps=Fraction(10)) as video:
        assert video.fps == 10
        assert len(list(video)) == 2
    with open_video(write(tmp_path / "v.y4m", scene(5)), max_frames=9) as video:
        assert video.frames == 5
        assert len(list(video)) == 5


def broken(kind, path):
    """Make the file or directory of one way in which reading fails."""
    raw = bytes(yuv420_frame_size(4, 4))
    y4m = b"YUV4MPEG2 W4 H4 F25:1 C420\n"
    if kind == "missing":
        return path / "no.mp4", "there is no file"
    if kind == "no video":
        (path / "v.mp4").write_bytes(b"hello" * 100)
        return path / "v.mp4", "cannot be opened"
    if kind == "empty":
        (path / "v.mkv").write_bytes(b"")
        return path / "v.mkv", "cannot be opened"
    if kind == "empty directory":
        return path, "holds no"
    if kind == "empty raw":
        (path / "v.yuv").write_bytes(b"")
        return path / "v.yuv", "holds no frame"
    if kind == "truncated raw":
        (path / "v.yuv").write_bytes(raw * 2 + b"x")
        return path / "v.yuv", "49 bytes.*2 frames would be 48 bytes"
    if kind == "truncated y4m":
        (path / "v.y4m").write_bytes(
            y4m + (b"FRAME\n" + raw) * 2 + b"FRAME\n" + raw[1:]
        )
        return path / "v.y4m", "frame 2 .*needs 24 bytes, 23 are left"
    if kind == "y4m without FRAME":
        (path / "v.y4m").write_bytes(y4m + (b"FRAMED" + raw) * 2)
        return path / "v.y4m", "no FRAME line"
    if kind == "y4m of 4:4:4":
        (path / "v.y4m").write_bytes(y4m.replace(b"C420", b"C444") + raw * 9)
        return path / "v.y4m", "C444, only 4:2:0"
    if kind == "absurd y4m":
        (path / "v.y4m").write_bytes(y4m.replace(b"W4", b"W999999999999") + raw)
        return path / "v.y4m", "W and H in .* must be 1 to 65535"
    if kind == "short y4m":
        (path / "v.y4m").write_bytes(y4m.replace(b"W4", b"W65535") + raw)
        return path / "v.y4m", "shorter than one frame"
    if kind == "y4m of no rate":
        (path / "v.y4m").write_bytes(y4m.replace(b"25:1", b"25:0") + raw)
        return path / "v.y4m", "W, H or F"
    if kind == "other size":
        write(path / "frames", scene(2, 8, 8))
        write(path / "other", scene(1, 8, 6))
        (path / "other" / "im00001.png").rename(path / "frames" / "im00003.png")
        return path / "frames", "frame 2 .*6x8.*8x8"
    if kind == "truncated image":
        write(path / "frames", [torch.rand(3, 64, 64)] * 2)
        image = path / "frames" / "im00002.png"
        image.write_bytes(image.read_bytes()[:5000])
        return path / "frames", "frame 1 .*im00002.png cannot be decoded"
    movie = write(path / "v.mkv", noise(30))
    content = bytearray(movie.read_bytes())
    if kind == "truncated mkv":
        movie.write_bytes(content[: len(content) * 6 // 10])
        return movie, "truncated"
    assert kind == "damaged mkv"
    for position in range(len(content) // 2, len(content) * 3 // 4, 53):
        content[position] ^= 0x55
    movie.write_bytes(content)
    return movie, r"frame \d+ \(from 0\)"


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "no video",
        "empty",
        "empty directory",
        "empty raw",
        "truncated raw",
        "truncated y4m",
        "y4m without FRAME",
        "y4m of 4:4:4",
        "absurd y4m",
        "short y4m",
        "y4m of no rate",
        "other size",
        "truncated image",
        "truncated mkv",
        "damaged mkv",
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, kind):
    path, message = broken(kind, tmp_path)
    options = {"size": (4, 4), "fps": FPS} if path.suffix == ".yuv" else {}
    with pytest.raises(VideoError, match=message) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)


def test_a_truncated_mp4_is_refused(tmp_path):
    path = write(tmp_path / "v.mp4", noise(30))
    # Moving the index to the front, as for streaming, hides the truncation.
    front = tmp_path / "front.mp4"
    options = {"movflags": "faststart"}
    with av.open(str(path)) as file, av.open(str(front), "w", options=options) as out:
        stream = out.add_stream_from_template(file.streams.video[0])
        for packet in file.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert len(read(front)) == 30
    front.write_bytes(front.read_bytes()[: front.stat().st_size * 6 // 10])
    with pytest.raises(VideoError, match="is truncated"):
        read(front)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give both"),
        ({"size": (4, 4)}, "give both"),
        ({"size": (4, 0), "fps": FPS}, "size 0x4"),
        ({"size": (4, 4), "fps": Fraction(-1)}, "fps is -1"),
        ({"size": (4, 4), "fps": FPS, "depth": 4}, "bit depth 4"),
        ({"size": (4, 4), "fps": FPS, "max_frames": 0}, "max_frames is 0"),
    ],
)
def test_a_raw_file_needs_sensible_options(tmp_path, options, message):
    (tmp_path / "v.yuv").write_bytes(bytes(24))
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "v.yuv", **options)


def test_a_depth_that_the_file_says_itself_is_refused(tmp_path):
    path = write(tmp_path / "v.y4m", scene(1))
    with pytest.raises(VideoError, match=r"depth is 10, but only a raw \.yuv"):
        read(path, depth=10)


def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("12:30.mp4"), scene(2))
    assert len(read(Path("12:30.mp4"))) == 2
    assert examine(Path("12:30.mp4")).frames == 2
    assert len(list(PyAvReader(Path("12:30.mp4")).blocks([0, 1]))) == 2


def test_a_size_that_is_not_the_files_is_refused(tmp_path):
    path = write(tmp_path / "v.y4m", scene(1))
    with pytest.raises(VideoError, match="is 64x48, not the 48x64"):
        read(path, size=(64, 48))


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.y4m", "v.yuv", "frames"])
def test_an_exception_leaves_nothing_behind(tmp_path, name):
    frames = scene(3)
    with (
        pytest.raises(KeyboardInterrupt),
        create_video(tmp_path / name, 64, 48, FPS) as append,
    ):
        for frame in frames:
            append(frame)
        assert not (tmp_path / name).exists()
        assert len(list(tmp_path.iterdir())) <= 1  # x264 may hold its first frames
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_survives_a_failure_and_is_replaced_by_success(tmp_path):
    path = tmp_path / "v.y4m"
    path.write_text("old")
    with pytest.raises(VideoError, match=r"frame 0 has shape \(3, 4, 4\)"):
        with create_video(path, 64, 48, FPS) as append:
            append(torch.zeros(3, 4, 4))
    assert path.read_text() == "old"
    write(path, scene(1))
    assert len(read(path)) == 1


def test_a_video_without_frames_is_not_written(tmp_path):
    with pytest.raises(VideoError, match="no frame"):
        with create_video(tmp_path / "v.yuv", 64, 48, FPS):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("v.gif", {}, r"must be .y4m, .yuv, .mp4, .mkv, or none"),
        ("v.mp4", {"depth": 10}, "10 bits"),
        ("no/v.mp4", {}, "is no directory"),
        ("full", {}, "not empty"),
        ("full/precious.txt/frames", {}, "is no directory"),
        ("file", {}, "is no directory"),
        ("v.y4m", {"depth": 30}, "bit depth 30"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, options, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").touch()
    (tmp_path / "file").touch()
    with pytest.raises((ValueError, OSError), match=message):
        write(tmp_path / name, scene(1), **options)
    left = sorted(p.name for p in tmp_path.rglob("*"))
    assert left == ["file", "full", "precious.txt"]
