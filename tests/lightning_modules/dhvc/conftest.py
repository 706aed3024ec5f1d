"""Tiny DHVCs that have something to code, and packets of them there and back."""

from copy import copy
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.dhvc.pipeline import PipelinedDHVC

SIZE = (50, 70)
LMBDA = 1024.0


@pytest.fixture(scope="session")
def dhvc(lively_module, scene):
    """What builds a codec, codes a scene with it, and compares what came out."""

    def lively(gain=0.15, **arguments):
        module = lively_module("DHVC", seed=3, **arguments)
        for name, parameter in module.codec.named_parameters():
            if name.endswith("posterior.1.weight"):
                parameter.data *= gain
            if name.endswith("constant"):
                parameter.data.normal_()
        return module.codec.eval()

    return SimpleNamespace(
        SIZE=SIZE,
        LMBDA=LMBDA,
        lively=lively,
        scene=lambda frames, height=SIZE[0], width=SIZE[1]: scene(
            frames, height, width
        ),
        coded=coded,
        received=received,
        same=same,
        pipelined=pipelined,
        same_packets=same_packets,
        same_frames=same_frames,
        outcome=outcome,
    )


@pytest.fixture(scope="module")
def full(dhvc):
    return dhvc.lively()


@pytest.fixture(scope="module")
def parallel(dhvc):
    """Without the auxiliary path: the only one that survives losses."""
    return dhvc.lively(auxiliary=False)


@pytest.fixture(scope="session")
def codec(dhvc):
    """One that several workers can share."""
    return dhvc.lively(gain=1.0, auxiliary=False)


@pytest.fixture(scope="session")
def expected(dhvc, codec):
    """Return what one worker makes of a scene: packets, and frames from them."""

    @cache
    def alone(frames, period):
        scene = dhvc.scene(frames)
        options = {"intra_period": period, "reconstruct": True}
        packets = list(codec.compress(scene, LMBDA, **options))
        return packets, list(codec.decompress(packets, *SIZE))

    return alone


def coded(codec, frames, **options):
    """Return packets by frame and scale, and the encoder's own frames."""
    lmbda = codec.rate_knob.points[-1]
    packets = list(codec.compress(frames, lmbda, reconstruct=True, **options))
    groups = [
        packets[i : i + codec.scales] for i in range(0, len(packets), codec.scales)
    ]
    return groups, [group[-1].x_hat[0] for group in groups]


def received(codec, groups, lost=(), **options):
    """Decode without the packets ``lost``, each (frame, scale), both from 1."""
    packets = [
        None if (frame, scale) in lost else packet
        for frame, group in enumerate(groups, 1)
        for scale, packet in enumerate(group, 1)
    ]
    return list(codec.receive(packets, *SIZE, **options))


def same(shown, own):
    return [torch.equal(r.frame, frame) for r, frame in zip(shown, own, strict=True)]


def pipelined(codec, number=2, devices=None):
    """Return the codec on workers, of which even one is a pipeline."""
    pipeline = PipelinedDHVC(codec.coder, devices or [torch.device("cpu")] * number)
    on_workers = copy(codec)
    on_workers._pipeline = lambda: pipeline
    on_workers.coders, on_workers.ahead = pipeline.coders, pipeline.ahead
    return on_workers


def same_packets(a, b):
    return (
        a == b
        and all(map(torch.equal, (p.x_hat for p in a), (p.x_hat for p in b)))
        and [p.estimated_bits for p in a] == [p.estimated_bits for p in b]
    )


def same_frames(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def outcome(items):
    """Return what comes out, and how it ends."""
    found = []
    try:
        for item in items:
            found.append(item)
    except Exception as error:
        return found, type(error), str(error)
    return found, None, ""
