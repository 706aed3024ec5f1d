"""What tests of several commands share: checkpoints, videos, and errors."""

import json
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import cv2
import pytest
import torch

from callbacks.metrics.table import METRICS
from datamodules.writing import create_video
from experiments.bitstreams.files import StreamDecoder, StreamEncoder, open_stream
from experiments.evaluate import command
from experiments.results.result import Point, Protocol, Result, SequenceResult
from lightning_modules import load_codec
from lightning_modules.bitstream import StreamHeader
from lightning_modules.numerics import current

CODECS = {
    "ui2c": ("UI2C", {}),
    "divided": ("UI2C", {"frames_per_unit": 1, "divided": True}),
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
    """Return the one line on stderr, an error, after the one that a command begins."""

    def read():
        lines = capsys.readouterr().err.splitlines()
        (line,) = [x for x in lines if not x.startswith("loading ")]
        assert line.startswith("error: ")
        return line

    return read


@pytest.fixture(scope="session")
def evaluate():
    """Run ``evaluate`` without LPIPS on one CPU thread."""

    def run(checkpoint, clips, output, *more):
        options = ["--checkpoint", str(checkpoint), "--sequences", str(clips)]
        options += ["--output", str(output), "--lpips=none", "--threads=1"]
        return command.main([*options, "--device=cpu", *more])

    return run


@pytest.fixture
def seen(monkeypatch):
    """Options of the runs that would have been trained."""
    options = []
    monkeypatch.setattr(
        "experiments.fit.run.train", lambda given, *_: options.append(given)
    )
    return options


# Results of codecs whose BD-rate is known

SETS = {"uvg": ("Beauty", "Jockey"), "hevc_d": ("BQSquare",)}
RATES = (0.0, 21.0, 42.0, 63.0)


@pytest.fixture(scope="session")
def make_sequence():
    """Return points whose quality is the knob's and whose bits are scaled."""

    def make(set, name, cost, rates=RATES, metrics=("psnr_yuv",), frames=96):
        points = []
        for i, rate in enumerate(rates):
            bpp = cost * 0.01 * 2**i * (1 + len(name) / 10)
            values = {"psnr_yuv": 30 + 2.0 * i, "psnr_rgb": 29 + 2.0 * i}
            values |= {"lpips_alex": 0.4 - 0.1 * i, "psnr_y": 31 + 2.0 * i}
            chosen = {metric: values[metric] for metric in metrics}
            points.append(Point(rate, bpp, metrics=chosen))
        fps = Fraction(50)
        return SequenceResult(set, name, 416, 240, fps, frames, points, "stored")

    return make


@pytest.fixture(scope="session")
def make_result(make_sequence):
    """Return a result of all sets; what is left over are fields of its protocol."""

    def make(
        name,
        cost=1.0,
        sets=SETS,
        metrics=("psnr_yuv",),
        codec=None,
        rates=RATES,
        **protocol,
    ):
        sequences = [
            make_sequence(set, member, cost, rates, metrics)
            for set, members in sets.items()
            for member in members
        ]
        usual = {
            "colour": "yuv420",
            "max_frames": 96,
            "intra_period": -1,
            "rate": "bitstream",
            "definitions": {metric: METRICS[metric].definition for metric in metrics},
        }
        described = {"name": codec or name, "kind": "learned"}
        protocol = Protocol(**{**usual, **protocol})
        return Result(name, described, protocol, sequences=sequences)

    return make


# Some of a codec's scales


@pytest.fixture(scope="session")
def scaled(checkpoint, evaluate, tmp_path_factory):
    """A DHVC, four frames as a folder of images and as a stream, and its parts."""
    folder = tmp_path_factory.mktemp("scaled")
    path = checkpoint("dhvc")
    codec = load_codec(path)
    coarse = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    frames = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")
    clip = folder / "clips" / "waves"
    clip.mkdir(parents=True)
    for number, frame in enumerate(frames):
        pixels = frame.permute(1, 2, 0).mul(255).round().byte().numpy()[..., ::-1]
        cv2.imwrite(str(clip / f"{number:03}.png"), pixels)
    header = StreamHeader(
        codec="DHVCCodec",
        fingerprint=codec.fingerprint(),
        width=64,
        height=64,
        fps=Fraction(25),
        rate=1024.0,
        numerics=current(),
    )
    stream = folder / "waves.lvc"
    coded = StreamEncoder(codec, header, frames, stream, reconstruct=True).run()
    return SimpleNamespace(
        FRAMES=4,
        SIDE=64,
        checkpoint=path,
        codec=codec,
        frames=frames,
        clips=clip.parent,
        stream=stream,
        coded=coded,
        units_of=units_of,
        framed=framed,
        bits_of=bits_of,
        decoded=lambda path, scales: decoded(codec, path, scales),
        evaluate=lambda output, *more: evaluate(
            path, clip.parent, output, "--colour=rgb", *more
        ),
    )


def units_of(path):
    with open_stream(path) as reader:
        return reader.header, list(reader)


def framed(unit):
    """Return a unit's bytes as the container's description has them."""
    length = 1 if len(unit.payload) < 128 else 2
    pixels = 0 if unit.pixels is None else 2
    return 1 + length + 1 + 4 + pixels + len(unit.payload) + 4


def bits_of(coded, scales=None):
    """Return the bits of each frame's first scales."""
    return [sum(bits) for bits in zip(*coded.scale_bits[:scales], strict=True)]


def decoded(codec, path, scales):
    with open_stream(path) as reader:
        decoder = StreamDecoder(codec, reader, scales=scales)
        return list(decoder), decoder.digest


@pytest.fixture(scope="session")
def result_of():
    """Return a result with points of one sequence."""

    def make(name, points):
        fps = Fraction(25)
        sequence = SequenceResult("set", "one", 64, 64, fps, 4, points, "planes")
        codec = {"name": name, "kind": "learned"}
        return Result(name, codec, Protocol("rgb", 4, -1, "bitstream"), {}, [sequence])

    return make


# W&B, offline


@pytest.fixture
def offline(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield tmp_path
    wandb.teardown()


@pytest.fixture
def wandb_records():
    """Give the records of a ``run-*.wandb`` file."""
    return records


@pytest.fixture
def wandb_part():
    """Read a ``run-*.wandb`` file; return its rows, its run and its summary."""
    return read_part


@pytest.fixture
def wandb_content():
    """Return the figures and the run of the newest part in a folder."""

    def read(folder):
        newest = sorted(folder.glob("wandb/offline-run-*/*.wandb"))[-1]
        rows, run, summary = read_part(newest)
        figures = [*rows, summary]
        return {name: own[name] for own in figures for name in own}, run

    return read


def read_part(path):
    import wandb

    # Its service writes the last records after the run is finished.
    wandb.teardown()
    rows, run, summary = [], None, {}
    for record in records(path):
        if record.history.item:
            rows.append(values(record.history.item))
        summary |= values(record.summary.update)
        if record.HasField("run"):
            run = record.run
    return rows, run, summary


def records(path):
    """Read a file: LevelDB log blocks of protobuf records."""
    from wandb.proto import wandb_internal_pb2

    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def values(items):
    """Return what stands in a record, by name."""
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for item in items
    }
