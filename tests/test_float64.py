"""Streams of float64 networks decode on another machine: other threads, other kernels.

DualDomain's own way to get there is in ``test_dual_domain_determinism``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import lightning_modules
import lightning_modules.dhvc.entropy_model
import lightning_modules.ui2c.network
import lightning_modules.video_vae.context
from lightning_modules import load_codec
from lightning_modules.layers import ScaleLevels

HEIGHT, WIDTH, FRAMES = 70, 75, 6
CODECS = {
    "UI2C": {},
    "DHVC": {},
    "VideoVAE": {"lpips": "random", "frames_per_unit": 5},
}
DTYPES = ("float64", "float32")

# Each codec's positions among the tables, and its frames, from what packets hold.
OTHER_MACHINE = f"""
import sys, torch
from pathlib import Path
from lightning_modules import load_codec
from lightning_modules.codec import DesyncError, Packet
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False
sys.path.insert(0, sys.argv[2])
from test_float64 import recorded
folder = Path(sys.argv[1])
found = {{}}
for name, dtype, entries in torch.load(folder / "packets.pt", weights_only=True):
    codec = load_codec(folder / f"{{name}}.ckpt", dtype=getattr(torch, dtype))
    packets = [Packet(bytes(b.tolist()), n, c) for b, n, c in entries]
    with recorded() as places:
        try:
            frames = list(codec.decompress(packets, {HEIGHT}, {WIDTH}))
        except DesyncError:
            frames = []
    found[name, dtype] = {{"frames": frames, "places": places}}
torch.save(found, folder / "found.pt")
"""


class recorded:
    """Note where each scale lies among the tables, while in the context."""

    def __enter__(self):
        self.original, places = ScaleLevels.indices, []

        def indices(levels, scales):
            above = scales.double().clamp_min(levels.low)
            places.append(above.log() / levels.step)
            return self.original(levels, scales)

        ScaleLevels.indices = indices
        return places

    def __exit__(self, *error):
        ScaleLevels.indices = self.original


def moving_clip():
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(1, 3, 12, 24, generator=generator)
    size = (HEIGHT, WIDTH + 2 * FRAMES)
    wide = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1)
    return torch.stack([wide[..., 2 * t : 2 * t + WIDTH] for t in range(FRAMES)])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Code with two threads and oneDNN; decode with one thread and without it."""
    folder = tmp_path_factory.mktemp("machines")
    own, saved = {}, []
    assert torch.backends.mkldnn.enabled
    torch.set_num_threads(2)
    for name, arguments in CODECS.items():
        torch.manual_seed(1)
        module = getattr(lightning_modules, name)(size="tiny", **arguments)
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, folder / f"{name}.ckpt")
        for dtype in DTYPES:
            codec = load_codec(folder / f"{name}.ckpt", dtype=getattr(torch, dtype))
            rate = codec.rate_knob.points[-1]
            with recorded() as places:
                packets = list(codec.compress(moving_clip(), rate, reconstruct=True))
            frames = torch.cat([packet.x_hat for packet in packets if packet.frames])
            own[name, dtype] = {"frames": frames, "places": places}
            entries = [
                (torch.frombuffer(bytearray(p.payload), dtype=torch.uint8), *rest)
                for p in packets
                for rest in [(p.frames, p.checksum)]
            ]
            saved.append((name, dtype, entries))
    torch.save(saved, folder / "packets.pt")
    tests = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", OTHER_MACHINE, str(folder), str(tests)],
        check=True,
        cwd=tests.parent,
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
    )
    return own, torch.load(folder / "found.pt", weights_only=True)


def difference(both, *key):
    own, found = (side[key]["places"] for side in both)
    assert len(own) >= len(found) > 0
    return max(float((a - b).abs().max()) for a, b in zip(own, found, strict=False))


@pytest.mark.parametrize("name", CODECS)
def test_a_stream_decodes_bit_exactly_with_other_threads_and_kernels(both, name):
    own, found = both
    frames = found[name, "float64"]["frames"]
    assert torch.equal(torch.stack(frames), own[name, "float64"]["frames"])


@pytest.mark.parametrize("name", CODECS)
def test_in_float32_the_same_machines_differ(both, name):
    # Whether a table changes is luck; that none can be relied on is not.
    assert difference(both, name, "float64") < 1e-9
    assert difference(both, name, "float32") > 1e-7


class Rounded(TorchDispatchMode):
    """Notes the shapes of what is not float64 all the way, frames that are shown apart.

    Whole numbers are exact in float32 too, and so is the rate that a packet holds.
    """

    def __init__(self):
        super().__init__()
        self.shapes = []

    def allowed(self, out):
        shown = out.dtype == torch.float32 and out.shape[-3:] == (3, HEIGHT, WIDTH)
        return shown or out.numel() == 1 or bool((out == out.round()).all())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        source = args[0] if args else None
        if isinstance(source, torch.Tensor) and isinstance(out, torch.Tensor):
            kinds = {source.dtype, out.dtype}
            if kinds == {torch.float32, torch.float64} and not self.allowed(out):
                self.shapes.append(tuple(out.shape))
        return out


def casts_of(name):
    torch.manual_seed(1)
    codec = getattr(lightning_modules, name)(size="tiny", **CODECS[name]).codec
    codec = codec.eval().to(torch.float64)
    rate = codec.rate_knob.points[-1]
    packets = list(codec.compress(moving_clip(), rate))
    with Rounded() as mode:
        assert len(list(codec.decompress(packets, HEIGHT, WIDTH))) == FRAMES
    return mode.shapes


@pytest.mark.parametrize("name", CODECS)
def test_a_decoder_rounds_nothing_to_float32(name):
    assert casts_of(name) == []


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("UI2C", lightning_modules.ui2c.network),
        ("DHVC", lightning_modules.dhvc.entropy_model),
        ("VideoVAE", lightning_modules.video_vae.context),
    ],
)
def test_that_check_can_fail(name, module, monkeypatch):
    monkeypatch.setattr(module, "at_least_float32", torch.Tensor.float)
    assert casts_of(name)
