"""Encoding with bytes made beside the networks, against one after the other."""

import time
from collections.abc import Iterator
from functools import partial

from experiments.profile.benchmark.figures import Figure, Settings
from lightning_modules.alternating import alternating

SIZES = {"small": (64, 96), "full": (480, 832)}
UNITS = {"small": 4, "full": 12}
REPEATS = {"small": 1, "full": 5}


def measure(settings: Settings) -> Iterator[Figure]:
    """Time every codec, with random weights and small networks.

    Wall seconds: two threads gain what CPU seconds cannot show.
    """
    from lightning_modules import CODECS

    for name in CODECS:
        yield from _of(name, settings)


def _of(name: str, settings: Settings) -> Iterator[Figure]:
    import torch

    from experiments.bitstreams.coding_mode import coding_mode
    from experiments.profile.timing import configured, moving_frames
    from lightning_modules import codec_class

    height, width = SIZES[settings.form]
    device = torch.device(settings.device)
    torch.manual_seed(0)
    codec = codec_class(name)(size="tiny" if settings.form == "small" else "small")
    codec = codec.to(device).eval().requires_grad_(False)
    rate = codec.rate_knob.points[-1]
    count = UNITS[settings.form] * codec.frames_per_unit
    frames = moving_frames(count, height, width, device)
    made = {}

    def encode(mode: str) -> None:
        with configured(codec, overlap=mode):
            made[mode] = list(codec.compress(frames, rate))

    with coding_mode(device):
        seconds, _, ratio = alternating(
            partial(encode, "on"),
            partial(encode, "off"),
            REPEATS[settings.form],
            time.perf_counter,
        )
    if made["on"] != made["off"]:
        raise ValueError(f"{name}: with overlap other bytes come out")
    threads = f"{torch.get_num_threads()} threads of torch"
    note = f"{width}x{height}, {count} frames, {device.type}, {threads}, wall time"
    yield Figure(f"encode with overlap, {name}", count / seconds, "frames/s", note=note)
    yield Figure(f"with overlap / without, {name}", ratio, "ratio", note=note)
