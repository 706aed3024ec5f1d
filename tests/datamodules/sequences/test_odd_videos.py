"""Odd files: rates that are unknown or doubled, data without a name, strange names."""

import os
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from datamodules.frames import open_video
from datamodules.raw_video import RawVideo
from datamodules.sequences.files import read_codes
from datamodules.sequences.find import find_sequences
from datamodules.sources.folder import FolderSource
from datamodules.sources.index import examine
from datamodules.video_reader import VideoError


def write_y4m(path, rate, frames=2):
    head = f"YUV4MPEG2 W16 H12{rate} C420\n".encode()
    path.write_bytes(head + (b"FRAME\n" + bytes(16 * 12 * 3 // 2)) * frames)
    return path


@pytest.mark.parametrize("rate", [" F0:0", " F0:1", ""])
def test_a_y4m_of_unknown_rate_takes_a_given_one_or_its_name_s(tmp_path, rate):
    path = write_y4m(tmp_path / "a.y4m", rate)
    with open_video(path, fps=Fraction(50)) as video:
        assert (video.fps, len(list(video))) == (50, 2)
    for refused in (lambda: open_video(path), lambda: find_sequences([str(path)])):
        with pytest.raises(VideoError, match="name it like name_50fps"):
            refused()
    assert "2 frames" in FolderSource(tmp_path).describe()
    (sequence,) = find_sequences([str(write_y4m(tmp_path / "b_30fps.y4m", rate))])
    assert sequence.fps == 30
    assert len(list(read_codes(sequence, "yuv420"))) == 2


def test_an_absurd_y4m_costs_the_index_no_memory(tmp_path, monkeypatch):
    path = write_y4m(tmp_path / "a.y4m", " F25:1")
    path.write_bytes(path.read_bytes().replace(b"W16 H12", b"W65000 H65000"))
    monkeypatch.setattr(RawVideo, "codes", None)
    assert "shorter than one frame" in examine(path).error


def write_video_of(path, clock, format=None):
    """Write 12 frames, 25 a second, on a clock that may be finer."""
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream("libx264", rate=clock, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(12):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number * clock // 25, Fraction(1, clock)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy_to_avi(raw, path):
    """Copy packets, whose clock becomes the rate."""
    with av.open(str(raw)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.mark.parametrize("kind", ["encoded", "fields", "copied"])
def test_an_avi_has_the_rate_of_its_frames_and_not_of_its_clock(tmp_path, kind):
    path = tmp_path / "a.avi"
    if kind == "copied":
        copy_to_avi(write_video_of(tmp_path / "a.h264", 25, "h264"), path)
    else:
        write_video_of(path, 25 if kind == "encoded" else 50)
    with av.open(str(path)) as container:
        stated = container.streams.video[0].average_rate
        assert stated == 25 if kind == "encoded" else stated > 25
    with open_video(path) as video:
        assert (video.fps, len(list(video))) == (25, 12)
    (sequence,) = find_sequences([str(path)])
    assert (sequence.fps, sequence.frames) == (25, 12)
    assert (examine(path).fps, examine(path).frames) == (25, 12)


def test_data_that_pyav_cannot_name_is_no_obstacle(tmp_path):
    """EXIF in the frames of a MJPEG video, as cameras write it."""
    exif = bytes.fromhex(
        "ffe1 0022 457869660000 49492a0008000000 0100 12010300 01000000 01000000"
        "00000000".replace(" ", "")
    )
    _, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))
    frame = jpeg.tobytes()
    path = tmp_path / "a.mjpeg"
    path.write_bytes((frame[:2] + exif + frame[2:]) * 3)
    with open_video(path) as video:
        assert len(list(video)) == 3
    assert examine(path).frames == 3


NAMES = ["do$llar", "${HOME}", "~", "~root", "100%", "%05d", "a:b", "file:c", "a b"]
NAMES += ["new\nline", "-dash", "[1]", "st*r", "q?", "a=b", "a,b", "back\\slash", "é"]


def test_a_path_that_exists_is_that_whatever_signs_it_has(
    tmp_path, write_video, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    video = write_video(tmp_path / "v.mp4", 2).read_bytes()
    for name in NAMES:
        for path in (tmp_path / f"{name}.mp4", tmp_path / name / "clip.mp4"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(video)
    for name in NAMES:
        for spec in (f"{name}.mp4", name, str(tmp_path / name)):
            (sequence,) = find_sequences([spec])
            assert os.path.samefile(sequence.path, sequence.path.absolute())
            assert sequence.frames == 2
        assert len(FolderSource(name)) == 1
        with open_video(f"{name}.mp4") as frames:
            assert len(list(frames)) == 2


def test_roots_behind_an_equals_sign_may_have_any_name(
    samples, tmp_path, message, monkeypatch
):
    root = tmp_path / "do$llar=x"
    samples.write_hevc_d(root)
    assert len(find_sequences([f"hevc_d={root}"])) == 4
    monkeypatch.setenv("llar", "ctor")
    assert "there is no directory" in message(f"hevc_d={tmp_path}/do$llar")
    assert "there is no directory" in message("hevc_d=~nobody_of_this_name/x")
