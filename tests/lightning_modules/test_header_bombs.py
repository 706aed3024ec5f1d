"""Streams of few bytes that claim large frames are refused before networks run."""

import re
from pathlib import Path

import pytest
import torch

import lightning_modules
from lightning_modules.packets import DesyncError

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(name):
    """Return one of this process's figures of memory, in MiB."""
    return int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1]) // 1024


@pytest.mark.skipif(not RESET.exists(), reason="Linux tells the peak of memory")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, {}) for name in lightning_modules.CODECS]
    + [("UI2C", {"frames_per_unit": 1, "divided": True})],
)
def test_few_bytes_that_claim_large_frames_take_little_memory(
    lively_module, name, arguments
):
    codec = lively_module(name, size="tiny", **arguments).codec.eval()
    clip = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    packets = list(codec.compress(clip, codec.rate_knob.points[0]))
    assert len(list(codec.decompress(packets, 64, 64))) == 2
    # Writing 5 sets the peak back to what is used now.
    RESET.write_text("5")
    before = memory("VmRSS")
    for height, width in ((4096, 8192), (2048, 2048)):
        with pytest.raises(DesyncError, match=r"ends before value|were asked for"):
            list(codec.decompress(packets, height, width))
    # A frame of the first size alone has 384 MiB.
    grown = memory("VmHWM") - before
    assert grown < 200, f"{grown} MiB"
