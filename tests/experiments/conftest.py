"""What tests of several commands share: checkpoints, videos, and errors."""

from fractions import Fraction
from functools import cache

import pytest

from datamodules.writing import create_video

CODECS = {
    "ui2c": ("UI2C", {}),
    "dhvc": ("DHVC", {"auxiliary": False}),
    "auxiliary": ("DHVC", {"auxiliary": True}),
    "video_vae": (
        "VideoVAE",
        {"backbone": "lean_vae", "frames_per_unit": 5, "lpips": "random"},
    ),
    "dual_domain": ("DualDomain", {"numeric": "float32", "mode_decision": "inter"}),
}


@pytest.fixture(scope="session")
def checkpoint(lively_module, save_checkpoint, tmp_path_factory):
    """Return a tiny codec's checkpoint by name; each is written once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def of(name):
        codec, arguments = CODECS[name]
        return save_checkpoint(
            lively_module(codec, **arguments), folder / f"{name}.ckpt"
        )

    return of


@pytest.fixture(scope="session")
def make_video(scene, tmp_path_factory):
    """Return a folder of 64x64 images by their number; each is written once."""

    @cache
    def of(frames):
        path = tmp_path_factory.mktemp("video") / "clip"
        with create_video(path, 64, 64, Fraction(25)) as append:
            for frame in scene(frames, 64, 64):
                append(frame)
        return path

    return of


@pytest.fixture
def only_error(capsys):
    """Return the one line on stderr, which is an error."""

    def read():
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return read
