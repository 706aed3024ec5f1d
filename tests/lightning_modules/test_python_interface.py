"""Codecs from Python: what compress and decompress take, and what they refuse."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import lightning_modules
from lightning_modules import load_codec
from lightning_modules.bitstream import BitstreamReader, BitstreamWriter, StreamHeader
from lightning_modules.numerics import current


@pytest.fixture(scope="module")
def path(lively_module, save_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    return save_checkpoint(lively_module("UI2C"), folder / "last.ckpt")


@pytest.fixture(scope="module")
def codec(path):
    return load_codec(path)


@pytest.fixture(scope="module")
def clip(scene):
    return scene(4, 40, 56)


def test_what_users_import_is_named():
    for name in ("load_codec", "read_checkpoint", *lightning_modules.CODECS):
        assert name in lightning_modules.__all__
        assert getattr(lightning_modules, name) is not None


def test_a_clip_is_frames(codec, clip):
    packets = list(codec.compress(clip, 21))
    payloads = [packet.payload for packet in packets]
    assert payloads == [packet.payload for packet in codec.compress(list(clip), 21)]
    assert torch.stack(list(codec.decompress(packets, 40, 56))).shape == clip.shape


def test_a_file_that_is_written_is_read_back(codec, clip, tmp_path):
    height, width = clip.shape[-2:]
    header = StreamHeader(
        codec=type(codec).__name__,
        fingerprint=codec.fingerprint(),
        width=width,
        height=height,
        fps=Fraction(25),
        rate=21,
        numerics=current(),
    )
    with (tmp_path / "clip.lvc").open("wb") as file:
        writer = BitstreamWriter(file, header)
        for packet in codec.compress(clip, rate=21):
            writer.write(packet)
        writer.close()
    with (tmp_path / "clip.lvc").open("rb") as file:
        packets = BitstreamReader(file)
        decoded = torch.stack(list(codec.decompress(packets, height, width)))
    packets = codec.compress(clip, 21, reconstruct=True)
    assert torch.equal(decoded, torch.cat([packet.x_hat for packet in packets]))


NAN = torch.full((3, 40, 56), torch.nan)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 4, 3, 40, 56), r"shape \(4, 3, 40, 56\).* clips of a batch"),
        (torch.zeros(3, 40, 56), r"frame 0 has the shape \(40, 56\), it must be a ten"),
        (torch.zeros(2, 1, 40, 56), r"shape \(1, 40, 56\), it must be a tensor \(3, H"),
        (torch.zeros(2, 40, 56, 3), r"shape \(40, 56, 3\), it must"),
        (torch.zeros(2, 3, 0, 56), r"shape \(3, 0, 56\), it must"),
        (np.zeros((2, 40, 56, 3), np.uint8), r"type ndarray, .*torch.from_numpy"),
        (torch.zeros(2, 3, 40, 56, dtype=torch.uint8), r"dtype torch.uint8.*by 255"),
        (torch.full((2, 3, 40, 56), 255.0), "values from 255 to 255, .*divide"),
        (torch.full((2, 3, 40, 56), -0.01), "values from -0.01 to -0.01"),
        ([torch.zeros(3, 40, 56), NAN], "frame 1 has values from nan to nan"),
        ([torch.zeros(3, 40, 56), torch.zeros(3, 40, 57)], "frame 1 has 57x40 pixels"),
        ([], "there is no frame to code"),
        (torch.zeros(0, 3, 40, 56), "there is no frame to code"),
        ("video.mp4", "frame 0 is of type str"),
    ],
)
def test_what_are_no_frames_is_refused(codec, frames, message):
    with pytest.raises(ValueError, match=message):
        list(codec.compress(frames, 21))


@pytest.mark.parametrize("rate", ["21", None, torch.tensor(21), 64, float("nan")])
def test_what_is_no_rate_is_refused(codec, clip, rate):
    with pytest.raises(ValueError, match="qp is a number from 0"):
        list(codec.compress(clip, rate))


def test_numbers_may_be_numpys(codec, clip):
    packets = list(codec.compress(clip, np.float32(21)))
    assert packets == list(codec.compress(clip, 21))
    assert len(list(codec.decompress(packets, np.int64(40), np.int32(56)))) == 4


def test_what_are_no_packets_is_refused(codec, clip):
    packets = list(codec.compress(clip, 21))
    for side in (0, -1, 40.0, None, "40"):
        with pytest.raises(ValueError, match=r"height is .* packets do not say it"):
            list(codec.decompress(packets, side, 56))
        with pytest.raises(ValueError, match="width is"):
            list(codec.decompress(packets, 40, side))
    with pytest.raises(ValueError, match="decode with the same height and width"):
        list(codec.decompress(packets, 56, 40))
    payloads = [packet.payload for packet in packets]
    with pytest.raises(ValueError, match="packet 0 is of type bytes: decompress takes"):
        list(codec.decompress(payloads, 40, 56))
    with pytest.raises(TypeError, match="height"):
        list(codec.decompress(packets))
