"""A stream decodes with what it was encoded with, whatever a decoder is asked for."""

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from experiments import decode
from experiments.bitstreams import decoding
from experiments.bitstreams.files import StreamDecoder, StreamEncoder, open_stream
from lightning_modules import load_codec
from lightning_modules.bitstream import BitstreamError, BitstreamReader, StreamHeader
from lightning_modules.numerics import PINS, current, recreated

ROOT = Path(__file__).parents[3]
SIZE = 66, 70
CODECS = {
    "UI2C": {},
    "DHVC": {"auxiliary": False},
    "VideoVAE": {"backbone": "lean_vae", "frames_per_unit": 5, "lpips": "random"},
    "DualDomain": {"mode_decision": "inter", "numeric": "float32"},
    "ScaleSpaceFlow": {},
}
USUAL = {"threads": 2, "onednn": True}
ODD = {"threads": 3, "onednn": False}
FRAMES = 2

OTHERWISE = """
import sys
from experiments import decode
from itertools import product
files = zip(sys.argv[1::2], sys.argv[2::2])
for (stream, checkpoint), threads in product(files, (1, 8)):
    # One process has one instruction set; all else it is asked for anew.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
        torch.backends.mkldnn.enabled = threads == 1
    assert decode.main([stream, "--checkpoint", checkpoint, "--hash", "--strict"]) == 0
    assert not torch or torch.get_num_threads() == threads
import torch
print(torch.backends.cpu.get_cpu_capability())
"""


@pytest.fixture(scope="module")
def streams(scene, lively_module, save_checkpoint, tmp_path_factory):
    """Code with every codec, as usual and oddly; return paths, and the digests."""
    folder = tmp_path_factory.mktemp("streams")
    found = {}
    for name, arguments in CODECS.items():
        path = save_checkpoint(
            lively_module(name, **arguments), folder / f"{name}.ckpt"
        )
        codec = load_codec(path)
        for kind, configuration in (("usual", USUAL), ("odd", ODD)):
            stream = folder / f"{name}.{kind}.lvc"
            with recreated(replace(current(), **configuration)):
                header = StreamHeader(
                    codec=type(codec).__name__,
                    fingerprint=codec.fingerprint(),
                    width=SIZE[1],
                    height=SIZE[0],
                    fps=Fraction(25),
                    rate=codec.rate_knob.points[-1],
                    numerics=current(),
                )
                clip = scene(FRAMES, *SIZE)
                coded = StreamEncoder(codec, header, clip, stream, reconstruct=True)
                found[name, kind] = stream, path, coded.run().digest
    return found


def run_decoder(streams, **environment):
    """Decode streams in a process of its own; return the digests that it prints."""
    given = [str(path) for entry in streams for path in entry[:2]]
    done = subprocess.run(
        [sys.executable, "-c", OTHERWISE, *given],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.split()


def test_a_stream_decodes_to_the_encoders_frames_whatever_a_decoder_is_asked_for(
    streams,
):
    asked = dict.fromkeys(PINS, "") | {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OMP_NUM_THREADS": "3",
        "OMP_THREAD_LIMIT": "1",
    }
    *digests, isa = run_decoder(streams.values(), **asked)
    expected = [digest for *_, digest in streams.values()]
    assert digests == [digest for digest in expected for _ in range(2)]
    assert isa == "AVX2"


@pytest.mark.parametrize("kernels", [0, 1])
def test_a_stream_decodes_with_its_own_generation_of_kernels(
    streams, scene, tmp_path, kernels, capsys
):
    """Earlier versions had generation 0; with the other the frames differ."""
    _, checkpoint, newer = streams["UI2C", "usual"]
    codec, path = load_codec(checkpoint), tmp_path / "clip.lvc"
    with recreated(replace(current(), **USUAL, kernels=kernels)):
        header = StreamHeader(
            codec=type(codec).__name__,
            fingerprint=codec.fingerprint(),
            width=SIZE[1],
            height=SIZE[0],
            fps=Fraction(25),
            rate=codec.rate_knob.points[-1],
            numerics=current(),
        )
        clip = scene(FRAMES, *SIZE)
        coded = StreamEncoder(codec, header, clip, path, reconstruct=True).run()
    assert (coded.digest == newer) == bool(kernels)
    assert current().kernels == 1
    options = [str(path), "--checkpoint", str(checkpoint), "--hash", "--strict"]
    assert decode.main(options) == 0
    assert capsys.readouterr().out.split()[-1] == coded.digest
    with open_stream(path) as reader, recreated(replace(current(), **USUAL)):
        decoder = StreamDecoder(codec, reader, partial=True)
        assert len(list(decoder)) <= FRAMES
        assert (decoder.digest == coded.digest) == bool(kernels)


def test_an_encoder_codes_as_its_header_says(streams, scene, tmp_path):
    """Whatever has changed since the header was made, in another thread perhaps."""
    _, checkpoint, digest = streams["UI2C", "usual"]
    codec, path = load_codec(checkpoint), tmp_path / "clip.lvc"
    with open_stream(streams["UI2C", "usual"][0]) as reader:
        header = reader.header
    with recreated(replace(current(), **ODD, kernels=0)):
        clip = scene(FRAMES, *SIZE)
        coded = StreamEncoder(codec, header, clip, path, reconstruct=True).run()
        assert current().kernels == 0
    assert coded.digest == digest
    assert path.read_bytes() == streams["UI2C", "usual"][0].read_bytes()


def test_other_threads_and_kernels_would_show_other_frames(streams, monkeypatch):
    """Without what is recreated the test above could not pass."""
    differing = []
    for (name, kind), (stream, checkpoint, expected) in streams.items():
        odd = {"usual": ODD, "odd": USUAL}[kind]
        with recreated(replace(current(), **odd)), open_stream(stream) as reader:
            decoder = StreamDecoder(load_codec(checkpoint), reader, partial=True)
            for _ in decoder:
                pass
            if decoder.digest != expected:
                differing.append(name)
    assert {"UI2C", "DHVC", "VideoVAE", "ScaleSpaceFlow"} <= set(differing)


def test_frames_that_differ_are_told_once_and_strictly_are_an_error(
    streams, monkeypatch, tmp_path, capsys
):
    stream, checkpoint, _ = streams["UI2C", "usual"]
    given = [str(stream), str(tmp_path / "v.y4m"), f"--checkpoint={checkpoint}"]
    monkeypatch.setattr(
        decoding, "recreated", lambda _: recreated(replace(current(), **ODD))
    )
    assert decode.main(given) == 0
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("warning: ") and "frame 0 is not, bit by bit" in line
    assert "avx2, 2 threads" in line and "--dtype float64" in line
    assert "checked" not in printed.out
    (tmp_path / "v.y4m").unlink()
    assert decode.main([*given, "--strict"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "frame 0 is not, bit by bit" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("frames", "header"), [(1, {}), (None, {"width": SIZE[1] - 1})]
)
def test_what_no_symbol_tells_is_among_the_pixels(
    streams, rewritten, tmp_path, capsys, frames, header
):
    stream, checkpoint, _ = streams["UI2C", "usual"]
    forged = rewritten(
        stream,
        tmp_path / "forged.lvc",
        lambda unit: replace(unit, frames=frames or unit.frames),
        **header,
    )
    given = [str(forged), "--hash", f"--checkpoint={checkpoint}"]
    assert decode.main(given) == 0
    assert "frame 0 is not, bit by bit" in capsys.readouterr().err


def test_frames_that_do_not_come_are_an_error(streams, rewritten, tmp_path, capsys):
    stream, checkpoint, _ = streams["ScaleSpaceFlow", "usual"]
    forged = rewritten(
        stream, tmp_path / "forged.lvc", lambda unit: replace(unit, frames=3)
    )
    given = [str(forged), "--hash", f"--checkpoint={checkpoint}"]
    assert decode.main(given) == 2
    assert "2 frames were decoded, but its units claim 6" in capsys.readouterr().err


@pytest.mark.parametrize("name", CODECS)
def test_parts_of_streams_of_one_codec_cannot_be_joined(
    streams, rewritten, tmp_path, name
):
    first = streams[name, "usual"][0]
    with open_stream(first) as reader:
        header = reader.header
    other = rewritten(
        streams[name, "odd"][0],
        tmp_path / "other.lvc",
        lambda unit: replace(unit, pixels=0),
        rate=header.rate,
        numerics=header.numerics,
    )
    parts = [split(first), split(other)]
    # From the first unit on: their headers are the same.
    for count in range(2, len(parts[0])):
        path = tmp_path / "joined.lvc"
        path.write_bytes(b"".join(parts[0][:count] + parts[1][count:]))
        with path.open("rb") as file, pytest.raises(BitstreamError):
            list(BitstreamReader(file))


def split(path):
    """Return the bytes of a stream's header, of each unit and of the end."""
    data, ends = path.read_bytes(), [0]
    with path.open("rb") as file:
        reader = BitstreamReader(file)
        ends.append(6 + data[5] + 4)
        for unit in reader:
            size = len(unit.payload)
            pixels = 0 if unit.pixels is None else 2
            ends.append(ends[-1] + 6 + (size > 127) + 1 + pixels + size + 4)
    ends.append(len(data))
    return [data[start:end] for start, end in pairwise(ends)]
