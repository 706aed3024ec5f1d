"""What DHVC's arguments make: the paper's sizes and costs, strides, and refusals."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from experiments.profile.command import main
from experiments.profile.complexity import count
from lightning_modules import DHVC
from lightning_modules.dhvc.codec import DHVCCodec

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"


def shipped(ablation=None):
    """Return the codec of a configuration, at the paper's size and without memory."""
    options = yaml.safe_load((CONFIGS / "dhvc.yaml").read_text())["model"]["init_args"]
    if ablation:
        path = CONFIGS / "ablations" / "dhvc" / f"{ablation}.yaml"
        options |= yaml.safe_load(path.read_text())["model"]["init_args"]
    with torch.device("meta"):
        return DHVC(**options).codec


@pytest.mark.parametrize(
    ("ablation", "parameters", "kmacs"),
    # What this structure counted when it was searched for, then the paper's.
    [
        (None, (108.338, 107.97), (405.23, 400.71)),
        ("plus_dec_parallel", (91.238, 91.07), (349.92, 349.44)),
        ("plus_pred", (91.238, None), (349.92, None)),
        ("plus_structure", (91.480, None), (396.50, None)),
        ("plus_var", (131.741, None), (408.69, None)),
        ("base_dhvc_1", (117.093, 112.46), (408.47, 433.81)),
    ],
)
def test_the_ladder_has_the_published_complexity(ablation, parameters, kmacs):
    report = count(shipped(ablation), 256, 256)
    found = report["parameters"] / 1e6, report["kmacs_per_pixel"]["forward"]
    for value, (searched, paper) in zip(found, (parameters, kmacs), strict=True):
        if searched:
            assert value == pytest.approx(searched, rel=0.01)
        # The paper's table counts another network than DHVC 1.0's code, which the
        # preset is: the next test.
        if paper and ablation != "base_dhvc_1":
            assert value == pytest.approx(paper, rel=0.05)
    published = report["published"]
    if kmacs[1]:
        assert published == {"parameters": parameters[1] * 1e6, "forward": kmacs[1]}
    else:
        assert not published


def test_dhvc_1_is_its_public_code_without_what_nothing_refers_to():
    report = count(shipped("base_dhvc_1"), 256, 256)
    assert report["parameters"] == 117_924_664 - 831_472
    # 17 depthwise kernels of one tap are products here, which count as nothing.
    products = 17 * 512 / 64**2 / 1000
    found = report["kmacs_per_pixel"]["forward"] + products
    assert found == pytest.approx(408.472625, abs=1e-9)


def test_each_rung_of_the_ladder_changes_one_thing():
    rungs = ("base_dhvc_1", "plus_var", "plus_structure", "plus_pred")
    codecs = [shipped(rung) for rung in (*rungs, "plus_dec_parallel", None)]
    options = [vars(codec.options) for codec in codecs]
    changes = [[k for k in one if one[k] != two[k]] for one, two in pairwise(options)]
    assert changes == [
        ["variable_rate"],
        ["structure"],
        ["predictor"],
        ["reference"],
        ["auxiliary"],
    ]


def test_profile_prints_the_papers_figures_beside_ours(capsys):
    files = [CONFIGS / "dhvc.yaml", CONFIGS / "rehearsal.yaml"]
    for configs, beside in ((files[:1], True), (files, False)):
        arguments = [part for file in configs for part in ("--config", str(file))]
        assert main([*arguments, "--height", "256", "--width", "256"]) == 0
        said = capsys.readouterr().out
        assert bool(re.search(r"paper +107,970,000 +400\.71 ", said)) == beside
        assert ("paper" in said) == beside


def test_parts_add_up_and_coding_leaves_out_what_it_does_not_need():
    report = count(shipped("plus_dec_parallel"), 256, 256)
    kmacs = report["kmacs_per_pixel"]
    for key in ("encode", "decode"):
        parts = sum(entry[f"{key}_kmacs_per_pixel"] for entry in report["modules"])
        assert parts == pytest.approx(kmacs[key])
    assert sum(entry["parameters"] for entry in report["modules"]) == pytest.approx(
        report["parameters"], rel=0.001
    )
    # Encoding leaves out the tail, decoding the encoder and the posteriors.
    (tail,) = (e for e in report["modules"] if e["name"] == "network.tail")
    left_out = kmacs["forward"] - kmacs["encode"]
    assert left_out == pytest.approx(tail["decode_kmacs_per_pixel"])
    assert kmacs["decode"] == pytest.approx(142.1, rel=0.005)


@pytest.mark.parametrize(
    ("ablation", "more"),
    [("one_reference", -1), ("three_references", 1), ("five_references", 3)],
)
def test_a_reference_frame_costs_one_more_input_of_each_predictor(ablation, more):
    squares = 512**2 + 512**2 + 384**2 + 256**2
    found = sum(p.numel() for p in shipped(ablation).parameters())
    assert found == 108_337_504 + more * squares


def test_a_wider_or_higher_frame_keeps_each_scale_at_its_stride(full):
    for height, width in ((64, 192), (256, 64)):
        frame = torch.rand(1, 3, height, width)
        with torch.inference_mode():
            observed = full.network.encoder(frame, full.network.embed(torch.ones(1)))
        shapes = [tuple(x.shape[-2:]) for x in observed]
        assert shapes == [(height // s, width // s) for s in (64, 32, 16, 8)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "huge"),
        ({"strides": (64, 32, 16)}, "strides are"),
        ({"strides": (64, 32, 16, 4)}, "strides are"),
        ({"strides": (8, 4, 2, 1)}, "strides are"),
        ({"reference_frames": 0}, "reference_frames is 0"),
        ({"lmbda_range": (0, 32)}, "lmbda_range is"),
        ({"lmbda_range": (64, 32)}, "lmbda_range is"),
    ],
)
def test_arguments_that_make_no_codec_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DHVCCodec(**{"size": "tiny", **arguments})


def test_other_strides_code_and_decode(dhvc):
    codec = dhvc.lively(strides=(32, 16, 8, 4), auxiliary=False)
    assert codec.pad_multiple == 32
    groups, own = dhvc.coded(codec, dhvc.scene(2))
    assert dhvc.same(dhvc.received(codec, groups), own) == [True] * 2
