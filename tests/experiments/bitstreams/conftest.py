"""A codec without loss in place of every checkpoint, and the commands run with it."""

import subprocess
import zlib
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice
from types import SimpleNamespace

import pytest
import torch

import lightning_modules
from datamodules.frames import open_video
from datamodules.writing import create_video
from experiments import decode, encode
from experiments.bitstreams import encoding
from experiments.bitstreams.files import open_stream
from lightning_modules.bitstream import BitstreamWriter
from lightning_modules.codec import RateKnob, VideoCodec
from lightning_modules.packets import DesyncError, Packet, Received

HEIGHT, WIDTH = 5, 7


class ZipCodec(VideoCodec):
    """Eight-bit frames, two to a unit, without loss."""

    rate_knob = RateKnob("qp", 0, 63, (0, 63))
    frames_per_unit = 2
    pad_multiple = 1
    exact = False

    def __init__(self, seed=0, drift=0, interrupt=False, overflows_at=None):
        super().__init__(seed=seed)
        self.drift = drift
        self.overflows_at = overflows_at
        self.interrupt = interrupt

    def forward(self, clip, rate, **conditions):
        raise NotImplementedError

    def build_tables(self):
        return {}

    def passes(self, height, width):
        return {}

    def _compress(self, frames, schedule, reconstruct):
        for unit in count():
            if not (group := list(islice(frames, 2))):
                return
            codes = (torch.stack(group) * 255).round().to(torch.uint8)
            raw = codes.numpy().tobytes()
            x_hat = self.shown(codes, unit) if reconstruct else None
            yield Packet(zlib.compress(raw), len(group), zlib.crc32(raw), x_hat)
            if self.interrupt:
                raise KeyboardInterrupt

    def _receive(self, packets, height, width, scales):
        for number, packet in enumerate(packets):
            raw = zlib.decompress(packet.payload)
            if zlib.crc32(raw) != packet.checksum or (self.drift and number):
                raise DesyncError(f"unit {number} has desynchronised")
            codes = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
            codes = codes.reshape(-1, 3, height, width)
            yield from map(Received, self.shown(codes, number))

    def shown(self, codes, unit):
        frames = codes.float() / 255
        if unit == self.overflows_at:
            frames[-1, 0, 0, 0] = torch.nan
        return frames


@pytest.fixture(scope="session")
def zip_codec():
    return ZipCodec


@pytest.fixture
def codec(monkeypatch):
    """Make every checkpoint load a ``ZipCodec``; give its arguments to change."""
    arguments = {"kind": ZipCodec}

    def load_codec(path, device="cpu", dtype=torch.float32):
        options = dict(arguments)
        codec = options.pop("kind")(**options).eval()
        codec.exact = dtype == torch.float64
        return codec

    monkeypatch.setattr(lightning_modules, "load_codec", load_codec)
    return arguments


def run_encode(source, target, *more):
    arguments = [str(source), str(target), "--checkpoint=c.ckpt", "--rate=9"]
    return encode.main([*arguments, *more])


def run_decode(source, target, *more):
    return decode.main([str(source), str(target), "--checkpoint=c.ckpt", *more])


def read(path):
    with open_video(path) as video:
        return torch.stack(list(video))


@pytest.fixture(scope="session")
def commands():
    """Encode and decode in this process, with a checkpoint that is none."""
    return SimpleNamespace(encode=run_encode, decode=run_decode, read=read)


@pytest.fixture(scope="session")
def rewritten():
    """Write a stream again, with another header or units that are changed."""

    def write(path, target, change=lambda unit: unit, **header):
        with open_stream(path) as reader, target.open("wb") as file:
            writer = BitstreamWriter(file, replace(reader.header, **header))
            for unit in reader:
                writer.write(change(unit))
            writer.close()
        return target

    return write


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, HEIGHT, WIDTH), generator=generator) / 255


@pytest.fixture
def source(tmp_path, frames):
    path = tmp_path / "in" / "frames"
    path.parent.mkdir()
    with create_video(path, WIDTH, HEIGHT, Fraction(25)) as append:
        for frame in frames:
            append(frame)
    return path


@pytest.fixture
def out(tmp_path):
    """A directory that holds nothing but what the commands leave."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def stream(codec, commands, source):
    path = source.with_name("v.lvc")
    assert commands.encode(source, path) == 0
    return path


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Run the verifying process within this one, where the codec is replaced."""

    def run(command, **options):
        capsys.readouterr()
        code = decode.main(command[command.index("experiments.decode") + 1 :])
        return subprocess.CompletedProcess(command, code, *capsys.readouterr())

    monkeypatch.setattr(encoding.subprocess, "run", run)
