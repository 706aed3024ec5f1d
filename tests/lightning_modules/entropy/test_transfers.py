"""What leaves a device is waited for on that device, whichever is the current one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_modules import graphs
from lightning_modules.entropy import transfers
from lightning_modules.entropy.transfers import Download

SECOND = torch.device("cuda", 1)


class Event:
    """Like CUDA's, of the current device's stream if none is named."""

    def __init__(self):
        self.stream = None

    def record(self, stream="of device 0"):
        self.stream = stream

    def synchronize(self):
        waited.append(self.stream)


waited = []


@pytest.fixture
def two_devices(monkeypatch):
    """Stand-ins for CUDA with two devices, of which the first is the current one."""
    waited.clear()
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "Event", Event)
    monkeypatch.setattr(
        cuda, "current_stream", lambda device=None: f"of device {device.index}"
    )


class OnSecond:
    """Bytes that say that they are on the second device."""

    device, dtype, shape = SECOND, torch.uint8, (3,)


def test_a_copy_is_waited_for_on_its_own_device(two_devices, monkeypatch):
    host = SimpleNamespace(copy_=lambda flat, non_blocking: None)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: host)
    found, wait = transfers._from_cuda(OnSecond())
    wait()
    assert found is host and waited == ["of device 1"]


def test_graphs_are_recorded_on_their_own_device(monkeypatch):
    used = []

    class Nothing:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda d=None: used.append(d))
    monkeypatch.setattr(torch.cuda, "Stream", lambda d=None: used.append(d))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: Nothing())
    with graphs.BACKENDS["cuda"](SECOND).recording():
        pass
    assert used == [SECOND] * 3


def test_tensors_arrive_as_they_left_whatever_their_width(monkeypatch):
    copies = []

    def copy(flat):
        copies.append(len(flat))
        return flat.clone(), lambda: None

    monkeypatch.setitem(transfers.COPIES, "cpu", copy)
    tensors = [
        torch.tensor(True),
        torch.arange(5, dtype=torch.int16).reshape(1, 5),
        torch.zeros(0, dtype=torch.int32),
        torch.tensor([1.5, -2.0], dtype=torch.float64),
        torch.tensor([[7]], dtype=torch.uint8),
    ]
    found = Download(tensors).arrays()
    assert copies == [1 + 10 + 16 + 1]
    for array, tensor in zip(found, tensors, strict=True):
        assert array.dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(array, tensor.numpy())
