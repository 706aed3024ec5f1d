"""DualDomain's streams decode on another machine: other threads, other kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_modules import load_codec
from lightning_modules.dual_domain import ports
from lightning_modules.dual_domain.entropy_model import FRACTIONS, GUARD, LEVELS

HEIGHT, WIDTH, FRAMES, QUALITY = 90, 75, 2, 0.67
NUMERICS = ("float64", "float32")

# One codec's positions among the tables, and its frames, from what packets hold.
OTHER_MACHINE = f"""
import sys, torch
from pathlib import Path
from lightning_modules import load_codec
from lightning_modules.codec import DesyncError, Packet
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False
sys.path.insert(0, sys.argv[2])
from test_dual_domain_determinism import recorded
folder = Path(sys.argv[1])
codec = load_codec(folder / "codec.ckpt")
saved = torch.load(folder / "packets.pt", weights_only=True)
found = {{}}
for numeric, entries in saved.items():
    packets = [Packet(bytes(b.tolist()), 1, c) for b, c in entries]
    with recorded() as places:
        try:
            frames = list(codec.decompress(packets, {HEIGHT}, {WIDTH}))
        except DesyncError:
            frames = []
    found[numeric] = {{"frames": frames, "places": places}}
torch.save(found, folder / "found.pt")
"""


class recorded:
    """Note where each element lies among the tables, while in the context."""

    def __enter__(self):
        self.original, places = ports.choose_tables, []

        def choose(mean, log_scale):
            steps = (log_scale / LEVELS.step, mean * FRACTIONS)
            places.append(torch.stack([x.double() for x in steps]))
            return self.original(mean, log_scale)

        ports.choose_tables = choose
        return places

    def __exit__(self, *error):
        ports.choose_tables = self.original


def moving_clip():
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(1, 3, 12, 24, generator=generator)
    size = (HEIGHT, WIDTH + 2 * FRAMES)
    wide = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1)
    return torch.stack([wide[..., 2 * t : 2 * t + WIDTH] for t in range(FRAMES)])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Code with two threads and oneDNN; decode with one thread and without it."""
    # The other process imports this file too, and needs no training.
    from lightning_modules.dual_domain.module import DualDomain

    folder = tmp_path_factory.mktemp("machines")
    torch.manual_seed(1)
    module = DualDomain(size="tiny", mode_decision="inter")
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "codec.ckpt")
    codec = load_codec(folder / "codec.ckpt")
    assert torch.backends.mkldnn.enabled
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    own, saved = {}, {}
    try:
        for numeric in NUMERICS:
            codec.configure(numeric=numeric)
            with recorded() as places:
                packets = list(codec.compress(moving_clip(), QUALITY, reconstruct=True))
            own[numeric] = {"packets": packets, "places": places}
            saved[numeric] = [
                (torch.frombuffer(bytearray(p.payload), dtype=torch.uint8), p.checksum)
                for p in packets
            ]
    finally:
        torch.set_num_threads(threads)
    torch.save(saved, folder / "packets.pt")
    tests = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", OTHER_MACHINE, str(folder), str(tests)],
        check=True,
        cwd=tests.parent,
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
    )
    return own, torch.load(folder / "found.pt", weights_only=True)


def difference(both, numeric):
    own, found = (side[numeric]["places"] for side in both)
    assert len(own) >= len(found) > 0
    return max(float((a - b).abs().max()) for a, b in zip(own, found, strict=False))


def test_a_stream_decodes_bit_exactly_with_other_threads_and_kernels(both):
    own, found = both
    frames = found["float64"]["frames"]
    assert len(frames) == FRAMES
    for packet, frame in zip(own["float64"]["packets"], frames, strict=True):
        assert torch.equal(packet.x_hat[0], frame)


def test_in_float64_no_table_is_near_to_another(both):
    # A hundredth of the band within which packets name their tables.
    assert difference(both, "float64") < GUARD / 100


def test_in_float32_the_same_machines_differ_by_far_more_than_the_guard(both):
    # Whether a table changes is luck; that none can be relied on is not.
    assert difference(both, "float32") > 100 * GUARD
