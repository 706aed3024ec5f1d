"""A folder of small videos, some of several shots, and the command on it."""

import av
import cv2
import numpy as np
import pytest

from experiments.prepare.command import main

SHOTS = {"a.mp4": (9,), "b/b.mkv": (8, 12), "c.mp4": (10, 3, 9), "d.webm": (7,)}
"""Frames of each shot."""
SIZES = {"a.mp4": (48, 64), "b/b.mkv": (50, 66), "c.mp4": (48, 64), "d.webm": (72, 96)}
CODECS = {".mp4": "libx264", ".mkv": "ffv1", ".webm": "libvpx"}


def scene(seed, frames, size):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 12, 3), np.uint8)
    height, width = size
    wide = cv2.resize(coarse, (width + 2 * frames, height))
    return [wide[:, 2 * t : 2 * t + width].copy() for t in range(frames)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def clips(once):
    def fill(root):
        for number, (name, shots) in enumerate(SHOTS.items()):
            path = root / name
            path.parent.mkdir(exist_ok=True)
            with av.open(str(path), "w") as container:
                stream = container.add_stream(CODECS[path.suffix], rate=25)
                stream.height, stream.width = SIZES[name]
                stream.pix_fmt = "yuv420p"
                for shot, frames in enumerate(shots):
                    for picture in scene(10 * number + shot, frames, SIZES[name]):
                        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                        container.mux(stream.encode(frame))
                container.mux(stream.encode())

    return once("clips_to_prepare", fill)


@pytest.fixture
def prepare(clips, tmp_path):
    """Prepare the clips; return the exit code."""

    def run(*options, videos=clips, store=tmp_path / "store"):
        return main([str(videos), str(store), *map(str, options)])

    return run


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"
