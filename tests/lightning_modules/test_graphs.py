"""Graphs repeat a unit's kernels on other numbers: here with a stand-in for CUDA's."""

import threading
import warnings
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.bitstreams.coding_mode import coding_mode
from lightning_modules import graphs
from lightning_modules.entropy import transfers
from lightning_modules.entropy.distributions import Gaussians
from lightning_modules.entropy.ports import EncodePort
from lightning_modules.graphs import WARM_UPS, Graphs, GraphsDifferError, tensors_of
from lightning_modules.numerics import current, recreated
from lightning_modules.ui2c.network import Y_LEVELS


class Recorder(TorchDispatchMode):
    """Operations as they are launched, with the memory that they read and write."""

    def __init__(self):
        super().__init__()
        self.launched = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.launched.append((func, args, kwargs or {}, out))
        return out


class StandIn:
    """Forgets what was computed in a recording, and computes it again in replays."""

    def __init__(self, backend):
        self.backend = backend
        self.recorder = Recorder()

    def begin(self):
        self.recorder.__enter__()

    def end(self):
        self.recorder.__exit__(None, None, None)
        for _, args, _, out in self.recorder.launched:
            for each in fresh(args, out):
                each.fill_(77)

    def replay(self):
        self.backend.replays += 1
        for func, args, kwargs, out in self.recorder.launched:
            again = func(*args, **kwargs)
            targets = {id(each) for each in fresh(args, out)}
            for old, new in zip(tensors_of(out), tensors_of(again), strict=True):
                if id(old) in targets:
                    old.copy_(
                        new + self.backend.off if new.dtype.is_floating_point else new
                    )


def fresh(args, out):
    """Results in memory of their own: no views, nothing in place."""
    seen = {each.untyped_storage().data_ptr() for each in tensors_of(args)}
    return [
        each
        for each in tensors_of(out)
        if each.untyped_storage().data_ptr() not in seen
    ]


class StandInBackend:
    def __init__(self):
        self.replays = 0
        self.off = 0
        self.made = 0

    def __call__(self, device):
        self.made += 1
        return self

    def graph(self):
        return StandIn(self)

    def recording(self):
        return nullcontext()


@pytest.fixture
def backend(monkeypatch):
    made = StandInBackend()
    monkeypatch.setitem(graphs.BACKENDS, "cpu", made)
    return made


@pytest.fixture
def make(lively_module):
    def make(name, **arguments):
        return lively_module(name, **arguments).codec.eval().requires_grad_(False)

    return make


CODECS = {
    "UI2C": {},
    "UI2C single": {"frames_per_unit": 1, "skip_threshold": 0.12},
    "ScaleSpaceFlow": {},
    "VideoVAE": {"backbone": "lean_vae", "lpips": "random", "frames_per_unit": 5},
}


def code(codec, frames, rate):
    packets = list(codec.compress(frames, rate, reconstruct=True, intra_period=8))
    shown = list(codec.decompress(packets, 16, 32))
    return packets, shown


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("far", [False, True], ids=["host", "far"])
def test_the_bytes_and_frames_are_the_layers_own(
    make, scene, backend, monkeypatch, name, far
):
    codec = make(name.split()[0], **CODECS[name])
    frames, rate = scene(12, 16, 32), codec.rate_knob.points[-1]
    plain, shown = code(codec, frames, rate)
    assert backend.made == 0
    if far:
        # Copies that nobody has to wait for, but through the ports of a device.
        monkeypatch.setitem(
            transfers.COPIES, "cpu", lambda flat: (flat.clone(), lambda: None)
        )
    codec.configure(graphs=True)
    packets, decoded = code(codec, frames, rate)
    assert packets == plain and backend.made >= 2 and backend.replays
    for one, other in zip(packets, plain, strict=True):
        assert torch.equal(one.x_hat, other.x_hat)
    assert all(map(torch.equal, decoded, shown))


def test_layers_run_until_they_are_recorded_and_not_after(make, scene, backend):
    codec = make("UI2C")
    codec.configure(graphs=True)
    calls = []
    codec.network.register_forward_hook(lambda *_: calls.append(None))
    list(codec.compress(scene(12, 32, 32), 21))
    # One more pass compares what the graphs give.
    assert len(calls) == WARM_UPS + 2
    # Three latents between four graphs; the pass that records them replays them too.
    assert backend.replays == 4 * (6 - WARM_UPS)


def test_other_sizes_and_moved_weights_are_recorded_anew(make, scene, backend):
    codec = make("UI2C")
    codec.configure(graphs=True)
    list(codec.compress(scene(12, 32, 32), 21))
    assert backend.made == 1
    list(codec.compress(scene(12, 32, 48), 21))
    list(codec.compress(scene(12, 32, 32), 63))
    assert backend.made == 2
    copied = deepcopy(codec)
    codec.double()
    plain = make("UI2C").double()
    frames = scene(12, 32, 32).double()
    assert list(codec.compress(frames, 21)) == list(plain.compress(frames, 21))
    assert backend.made == 3
    list(copied.compress(scene(12, 32, 32), 21))
    assert backend.made == 4


def test_a_recording_is_of_one_generation_of_kernels(make, scene, backend):
    """A process may decode an older stream after its own: its graphs are others."""
    codec, frames = make("UI2C"), scene(12, 32, 32)

    def shown(kernels):
        # As on a GPU, nothing but the activation tells the generations apart.
        with recreated(replace(current(), onednn=False, kernels=kernels)):
            packets = list(codec.compress(frames, 21, reconstruct=True))
        return torch.cat([each.x_hat for each in packets])

    plain = shown(kernels=0)
    codec.configure(graphs=True)
    assert not torch.equal(shown(kernels=1), plain)
    assert torch.equal(shown(kernels=0), plain) and backend.made == 2


def test_only_so_many_recordings_are_kept(make, scene, backend, monkeypatch):
    monkeypatch.setattr(graphs, "KEPT", 2)
    codec = make("UI2C")
    codec.configure(graphs=True)
    for width in (16, 32, 48):
        list(codec.compress(scene(2 * WARM_UPS + 2, 16, width), 21))
    assert backend.made == 3 and len(codec._graphs._recordings) == 2


class HeldUpPort(EncodePort):
    """Codes nothing, and has something else done before it says what was coded."""

    def __init__(self, meanwhile):
        super().__init__({}, False)
        self.meanwhile = meanwhile

    def code(self, x, of):
        self.meanwhile()
        return x.clone()


def test_threads_do_not_write_over_each_others_inputs(backend):
    ran = Graphs()

    def walk(x, port):
        doubled = x * 2
        return port.code(doubled, Gaussians(doubled, Y_LEVELS)) + doubled

    @torch.inference_mode()
    def run(number, meanwhile=lambda: None):
        x = torch.full((3,), number)
        found = ran.run(torch.device("cpu"), walk, x, HeldUpPort(meanwhile))
        return found.tolist()

    for _ in range(WARM_UPS + 2):
        assert run(1.0) == [4.0] * 3
    other = threading.Thread(target=run, args=(10.0,))

    def meanwhile():
        other.start()
        other.join(0.3)

    assert run(1.0, meanwhile) == [4.0] * 3
    other.join(5)
    assert not other.is_alive()


def test_graphs_that_give_something_else_are_refused(make, scene, backend):
    codec = make("UI2C")
    codec.configure(graphs=True)
    backend.off = 2.0**-10
    with pytest.raises(GraphsDifferError, match="leave out --graphs"):
        list(codec.compress(scene(12, 32, 32), 21))


def test_what_the_device_does_not_record_is_one_line(make, scene, backend, monkeypatch):
    def fail(graph):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    codec = make("UI2C")
    codec.configure(graphs=True)
    monkeypatch.setattr(StandIn, "begin", fail)
    with pytest.raises(ValueError, match=r"recorded .* \(operation .* capturing\): "):
        list(codec.compress(scene(12, 16, 32), 21))


def test_where_there_are_none_it_is_said_once(make, scene):
    codec = make("UI2C")
    plain = list(codec.compress(scene(6, 32, 32), 21))
    codec.configure(graphs=True)
    with pytest.warns(UserWarning, match="a cpu has none") as said:
        assert list(codec.compress(scene(6, 32, 32), 21)) == plain
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(codec.decompress(plain, 32, 32))


def test_what_cannot_be_recorded_is_refused(make, scene):
    with pytest.raises(ValueError, match="DHVC has no graphs"):
        make("DHVC").configure(graphs=True)
    codec = make("UI2C")
    codec.configure(graphs=True, arithmetic="integer")
    with pytest.raises(ValueError, match="leave out --graphs, or --arithmetic"):
        list(codec.compress(scene(2, 32, 32), 21))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", CODECS)
def test_a_gpu_gives_the_same_bytes_with_graphs_and_overlap(make, scene, name, dtype):
    codec = make(name.split()[0], **CODECS[name]).to("cuda", dtype)
    frames, rate = scene(24, 64, 96), codec.rate_knob.points[-1]
    with coding_mode(torch.device("cuda")):
        codec.configure(overlap="off")
        plain = list(codec.compress(frames, rate, reconstruct=True))
        shown = list(codec.decompress(plain, 64, 96))
        for graphs_too in (False, True):
            codec.configure(overlap="on", graphs=graphs_too)
            packets = list(codec.compress(frames, rate, reconstruct=True))
            assert packets == plain
            for one, other in zip(packets, plain, strict=True):
                assert torch.equal(one.x_hat, other.x_hat)
            decoded = list(codec.decompress(plain, 64, 96))
            assert all(map(torch.equal, decoded, shown))
