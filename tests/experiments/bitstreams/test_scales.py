"""Some of a codec's scales: what a stream has of each, and what decode shows."""

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from experiments import decode
from experiments.bitstreams.files import StreamEncoder
from lightning_modules import load_codec
from lightning_modules.bitstream import BitstreamWriter, StreamHeader
from lightning_modules.numerics import current
from lightning_modules.packets import Packet


def test_a_frames_bits_are_those_of_its_scales(scaled):
    path = scaled.stream
    header, units = scaled.units_of(path)
    assert [unit.frames for unit in units] == [0, 0, 0, 1] * scaled.FRAMES
    for scale, bits in enumerate(scaled.coded.scale_bits):
        assert bits == [8 * scaled.framed(unit) for unit in units[scale::4]]
    assert scaled.coded.frame_bits == scaled.bits_of(scaled.coded)
    overhead = len(header.to_bytes()) + 1 + 1 + 4
    assert 8 * (scaled.coded.nbytes - overhead) == sum(scaled.coded.frame_bits)


def test_each_scale_changes_every_frame_and_all_of_them_are_the_whole(scaled):
    path = scaled.stream
    frames = {k: scaled.decoded(path, k) for k in (1, 2, 3, 4, None)}
    assert frames[4][1] == frames[None][1] == scaled.coded.digest
    assert len({digest for _, digest in frames.values()}) == 4
    for number in range(scaled.FRAMES):
        own = [frames[k][0][number] for k in (1, 2, 3, 4)]
        assert all(not torch.equal(a, b) for a, b in pairwise(own))


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_finer_packets_are_never_read(scaled, tmp_path, scales):
    header, units = scaled.units_of(scaled.stream)
    path = tmp_path / "damaged.lvc"
    with path.open("wb") as file:
        writer = BitstreamWriter(file, header)
        for number, unit in enumerate(units):
            noise = unit.payload
            if number % 4 >= scales:
                # Only what names the scale is left.
                noise = unit.payload[:1] + b"\x55" * 3
            writer.write(Packet(noise, unit.frames, unit.checksum))
        writer.close()
    assert scaled.decoded(path, scales)[1] == scaled.decoded(scaled.stream, scales)[1]
    with pytest.raises(ValueError):
        scaled.decoded(path, scales + 1)


def run_decode(checkpoint, stream, out, *more):
    options = ["--checkpoint", str(checkpoint), "--device=cpu", *more]
    return decode.main([str(stream), str(out), *options])


def test_decode_shows_some_scales_and_says_so(scaled, tmp_path, capsys):
    path = scaled.stream
    out = tmp_path / "preview"
    assert run_decode(scaled.checkpoint, path, out, "--scales", "2", "--hash") == 0
    line, digest = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"{out}: {scaled.FRAMES} frames of 64x64, 2 of 4 scales decoded, "
    )
    assert "bytes" not in line and "bpp" not in line
    frames, own = scaled.decoded(path, 2)
    assert digest == own
    shown = cv2.imread(str(sorted(out.iterdir())[1]))[..., ::-1]
    assert np.array_equal(shown, frames[1].permute(1, 2, 0).mul(255).round().numpy())


@pytest.mark.parametrize("scales", ["0", "5", "-1"])
def test_so_many_scales_as_there_are_not_are_refused(scaled, tmp_path, capsys, scales):
    out = tmp_path / "out.y4m"
    assert run_decode(scaled.checkpoint, scaled.stream, out, f"--scales={scales}") == 2
    error = capsys.readouterr().err
    assert f"error: {scales} scales: there are 1 to 4" in error
    assert not out.exists()


def encode(codec, path):
    header = StreamHeader(
        codec=type(codec).__name__,
        fingerprint=codec.fingerprint(),
        width=64,
        height=64,
        fps=Fraction(25),
        rate=codec.rate_knob.points[0],
        numerics=current(),
    )
    StreamEncoder(codec, header, torch.rand(1, 3, 64, 64), path).run()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("ui2c", "UI2C has no scales"),
        ("auxiliary", "with an auxiliary path"),
    ],
)
def test_codecs_whose_scales_need_each_other_are_refused(
    checkpoint, scaled, evaluate, name, named, tmp_path, capsys
):
    path, stream, out = checkpoint(name), tmp_path / "s.lvc", tmp_path / "out.y4m"
    encode(load_codec(path), stream)
    assert run_decode(path, stream, out, "--scales=1") == 2
    assert named in capsys.readouterr().err
    assert not out.exists()
    output = tmp_path / "r.json"
    assert evaluate(path, scaled.clips, output, "--scales", "1") == 2
    assert named in capsys.readouterr().err
    assert not output.exists()
