"""A DHVC for several workers, what one worker makes of a scene, and comparisons."""

import threading
from copy import copy
from functools import cache

import torch

import dhvc_samples
from lightning_modules.dhvc.pipeline import PipelinedDHVC

SIZE = (40, 70)
LMBDA = 1024.0
CPU = torch.device("cpu")


def lively(**arguments):
    return dhvc_samples.lively(10.0, auxiliary=False, **arguments)


@cache
def shared_codec():
    return lively()


def workers():
    return [t.name for t in threading.enumerate() if t.name.startswith("pipeline")]


def worker():
    return int(threading.current_thread().name.split()[-1])


def pipelined(codec, number=2, devices=None):
    """Return the codec on workers, of which even one is a pipeline."""
    pipeline = PipelinedDHVC(codec.coder, devices or [CPU] * number)
    on_workers = copy(codec)
    on_workers._pipeline = lambda: pipeline
    on_workers.coders, on_workers.ahead = pipeline.coders, pipeline.ahead
    return on_workers


def scene(frames):
    return list(dhvc_samples.scene(frames, *SIZE))


@cache
def expected(frames, period):
    """Return what one worker makes of it: packets, and frames from them."""
    codec = shared_codec()
    packets = list(
        codec.compress(scene(frames), LMBDA, intra_period=period, reconstruct=True)
    )
    return packets, list(codec.decompress(packets, *SIZE))


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
