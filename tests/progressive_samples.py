"""A DHVC checkpoint, a clip, its stream, and results with points of some scales."""

from fractions import Fraction

import cv2
import torch

import lightning_modules
from experiments.bitstreams.files import StreamDecoder, StreamEncoder, open_stream
from experiments.evaluate import command as evaluate
from experiments.results.result import Protocol, Result, SequenceResult
from lightning_modules.bitstream import StreamHeader

SIDE, FRAMES = 64, 4


def make_checkpoint(path, **architecture):
    """Save a tiny DHVC of random weights whose every scale has something to code."""
    torch.manual_seed(1)
    module = lightning_modules.DHVC(size="tiny", **architecture)
    for name, parameter in module.codec.named_parameters():
        if name.endswith("posterior.1.weight"):
            parameter.data *= 10.0
    saved = {"state_dict": module.state_dict(), "global_step": 0}
    module.on_save_checkpoint(saved)
    torch.save(saved, path)
    return path


def make_frames():
    coarse = torch.rand(FRAMES, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


def write_clips(folder, frames):
    clip = folder / "clips" / "waves"
    clip.mkdir(parents=True)
    for number, frame in enumerate(frames):
        pixels = frame.permute(1, 2, 0).mul(255).round().byte().numpy()[..., ::-1]
        cv2.imwrite(str(clip / f"{number:03}.png"), pixels)
    return clip.parent


def write_stream(folder, codec, frames):
    """Return the path, and what was coded with the frames."""
    path = folder / "waves.lvc"
    header = StreamHeader(
        codec="DHVCCodec",
        fingerprint=codec.fingerprint(),
        width=SIDE,
        height=SIDE,
        fps=Fraction(25),
        rate=1024.0,
    )
    return path, StreamEncoder(codec, header, frames, path, reconstruct=True).run()


def units_of(path):
    with open_stream(path) as reader:
        return reader.header, list(reader)


def framed(unit):
    """Return a unit's bytes as the container's description has them."""
    return 1 + (1 if len(unit.payload) < 128 else 2) + 1 + 4 + len(unit.payload) + 4


def bits_of(coded, scales=None):
    """Return the bits of each frame's first scales."""
    return [sum(bits) for bits in zip(*coded.scale_bits[:scales], strict=True)]


def decoded(codec, path, scales):
    with open_stream(path) as reader:
        decoder = StreamDecoder(codec, reader, scales=scales)
        return list(decoder), decoder.digest


def run(checkpoint, clips, output, *more):
    options = ["--checkpoint", str(checkpoint), "--sequences", str(clips)]
    options += ["--output", str(output), "--lpips=none", "--threads=1", "--colour=rgb"]
    return evaluate.main([*options, "--device=cpu", *more])


def make_result(name, points):
    sequence = SequenceResult("set", "one", 64, 64, Fraction(25), 4, points, "planes")
    codec = {"name": name, "kind": "learned"}
    return Result(name, codec, Protocol("rgb", 4, -1, "bitstream"), {}, [sequence])
