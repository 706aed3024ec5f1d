"""A moving scene, the anchors that code it, and how far off the decoded frames are."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.anchor.coders import make_coder
from experiments.anchor.settings import load_preset
from experiments.evaluate.coder import Task

FRAMES = 8


def scene(colour="yuv420", height=48, width=64, frames=FRAMES):
    """A textured pattern that moves by a pixel a frame, in 8-bit planes."""
    generator = np.random.default_rng(0)
    texture = generator.normal(0, 6, (height + frames, width + frames))
    waves = np.add.outer(np.arange(height + frames), np.arange(width + frames))
    luma = 128 + 60 * np.sin(waves / 9) + texture
    found = []
    for t in range(frames):
        full = luma[t : t + height, t : t + width].clip(0, 255).astype(np.uint8)
        half = full[::2, ::2]
        if colour == "rgb":
            found.append((full, full // 2 + 50, 255 - full))
        else:
            found.append((full, half // 2 + 60, 200 - half // 2))
    return found


def sequence(codes):
    height, width = codes[0][0].shape
    return SimpleNamespace(name="scene", height=height, width=width, fps=Fraction(25))


def coder_of(codec, preset=None, knob="qp", intra_period=-1, **options):
    preset = load_preset(codec, preset)
    return make_coder(preset, knob, intra_period, name="anchor", **options)


def code(coder, tmp_path, rate, codes=None, colour="yuv420"):
    codes = codes or scene(colour)
    task = Task(sequence(codes), lambda: iter(codes), colour, rate, tmp_path)
    with torch.inference_mode():
        cost = coder.encode(task)
        return cost, list(coder.decode(task, cost))


def psnr(codes, decoded):
    errors = [
        np.mean((plane - other.numpy() * 255.0) ** 2)
        for frame, planes in zip(codes, decoded, strict=True)
        for plane, other in zip(frame, planes, strict=True)
    ]
    return 10 * math.log10(255**2 / max(np.mean(errors), 1e-9))


def write_y4m(path, codes):
    """Write planes as they are, full range, 25 frames a second."""
    height, width = codes[0][0].shape
    data = f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg XCOLORRANGE=FULL\n"
    data = data.encode()
    for frame in codes:
        data += b"FRAME\n" + b"".join(plane.tobytes() for plane in frame)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="session")
def anchor():
    """What makes a coder, and codes a scene with it."""
    functions = (scene, sequence, coder_of, code, psnr, write_y4m)
    return SimpleNamespace(FRAMES=FRAMES, **{f.__name__: f for f in functions})


@pytest.fixture(
    params=[
        ("x264", "ldp_medium", 27),
        ("x265", "ldp_medium", 27),
        ("av1", "ld_preset8", 30),
    ],
    ids=lambda row: row[0],
)
def pyav(request):
    """A codec that needs no program, one of its presets, and a QP."""
    return request.param
