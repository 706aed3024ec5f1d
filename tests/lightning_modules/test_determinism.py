"""In float64, streams decode on another machine: other threads, other kernels.

DualDomain always does so for what chooses tables; the others' networks may run in it.
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
import lightning_modules.scale_space_flow.entropy_model
import lightning_modules.ui2c.network
import lightning_modules.video_vae.context
from lightning_modules import load_codec
from lightning_modules.dual_domain import entropy_model
from lightning_modules.dual_domain.entropy_model import FRACTIONS, GUARD, LEVELS
from lightning_modules.entropy.distributions import Gaussians
from lightning_modules.frames import as_shown

HEIGHT, WIDTH, FRAMES = 70, 75, 2
CODECS = {
    "UI2C": {},
    "DHVC": {},
    "VideoVAE": {"lpips": "random", "frames_per_unit": 5, "z_prior": "bottleneck"},
    "DualDomain": {"mode_decision": "inter", "z_prior": "bottleneck"},
    "ScaleSpaceFlow": {},
}
PRECISIONS = ("float64", "float32")
INTEGERS = {"UI2C": {}, "UI2C divided": {"frames_per_unit": 1, "divided": True}}

# One without AVX-512, of which torch's own kernels use nothing, and oneDNN AVX2.
OTHER_PROCESSOR = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}

# Each codec's positions among the tables, and its frames, from what packets hold.
OTHER_MACHINE = f"""
import sys, torch
from pathlib import Path
from lightning_modules.packets import DesyncError, Packet
sys.path.insert(0, sys.argv[2])
from test_determinism import loaded, recorded
folder = Path(sys.argv[1])
found = {{}}
for name, precision, entries in torch.load(folder / "packets.pt", weights_only=True):
    kernels = precision == "other kernels"
    torch.set_num_threads(3 if kernels else 1)
    torch.backends.mkldnn.enabled = kernels
    codec = loaded(folder, name, precision)
    packets = [Packet(bytes(b.tolist()), n, c) for b, n, c in entries]
    with recorded() as places:
        try:
            frames = list(codec.decompress(packets, {HEIGHT}, {WIDTH}))
        except DesyncError:
            frames = []
    found[name, precision] = {{"frames": frames, "places": places}}
torch.save(found, folder / "found.pt")
"""


class recorded:
    """Note where each element lies among the tables, while in the context."""

    def __enter__(self):
        self.levels, self.choose = Gaussians.choose, entropy_model.choose_tables
        places = []

        def levels(of):
            above = of.take(of.like).double().clamp_min(of.levels.low)
            places.append(above.log() / of.levels.step)
            return self.levels(of)

        def choose(mean, log_scale):
            steps = (log_scale / LEVELS.step, mean * FRACTIONS)
            places.append(torch.stack([x.double() for x in steps]))
            return self.choose(mean, log_scale)

        Gaussians.choose, entropy_model.choose_tables = levels, choose
        return places

    def __exit__(self, *error):
        Gaussians.choose, entropy_model.choose_tables = self.levels, self.choose


def loaded(folder, name, precision):
    path = folder / f"{name}.ckpt"
    if precision not in PRECISIONS:
        return load_codec(path)
    if name == "DualDomain":
        codec = load_codec(path)
        codec.configure(numeric=precision)
        return codec
    return load_codec(path, dtype=getattr(torch, precision))


@pytest.fixture(scope="module")
def clip(scene):
    return scene(FRAMES, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def both(clip, lively_module, save_checkpoint, tmp_path_factory):
    """Code with two threads and oneDNN; decode with one thread and without it."""
    folder = tmp_path_factory.mktemp("machines")
    own, saved = {}, []
    assert torch.backends.mkldnn.enabled
    torch.set_num_threads(2)
    wanted = [(name, each, PRECISIONS) for name, each in CODECS.items()]
    # A decoder is not told: the stream says it.
    wanted += [(n, a, ("integers", "other kernels")) for n, a in INTEGERS.items()]
    for name, arguments, precisions in wanted:
        module = lively_module(name.split()[0], **arguments)
        save_checkpoint(module, folder / f"{name}.ckpt")
        for precision in precisions:
            codec = loaded(folder, name, precision)
            if precision not in PRECISIONS:
                codec.configure(arithmetic="integer")
            rate = codec.rate_knob.points[-1]
            with recorded() as places:
                packets = list(codec.compress(clip, rate, reconstruct=True))
            frames = torch.cat([packet.x_hat for packet in packets if packet.frames])
            own[name, precision] = {"frames": frames, "places": places}
            entries = [
                (torch.tensor(list(p.payload), dtype=torch.uint8), p.frames, p.checksum)
                for p in packets
            ]
            saved.append((name, precision, entries))
    torch.save(saved, folder / "packets.pt")
    here = Path(__file__).parent
    root = here.parents[1]
    subprocess.run(
        [sys.executable, "-c", OTHER_MACHINE, str(folder), str(here)],
        check=True,
        cwd=root,
        env={**os.environ, **OTHER_PROCESSOR, "PYTHONPATH": str(root)},
    )
    return own, torch.load(folder / "found.pt", weights_only=True)


def test_frames_that_differ_in_the_last_digits_are_shown_alike():
    # Half-way between two float32 numbers, where a plain cast would tell them apart.
    numbers = torch.rand(3, 20, 20)
    middle = (numbers.double() + torch.nextafter(numbers, 1 + numbers).double()) / 2
    above, below = middle + 1e-13, middle - 1e-13
    assert not torch.equal(above.float(), below.float())
    assert torch.equal(as_shown(above), as_shown(below))
    assert (as_shown(above) - numbers).abs().max() <= 2**-17
    assert torch.equal(as_shown(2 * numbers - 0.5), (2 * numbers - 0.5).clamp(0, 1))


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
def test_machines_agree_on_tables_in_float64_and_cannot_in_float32(both, name):
    # A hundredth of the band within which DualDomain's packets name their tables.
    assert difference(both, name, "float64") < GUARD / 100
    # Whether a table changes is luck; that none can be relied on is not.
    assert difference(both, name, "float32") > 100 * GUARD


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("machine", ["integers", "other kernels"])
def test_in_integers_no_two_machines_differ_at_all(both, name, machine):
    own, found = (side[name, machine] for side in both)
    assert torch.equal(torch.stack(found["frames"]), own["frames"])
    assert difference(both, name, machine) == 0.0


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


@pytest.fixture
def casts_of(clip, lively_module):
    """Return what a codec's decoder rounds to float32, as shapes."""

    def find(name):
        codec = lively_module(name, **CODECS[name]).codec.eval().to(torch.float64)
        packets = list(codec.compress(clip, codec.rate_knob.points[-1]))
        with Rounded() as mode:
            assert len(list(codec.decompress(packets, HEIGHT, WIDTH))) == FRAMES
        return mode.shapes

    return find


@pytest.mark.parametrize("name", CODECS)
def test_a_decoder_rounds_nothing_to_float32(name, casts_of):
    assert casts_of(name) == []


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("UI2C", lightning_modules.ui2c.network),
        ("DHVC", lightning_modules.dhvc.entropy_model),
        ("VideoVAE", lightning_modules.video_vae.context),
        ("ScaleSpaceFlow", lightning_modules.scale_space_flow.entropy_model),
    ],
)
def test_that_check_can_fail(name, module, casts_of, monkeypatch):
    monkeypatch.setattr(module, "at_least_float32", torch.Tensor.float)
    assert casts_of(name)
