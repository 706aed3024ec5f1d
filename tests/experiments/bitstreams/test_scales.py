"""Some of a codec's scales: what a stream has of each, and what decode shows."""

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

import lightning_modules
from experiments import decode
from experiments.bitstreams.files import StreamEncoder
from lightning_modules.bitstream import BitstreamWriter, StreamHeader
from lightning_modules.packets import Packet
from progressive_samples import (
    FRAMES,
    SIDE,
    bits_of,
    decoded,
    framed,
    make_checkpoint,
    make_frames,
    run,
    units_of,
    write_clips,
    write_stream,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("progressive")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return make_checkpoint(folder / "dhvc.ckpt", auxiliary=False)


@pytest.fixture(scope="module")
def codec(checkpoint):
    return lightning_modules.load_codec(checkpoint)


@pytest.fixture(scope="module")
def frames():
    return make_frames()


@pytest.fixture(scope="module")
def clips(folder, frames):
    return write_clips(folder, frames)


@pytest.fixture(scope="module")
def stream(folder, codec, frames):
    return write_stream(folder, codec, frames)


def test_a_frames_bits_are_those_of_its_scales(stream):
    path, coded = stream
    header, units = units_of(path)
    assert [unit.frames for unit in units] == [0, 0, 0, 1] * FRAMES
    for scale, bits in enumerate(coded.scale_bits):
        assert bits == [8 * framed(unit) for unit in units[scale::4]]
    assert coded.frame_bits == bits_of(coded)
    overhead = len(header.to_bytes()) + 1 + 1 + 4
    assert 8 * (coded.nbytes - overhead) == sum(coded.frame_bits)


def test_each_scale_changes_every_frame_and_all_of_them_are_the_whole(codec, stream):
    path, coded = stream
    frames = {k: decoded(codec, path, k) for k in (1, 2, 3, 4, None)}
    assert frames[4][1] == frames[None][1] == coded.digest
    assert len({digest for _, digest in frames.values()}) == 4
    for number in range(FRAMES):
        own = [frames[k][0][number] for k in (1, 2, 3, 4)]
        assert all(not torch.equal(a, b) for a, b in pairwise(own))


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_finer_packets_are_never_read(codec, stream, tmp_path, scales):
    header, units = units_of(stream[0])
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
    assert decoded(codec, path, scales)[1] == decoded(codec, stream[0], scales)[1]
    with pytest.raises(ValueError):
        decoded(codec, path, scales + 1)


def run_decode(checkpoint, stream, out, *more):
    options = ["--checkpoint", str(checkpoint), "--device=cpu", *more]
    return decode.main([str(stream), str(out), *options])


def test_decode_shows_some_scales_and_says_so(
    checkpoint, codec, stream, tmp_path, capsys
):
    path, _ = stream
    out = tmp_path / "preview"
    assert run_decode(checkpoint, path, out, "--scales", "2", "--hash") == 0
    line, digest = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{out}: {FRAMES} frames of 64x64, 2 of 4 scales decoded, ")
    assert "bytes" not in line and "bpp" not in line
    frames, own = decoded(codec, path, 2)
    assert digest == own
    shown = cv2.imread(str(sorted(out.iterdir())[1]))[..., ::-1]
    assert np.array_equal(shown, frames[1].permute(1, 2, 0).mul(255).round().numpy())


@pytest.mark.parametrize("scales", ["0", "5", "-1"])
def test_so_many_scales_as_there_are_not_are_refused(
    checkpoint, stream, tmp_path, capsys, scales
):
    out = tmp_path / "out.y4m"
    assert run_decode(checkpoint, stream[0], out, f"--scales={scales}") == 2
    error = capsys.readouterr().err
    assert f"error: {scales} scales: there are 1 to 4" in error
    assert not out.exists()


def encode(module, path):
    codec = module.codec.eval()
    points = codec.rate_knob.points
    header = StreamHeader(
        codec=type(codec).__name__,
        fingerprint=codec.fingerprint(),
        width=SIDE,
        height=SIDE,
        fps=Fraction(25),
        rate=points[0],
    )
    StreamEncoder(codec, header, torch.rand(1, 3, SIDE, SIDE), path).run()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: lightning_modules.UI2C(size="tiny"), "UI2CCodec has no scales"),
        (lambda: lightning_modules.DHVC(size="tiny"), "with an auxiliary path"),
    ],
)
def test_codecs_whose_scales_need_each_other_are_refused(
    make, named, tmp_path, clips, capsys
):
    torch.manual_seed(0)
    module = make().eval()
    saved = {"state_dict": module.state_dict(), "global_step": 0}
    module.on_save_checkpoint(saved)
    torch.save(saved, tmp_path / "c.ckpt")
    encode(module, tmp_path / "s.lvc")
    out = tmp_path / "out.y4m"
    paths = tmp_path / "c.ckpt", tmp_path / "s.lvc", out
    assert run_decode(*paths, "--scales=1") == 2
    assert named in capsys.readouterr().err
    assert not out.exists()
    output = tmp_path / "r.json"
    assert run(tmp_path / "c.ckpt", clips, output, "--scales", "1") == 2
    assert named in capsys.readouterr().err
    assert not output.exists()
