"""Which printed row a result stands for: by what it is, never by its name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import experiments.configs
import lightning_modules
from experiments.compare.comparison import Comparison, Curve
from experiments.compare.papers import load_tables
from experiments.compare.papers.matching import is_printed_as, published, rows_beside
from experiments.compare.report.measured_tables import (
    paper_rows_table,
    temporal_table,
)
from experiments.results.drawing.tables import to_markdown
from experiments.results.result import Protocol, Result

CONFIGS = Path(experiments.configs.__path__[0])
NO_PROTOCOL = Protocol(None, None, None, None)


def other(label, name=None):
    return Result(label, {"name": name or label, "kind": "anchor"}, NO_PROTOCOL)


def ours(config, *ablations, name="mine", options=None, **init_args):
    """Return the result of what a configuration trains, as a checkpoint has it."""
    model = {"init_args": {}}
    for layer in (config, *ablations):
        loaded = yaml.safe_load((CONFIGS / layer).read_text())["model"]
        model["class_path"] = loaded.get("class_path", model.get("class_path"))
        model["init_args"] |= loaded["init_args"]
    with torch.device("meta"):
        module = getattr(lightning_modules, model["class_path"])(
            **model["init_args"] | init_args
        )
    codec = {
        "name": model["class_path"],
        "kind": "learned",
        "architecture": module.codec.architecture,
        "training": module.training_settings(),
    }
    if options:
        codec["options"] = options
    return Result(name, json.loads(json.dumps(codec)), NO_PROTOCOL)


def rows_of(result, metric=None):
    """Return the printed names that a result stands for, by the table's number."""
    return {
        (table.source.rpartition(" ")[2], name)
        for table in load_tables()
        for name in table.rows
        if is_printed_as(result, table, name, metric)
    }


UI2C, DHVC, VAE = "ui2c.yaml", "dhvc.yaml", "video_vae.yaml"
REFRESH = {"refresh": 64}


@pytest.mark.parametrize(
    ("ablation", "options", "row"),
    [
        ("divided", REFRESH, "divided, one frame, no hybrid reference, refresh 64"),
        (
            "single_frame",
            REFRESH,
            "unified, one frame, no hybrid reference, refresh 64",
        ),
        (
            "no_hybrid_reference",
            REFRESH,
            "unified, two-frame, no hybrid reference, refresh 64",
        ),
        (None, REFRESH, "unified, two-frame, hybrid reference, refresh 64"),
        ("divided", None, "divided, one frame, no hybrid reference, no refresh"),
        ("single_frame", None, "unified, one frame, no hybrid reference, no refresh"),
        (
            "no_hybrid_reference",
            None,
            "unified, two-frame, no hybrid reference, no refresh",
        ),
        (None, {"refresh": 0}, "unified, two-frame, hybrid reference, no refresh"),
    ],
)
def test_every_ablation_of_ui2c_is_its_row_of_table_3(ablation, options, row):
    layers = [f"ablations/ui2c/{ablation}.yaml"] if ablation else []
    found = rows_of(ours(UI2C, *layers, options=options))
    assert ("3", row) in found
    full = ablation is None and options != REFRESH
    assert len(found) == 1 + full
    assert (("1", "UI ² C (Ours)") in found) == full


def test_a_divided_model_that_starts_blank_is_in_no_table():
    divided = "ablations/ui2c/divided.yaml"
    assert rows_of(ours(UI2C, divided, options={"start": "own"}))
    assert not rows_of(ours(UI2C, divided, options={"start": "blank"}))


@pytest.mark.parametrize(
    ("ablations", "metric", "rows"),
    [
        ((), "psnr_rgb", {"DHVC 2.0", "2 previous frames"}),
        ((), "ms_ssim_rgb", {"2 previous frames"}),
        (("ms_ssim",), "ms_ssim_rgb_db", {"DHVC 2.0"}),
        (("ms_ssim",), "psnr_rgb", set()),
        (("plus_dec_parallel",), "psnr_rgb", {"DHVC 2.0 (Parallel)"}),
        (("plus_dec_parallel", "ms_ssim"), "ms_ssim_rgb", {"DHVC 2.0 (Parallel)"}),
        (("one_reference",), "psnr_rgb", {"1 previous frame"}),
        (("three_references",), "psnr_rgb", {"3 previous frames"}),
        (("five_references",), "psnr_rgb", {"5 previous frames"}),
        (("plus_pred",), "psnr_rgb", set()),
        (("plus_var",), "psnr_rgb", set()),
        (("base_dhvc_1",), "psnr_rgb", set()),
    ],
)
def test_every_variant_of_dhvc_is_its_row_and_no_other(ablations, metric, rows):
    result = ours(DHVC, *(f"ablations/dhvc/{name}.yaml" for name in ablations))
    assert {row for _, row in rows_of(result, metric)} == rows


@pytest.mark.parametrize(
    ("backbone", "options", "rows"),
    [
        ("cv_vae", None, {"Ours (CV-VAE)", "BPP (After)", "tOF/tLP (After)"}),
        ("cv_vae", {"gop_overlap": False}, {"BPP (Before)", "tOF/tLP (Before)"}),
        ("lean_vae", None, {"Ours (LeanVAE)"}),
        ("lean_vae", {"gop_overlap": False}, set()),
    ],
)
def test_backbone_and_overlap_of_the_video_vae_decide_its_row(backbone, options, rows):
    result = ours(VAE, backbone=backbone, options=options)
    assert {row for _, row in rows_of(result)} == rows
    if options:
        trained_without = ours(VAE, backbone=backbone, overlap=False)
        assert {row for _, row in rows_of(trained_without)} == rows


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (UI2C, {"size": "tiny"}),
        (UI2C, {"distortion": "mse"}),
        (UI2C, {"lmbda_range": [1, 384]}),
        (DHVC, {"size": "small"}),
        (DHVC, {"distortion": "yuv"}),
        (DHVC, {"lmbda_range": [128, 2048]}),
        (VAE, {"size": "tiny"}),
        (VAE, {"channels": 64}),
        (VAE, {"lpips": "random"}),
        (VAE, {"beta": 0.0}),
    ],
)
def test_another_size_or_training_is_in_no_table(config, changes):
    assert rows_of(ours(config, **changes), "psnr_rgb") == set()


def test_loss_weights_of_a_stage_and_unknown_training_are_in_no_table():
    result = ours(UI2C)
    assert rows_of(result)
    result.codec["training"]["weights"] = {"lpips": 0.5}
    assert rows_of(result) == set()
    del result.codec["training"]
    assert rows_of(result) == set()


def test_the_name_of_a_codec_of_ours_decides_nothing():
    assert rows_of(ours(UI2C, size="tiny", name="UI ² C (Ours)")) == set()
    rt = other("DCVC-RT")
    assert [p.bd_rate for p in published(ours(UI2C), rt, "hevc_e", "psnr_yuv")] == [
        -17.7
    ]
    assert not [*published(ours(UI2C, size="tiny"), rt, "hevc_e", "psnr_yuv")]


@pytest.mark.parametrize("name", ["DCVC-FM", "dcvc_fm"])
@pytest.mark.parametrize("anchor", ["DCVC-RT", "dcvc_rt"])
def test_other_codecs_match_whatever_their_punctuation(name, anchor):
    (found,) = published(other(name), other(anchor), "hevc_e", "psnr_yuv")
    assert found.bd_rate == -7.7
    assert found.column.title == "HEVC E"


def test_an_anchor_goes_by_the_names_of_its_command_too():
    for anchor in (other("hm"), other("mine", "hm"), other("HM-16.26")):
        (found,) = published(ours(DHVC), anchor, None, "psnr_rgb")
        assert found.bd_rate == -15.97
    assert not [*published(other("VCT"), other("hm"), None, "ms_ssim_rgb")]


def test_an_ablation_is_found_against_the_full_model():
    full = ours(UI2C)
    ablation = ours(UI2C, "ablations/ui2c/no_hybrid_reference.yaml")
    (found,) = published(ablation, full, "hevc_b", "psnr_yuv")
    assert found.bd_rate == 5.1
    (found,) = published(ours(UI2C, options=REFRESH), full, None, "psnr_yuv")
    assert found.bd_rate == 33.7
    one = ours(DHVC, "ablations/dhvc/one_reference.yaml")
    assert [p.bd_rate for p in published(one, ours(DHVC), None, "psnr_rgb")] == [12.39]


@pytest.mark.parametrize(
    ("backbone", "bd_rate"), [("cv_vae", -64.81), ("lean_vae", -39.54)]
)
@pytest.mark.parametrize("metric", ["fid", "fid_256"])
def test_each_backbone_has_its_fid_bd_rate(backbone, bd_rate, metric):
    anchor = other("DCVC-FM")
    (found,) = published(ours(VAE, backbone=backbone), anchor, None, metric)
    assert found.bd_rate == bd_rate
    # The paper's claim against VVC follows from its table.
    (vtm,) = published(other("VTM-17.0"), anchor, None, metric)
    claim = 100 * ((1 - 0.6481) / (1 + vtm.bd_rate / 100) - 1)
    assert claim == pytest.approx(-52.53, abs=1.0)


@pytest.mark.parametrize(
    "asked",
    [
        ("DCVC-FM", "DCVC-RT", "hevc_f", "psnr_yuv"),
        ("DCVC-FM", "DCVC-RT", "uvg", "psnr_rgb"),
        ("DCVC-FM", "x265", "uvg", "psnr_yuv"),
        ("x265", "DCVC-RT", "uvg", "psnr_yuv"),
    ],
)
def test_what_no_paper_printed_is_not_found(asked):
    codec, anchor, set, metric = asked
    assert not [*published(other(codec), other(anchor), set, metric)]


def test_what_a_row_is_of_is_printed_in_its_table():
    for table in load_tables():
        assert {*table.ours} <= {*table.rows, table.anchor}
        assert {*table.measured} <= {*table.rows}


def test_rows_of_measured_values_stand_beside_ours():
    """Table 1: bits and temporal metrics with and without overlap."""
    names = ("off", "on")
    results = [
        ours(VAE, name=name, options={"gop_overlap": name == "on"}) for name in names
    ]
    curves = [
        # Of four rates, the paper has three.
        Curve(name, metric, set, None, (0.05, 0.1, 0.2, 0.4), bits, quality)
        for name in names
        for metric in ("tof_l1", "tlp_alex")
        for set, bits, quality in (
            ("hevc_b", (0.1, 0.2, 0.3, 0.9), (3.0, 2.0, 1.0, 0.9)),
            ("hevc_c", (0.3, 0.4, 0.5, 0.9), (5.0, 4.0, 3.0, 0.9)),
        )
        if (name, metric) != ("off", "tlp_alex")
    ]
    found = {row.row: row for row in rows_beside(results, curves)}
    assert [(row.codec, row.row) for row in found.values()] == [
        ("off", "BPP (Before)"),
        ("off", "tOF/tLP (Before)"),
        ("on", "BPP (After)"),
        ("on", "tOF/tLP (After)"),
    ]
    after = found["BPP (After)"]
    assert after.printed == ("0.0217", "0.0102", "0.0061")
    assert after.ours == ((pytest.approx(0.4),), (pytest.approx(0.3),), (0.2,))
    assert found["tOF/tLP (Before)"].ours == ((2.0, None), (3.0, None), (4.0, None))
    two = [replace(c, rates=(0.05, 0.1, 0.3, 0.4)) for c in curves[:1]] + curves[1:]
    _, row, *_ = rows_beside(results, two)
    assert row.ours[0] == (None, None) and row.ours[1] == (3.0, None)
    assert rows_beside(results, [])[0].ours == ((None,), (None,), (None,))
    comparison = replace(
        Comparison("off", ("on",), "pchip", ("tof_l1",), "tof_l1", {}, (), ()),
        curves=tuple(curves),
        paper_rows=tuple(found.values()),
    )
    shown = to_markdown(paper_rows_table(comparison))
    assert "2.0000/none | 0.81/0.096" in shown
    assert "0.4000 | 0.0217" in shown
    assert "tlp_alex is in no curve of a row: name it with --metric, or" in shown
    temporal = temporal_table(comparison)
    assert temporal.rows[0][:4] == ["off", "hevc_b", 0.05, 0.1]
