"""What UI2C can be told when it codes: refreshes, and who codes a start."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules import UI2C, load_codec
from lightning_modules.packets import DesyncError
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.ui2c.units import BLANK, REFRESHED, START

ROOT = Path(__file__).parents[3]
SINGLE = {"frames_per_unit": 1}
DIVIDED = {**SINGLE, "divided": True}


@pytest.fixture
def build(lively_module):
    def of(**arguments):
        return lively_module("UI2C", size="tiny", **arguments).codec.eval()

    return of


def clip(frames, height=48, width=64):
    ramp = torch.linspace(0, 1, width).expand(3, height, width)
    return torch.stack([(ramp + t / 10) % 1.0 for t in range(frames)])


def code(codec, frames, **more):
    """Code and decode a clip, exactly; return each unit's flags."""
    source = clip(frames)
    packets = list(codec.compress(source, 21, reconstruct=True, **more))
    decoded = torch.stack(list(codec.decompress(packets, 48, 64)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))
    return [packet.payload[1] & ~7 for packet in packets]


def places(flags, bit):
    return [unit for unit, side in enumerate(flags) if side & bit]


@pytest.mark.parametrize(
    ("arguments", "refresh", "frames", "refreshed"),
    [
        # DCVC-RT's places: the frame after each period's first.
        (SINGLE, 8, 18, [1, 9, 17]),
        (SINGLE, 1, 3, [1, 2]),
        (DIVIDED, 8, 18, [1, 9, 17]),
        # Pairs, counted in units.
        ({}, 4, 10, [2, 4]),
        ({}, 2, 5, [1, 2]),
    ],
)
def test_a_refresh_comes_where_the_family_has_it(
    build, arguments, refresh, frames, refreshed
):
    codec = build(**arguments)
    before = codec.fingerprint(), dict(codec.architecture)
    plain = code(codec, frames)
    # After the intra model there is no feature, so the first one is always there.
    assert places(plain, REFRESHED) == ([1] if "divided" in arguments else [])
    codec.configure(refresh=refresh)
    assert places(code(codec, frames), REFRESHED) == refreshed
    assert (codec.fingerprint(), codec.architecture) == before
    assert "refresh" not in codec.architecture


def test_a_refresh_counts_from_each_start(build):
    codec = build(**SINGLE)
    codec.configure(refresh=3)
    flags = code(codec, 10, intra_period=5)
    assert places(flags, START) == [0, 5]
    assert places(flags, REFRESHED) == [1, 4, 6, 9]


def test_what_is_estimated_is_refreshed_too(build):
    codec = build()
    source = clip(6)
    codec.configure(refresh=2)
    packets = list(codec.compress(source, 21, reconstruct=True))
    with torch.inference_mode():
        out = codec(source[None], torch.tensor([21]))
    torch.testing.assert_close(out.x_hat[0], torch.cat([p.x_hat for p in packets]))


def test_decoders_need_not_be_told(build):
    codec = build()
    codec.configure(refresh=4)
    packets = list(codec.compress(clip(10), 21, reconstruct=True))
    codec.configure(refresh=0)
    decoded = torch.stack(list(codec.decompress(packets, 48, 64)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))


def test_a_divided_model_can_start_from_a_blank_reference(build):
    codec = build(**DIVIDED)
    own = code(codec, 4)
    assert own == [START, REFRESHED, 0, 0]
    codec.configure(start="blank")
    assert code(codec, 4, intra_period=2) == [START | BLANK, 0, START | BLANK, 0]
    source = clip(3)
    packets = list(codec.compress(source, 21, reconstruct=True))
    with torch.inference_mode():
        out = codec(source[None], torch.tensor([21]))
        # Its inter model alone, as a unified model of one frame would code.
        codec.intra = None
        unified = codec(source[None], torch.tensor([21]))
    torch.testing.assert_close(out.x_hat[0], torch.cat([p.x_hat for p in packets]))
    assert torch.equal(out.x_hat, unified.x_hat)


def test_a_unit_after_an_intra_frame_must_refer_to_pixels(build):
    codec = build(**DIVIDED)
    first, second, third = codec.compress(clip(3), 21)
    qp, side, *rest = second.payload
    unset = replace(second, payload=bytes([qp, side & ~REFRESHED, *rest]))
    for packets in ([first, unset, third], [first, third, second]):
        with pytest.raises(DesyncError, match="a feature that an intra frame lacks"):
            list(codec.decompress(packets, 48, 64))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({}, {"refresh": 3}, "refresh is 3: it must be 0 or a multiple"),
        (SINGLE, {"refresh": -1}, "refresh is -1: it must be 0 or"),
        ({}, {"start": "blank"}, "only divided models start otherwise"),
        (DIVIDED, {"start": "grey"}, "'grey' is unknown: choose from"),
    ],
)
def test_what_cannot_be_coded_so_is_refused(arguments, options, message):
    codec = UI2CCodec("tiny", **arguments)
    with pytest.raises(ValueError, match=message):
        codec.configure(**options)
    assert codec.coding == UI2CCodec("tiny").coding


def test_the_page_names_the_ablations_there_are():
    page = (ROOT / "lightning_modules" / "ui2c" / "README.md").read_text()
    folder = ROOT / "experiments" / "configs" / "ablations" / "ui2c"
    table = set(re.findall(r"^\| `(\w+\.yaml)`", page, re.MULTILINE))
    # Begins with published weights, and is no row of the paper's.
    ablations = {path.name for path in folder.iterdir()} - {"dcvc_rt.yaml"}
    assert table - {"ui2c.yaml"} == ablations
    # Those of the paper, which `compare` prints beside ours.
    paper = folder.parents[2] / "compare" / "papers" / "ui2c.yaml"
    figures = re.findall(r"\+(\d+\.\d) %", page)
    assert figures and all(figure in paper.read_text() for figure in figures)


@pytest.mark.parametrize("refresh", [0, 4])
def test_a_checkpoint_from_when_a_refresh_was_architecture_codes_as_it_did(
    save_checkpoint, tmp_path, refresh
):
    module = UI2C(size="tiny")
    path = save_checkpoint(module, tmp_path / "last.ckpt")
    new = load_codec(path)
    checkpoint = torch.load(path, weights_only=True)
    assert "refresh" not in checkpoint["codec"]["architecture"]
    checkpoint["codec"]["architecture"]["refresh"] = refresh
    torch.save(checkpoint, path)
    old = load_codec(path)
    assert old.coding.refresh == old.architecture["refresh"] == refresh
    # It names what was built then, as its bitstreams do.
    assert old.fingerprint() != new.fingerprint()
    assert places(code(old, 10), REFRESHED) == ([2, 4] if refresh else [])
