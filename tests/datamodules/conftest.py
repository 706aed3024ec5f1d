"""Videos of one grey level a frame, and what an index of a folder does with them."""

import os
from contextlib import contextmanager

import av
import numpy as np
import pytest

from datamodules.sources import index


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def write_video():
    """Write a video; every frame has one grey level, which says its number."""

    def write(path, frames=24, size=(48, 64), codec="libx264", **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            stream.options = {"g": "8", **options}
            for number in range(frames):
                image = np.full((*size, 3), 20 + 4 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def examined(monkeypatch):
    """The names of the videos that an index had to open."""
    names = []
    examine = index.examine
    monkeypatch.setattr(
        index, "examine", lambda path: names.append(path.name) or examine(path)
    )
    return names


@pytest.fixture
def read_only(monkeypatch):
    """Refuse to write an index into a directory, while in the context."""
    replace = os.replace

    @contextmanager
    def without_writing(root):
        def refuse(part, path):
            if path.parent == root:
                raise PermissionError("read-only")
            replace(part, path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            yield

    return without_writing
