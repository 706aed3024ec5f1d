import json
from dataclasses import replace
from fractions import Fraction

import pytest

from callbacks.metrics.table import METRICS
from experiments.compare.assemble import compare_results
from experiments.compare.protocol_check import ProtocolMismatch
from experiments.results.dcvc import to_dcvc
from experiments.results.exchange import main
from experiments.results.load import load_any
from experiments.results.result import (
    Point,
    Protocol,
    Result,
    ResultError,
    SequenceResult,
)

PIXELS = 416 * 240
FRAMES = 5
YUV = {
    "psnr_y_unrounded": [38.0, 36.0, 37.0, 36.5, 36.0],
    "psnr_u_unrounded": [40.0, 39.0, 39.5, 39.0, 38.5],
    "psnr_v_unrounded": [41.0, 40.0, 40.5, 40.0, 39.5],
    "ms_ssim_y": [0.98, 0.97, 0.975, 0.97, 0.965],
}
YUV["psnr_yuv_unrounded"] = [
    (6 * y + u + v) / 8
    for y, u, v in zip(*(YUV[f"psnr_{p}_unrounded"] for p in "yuv"), strict=True)
]
BITS = [8000.0, 1000.0, 2000.0, 1000.0, 1500.0]
HEADER = 80
FILE = "BlowingBubbles_416x240_50.yuv"


def mean(values):
    return sum(values) / len(values)


def make_point(rate, factor=1.0, lists=YUV):
    bits = [factor * b for b in BITS]
    metrics = {name: mean(values) for name, values in lists.items()}
    if "psnr_y_unrounded" in lists:
        metrics |= {f"psnr_{p}": metrics[f"psnr_{p}_unrounded"] for p in "yuv"}
    return Point(
        rate,
        (sum(bits) + HEADER) / (PIXELS * FRAMES),
        metrics=metrics,
        per_frame={"bits": bits, **lists},
        seconds={"encode": 0.5, "decode": 0.25, "encode_network": 0.4},
    )


def make_result(intra_period=-1, colour="yuv420", points=None):
    points = points or [make_point(0.0), make_point(32.0, 2.0)]
    sequence = SequenceResult(
        "hevc_d", "BlowingBubbles", 416, 240, Fraction(50), FRAMES, points, "stored"
    )
    definitions = {name: METRICS[name].definition for name in points[0].metrics}
    protocol = Protocol(colour, 5, intra_period, "bitstream", definitions=definitions)
    codec = {"name": "UI2C", "kind": "learned"}
    return Result("ours", codec, protocol, sequences=[sequence])


def entry(bpp=0.02, psnr=(36.0, 40.0, 41.0), msssim=(0.97, 0.98, 0.98), **more):
    """Return an entry with the keys that DCVC's test_video.py writes."""
    y, u, v = psnr
    values = {"bpp": bpp, "psnr": (6 * y + u + v) / 8}
    values["msssim"] = (6 * msssim[0] + msssim[1] + msssim[2]) / 8
    values |= dict(zip(("psnr_y", "psnr_u", "psnr_v"), psnr, strict=True))
    values |= dict(zip(("msssim_y", "msssim_u", "msssim_v"), msssim, strict=True))
    averages = {
        f"ave_{kind}_frame_{name}": value
        for kind in ("i", "p", "all")
        for name, value in values.items()
    }
    counts = {"frame_pixel_num": 1920 * 1080, "i_frame_num": 1, "p_frame_num": 95}
    return {**counts, **averages, "test_time": 1.0, **more}


def dcvc_file(folder, name="DCVC-RT.json", **changes):
    rates = {
        f"{i:03d}": {
            **entry(0.01 * 2**i, (34.0 + i, 38.0 + i, 39.0 + i)),
            **{"rate_idx": i, "qp_i": 21 * i, "qp_p": 21 * i},
            **changes,
        }
        for i in range(4)
    }
    data = {"UVG": {"Beauty_1920x1080_120fps_420_8bit_YUV.yuv": rates}}
    path = folder / name
    path.write_text(json.dumps(data))
    return path


def vtm_file(folder):
    """Write a file like DCVC's anchor: every frame an I frame, the best rate first."""
    rates = {}
    for i, qp in enumerate((22, 25, 28, 31)):
        one = entry(0.08 / 2**i, (40.0 - i, 42.0 - i, 43.0 - i))
        one |= {"i_frame_num": 96, "p_frame_num": 0, "qp": qp, "ds_name": "UVG"}
        one |= {key: 0 for key in one if key.startswith("ave_p_")}
        rates[f"{qp:03d}"] = one
    data = {"UVG": {"Beauty_1920x1080_120fps_420_8bit_YUV.yuv": rates}}
    path = folder / "vtm_17.0_yuv420_LB_allf_ip0.json"
    path.write_text(json.dumps(data))
    return path


def export(tmp_path, result):
    source, target = tmp_path / "ours.json", tmp_path / "dcvc.json"
    result.save(source)
    assert main([str(source), str(target)]) == 0
    return target, json.loads(target.read_text())


def test_an_export_has_exactly_the_keys_of_dcvcs_verbose_files(tmp_path):
    _, data = export(tmp_path, make_result())
    (rates,) = data["HEVC_D"].values()
    assert list(rates) == ["000", "001"]
    names = ["bpp", "psnr", "msssim"]
    names += [f"{metric}_{p}" for metric in ("psnr", "msssim") for p in "yuv"]
    wanted = {"frame_pixel_num", "i_frame_num", "p_frame_num", "test_time"}
    wanted |= {f"ave_{kind}_frame_{n}" for kind in ("i", "p", "all") for n in names}
    wanted |= {"avg_frame_encoding_time", "avg_frame_decoding_time", "frame_type"}
    wanted |= {"ds_name", "seq", "rate_idx", "qp_i", "qp_p"}
    lists = {"frame_bpp", "frame_psnr", "frame_psnr_y", "frame_psnr_u", "frame_psnr_v"}
    assert set(rates["000"]) == wanted | lists | {"frame_msssim_y"}


def test_an_exported_entry_has_the_means_of_its_kinds_of_frames(tmp_path):
    _, data = export(tmp_path, make_result(intra_period=2))
    one = data["HEVC_D"][FILE]["000"]
    assert one["frame_type"] == [0, 1, 0, 1, 0]
    assert (one["i_frame_num"], one["p_frame_num"]) == (3, 2)
    first = BITS[0] + HEADER
    assert one["frame_bpp"][0] == pytest.approx(first / PIXELS)
    assert one["ave_i_frame_bpp"] == pytest.approx(mean([first, 2000, 1500]) / PIXELS)
    assert one["ave_p_frame_bpp"] == pytest.approx(1000 / PIXELS)
    y = YUV["psnr_y_unrounded"]
    assert one["ave_i_frame_psnr_y"] == pytest.approx(mean([y[0], y[2], y[4]]))
    assert one["ave_p_frame_psnr_y"] == pytest.approx(mean([y[1], y[3]]))
    assert one["ave_all_frame_psnr_y"] == pytest.approx(mean(y))
    total = 3 * one["ave_i_frame_bpp"] + 2 * one["ave_p_frame_bpp"]
    assert one["ave_all_frame_bpp"] == pytest.approx(total / 5)
    assert one["ave_all_frame_msssim_y"] == pytest.approx(mean(YUV["ms_ssim_y"]))
    assert one["ave_all_frame_msssim_u"] == 0
    assert one["test_time"] == pytest.approx(5 * 0.75)
    assert (one["qp_i"], one["rate_idx"]) == (0, 0)


def test_one_start_makes_one_i_frame(tmp_path):
    _, data = export(tmp_path, make_result())
    one = data["HEVC_D"][FILE]["001"]
    assert one["frame_type"] == [0, 1, 1, 1, 1]
    assert one["qp_i"] == 32


def test_export_and_import_give_the_same_curve(tmp_path):
    ours = make_result()
    target, _ = export(tmp_path, ours)
    back = load_any(target)
    assert back.codec["kind"] == "imported"
    (sequence,), (original,) = back.sequences, ours.sequences
    assert sequence.key == original.key
    assert (sequence.width, sequence.height, sequence.frames) == (416, 240, FRAMES)
    for a, b in zip(sequence.points, original.points, strict=True):
        assert a.bpp == pytest.approx(b.bpp)
        assert a.rate == b.rate
        for name, values in YUV.items():
            assert a.metrics[name] == pytest.approx(mean(values))
            assert a.per_frame[name] == pytest.approx(values)
        assert set(a.metrics) == set(YUV)
        assert a.seconds == {"encode": 0.5, "decode": 0.25}
    assert back.protocol.intra_period == -1
    definitions = back.protocol.definitions
    for name in ("psnr_y_unrounded", "psnr_yuv_unrounded"):
        assert definitions[name] == METRICS[name].definition


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            ("uvg", "Beauty", 1920, 1080, 120),
            ("UVG", "Beauty_1920x1080_120fps_420_8bit_YUV.yuv"),
        ),
        (
            ("mcl_jcv", "videoSRC05", 1920, 1080, 25),
            ("MCL-JCV", "videoSRC05_1920x1080_25.yuv"),
        ),
        (
            ("hevc_b", "Kimono1", 1920, 1080, 24),
            ("HEVC_B", "Kimono1_1920x1080_24.yuv"),
        ),
        (("hevc_b", "Kimono1", 1920, 1024, 24), ("hevc_b", "Kimono1")),
        (("clips", "sailing", 416, 240, 25), ("clips", "sailing")),
    ],
)
def test_standard_sequences_are_called_what_dcvcs_anchors_call_them(ours, theirs):
    set_name, name, width, height, fps = ours
    result = make_result()
    result.sequences[0] = replace(
        result.sequences[0],
        set=set_name,
        name=name,
        width=width,
        height=height,
        fps=Fraction(fps),
    )
    data = to_dcvc(result)
    assert [(s, n) for s, names in data.items() for n in names] == [theirs]


def test_rgb_goes_out_and_comes_back(tmp_path):
    lists = {"psnr_rgb_unrounded": [30.0, 31, 32, 33, 34], "ms_ssim_rgb": [0.9] * 5}
    points = [make_point(1.5, lists=lists)]
    target, data = export(tmp_path, make_result(colour="rgb", points=points))
    one = data["HEVC_D"][FILE.removesuffix(".yuv")]["000"]
    assert one["ave_all_frame_psnr"] == pytest.approx(32)
    assert one["qp_i"] == 1.5
    assert "ave_all_frame_psnr_y" not in one
    back = load_any(target)
    assert back.protocol.colour == "rgb"
    assert back.sequences[0].points[0].metrics == pytest.approx(
        {"psnr_rgb_unrounded": 32, "ms_ssim_rgb": 0.9}
    )


def test_without_lists_over_frames_every_frame_is_an_i_frame(tmp_path):
    point = make_point(0.0)
    point.per_frame.clear()
    _, data = export(tmp_path, make_result(points=[point]))
    one = data["HEVC_D"][FILE]["000"]
    assert (one["i_frame_num"], one["p_frame_num"]) == (FRAMES, 0)
    assert one["ave_i_frame_bpp"] == one["ave_all_frame_bpp"] == point.bpp
    assert one["ave_p_frame_bpp"] == 0
    assert "frame_bpp" not in one


def test_an_export_never_passes_rounded_psnr_off_as_dcvcs(tmp_path, capsys):
    point = make_point(0.0)
    del point.metrics["psnr_u_unrounded"]
    source = tmp_path / "ours.json"
    make_result(points=[point]).save(source)
    assert main([str(source), str(tmp_path / "dcvc.json")]) == 2
    assert "lacks psnr_u_unrounded" in capsys.readouterr().err
    assert not (tmp_path / "dcvc.json").exists()


def test_a_result_of_unknown_colour_cannot_be_exported():
    with pytest.raises(ValueError, match="does not state its colour"):
        to_dcvc(make_result(colour=None))


def test_dcvcs_results_become_curves_with_this_suites_names(tmp_path):
    result = load_any(dcvc_file(tmp_path))
    assert (result.name, result.codec["name"]) == ("DCVC-RT", "DCVC-RT")
    (sequence,) = result.sequences
    assert sequence.key == ("uvg", "Beauty")
    assert (sequence.width, sequence.height, sequence.frames) == (1920, 1080, 96)
    assert sequence.fps == 120
    assert [p.rate for p in sequence.points] == [0, 21, 42, 63]
    assert sequence.points[0].metrics == pytest.approx(
        {
            "psnr_y_unrounded": 34.0,
            "psnr_u_unrounded": 38.0,
            "psnr_v_unrounded": 39.0,
            "psnr_yuv_unrounded": (6 * 34 + 38 + 39) / 8,
            "ms_ssim_y": 0.97,
        }
    )
    kbps = 0.01 * 1920 * 1080 * 120 / 1000
    assert sequence.points[0].kbps == pytest.approx(kbps)


def test_what_dcvcs_files_do_not_state_stays_unknown(tmp_path):
    protocol = load_any(dcvc_file(tmp_path)).protocol
    assert (protocol.colour, protocol.intra_period) == ("yuv420", -1)
    unknown = ("max_frames", "rate", "matrix", "chroma_up", "chroma_down", "crop")
    assert [getattr(protocol, name) for name in unknown] == [None] * 6
    assert "DCVC" in protocol.definitions["ms_ssim_y"]
    assert protocol.definitions["ms_ssim_y"] != METRICS["ms_ssim_y"].definition


def test_a_ms_ssim_that_dcvc_did_not_compute_is_no_value(tmp_path):
    zeros = {
        f"ave_all_frame_{n}": 0.0
        for n in ("msssim", "msssim_y", "msssim_u", "msssim_v")
    }
    result = load_any(dcvc_file(tmp_path, **zeros))
    assert "ms_ssim_y" not in result.metric_names()
    assert "psnr_yuv_unrounded" in result.metric_names()


@pytest.mark.parametrize(
    ("kinds", "period"), [([0, 1, 1, 0, 1, 1, 0], 3), ([0, 1, 0, 0, 1, 1, 1], None)]
)
def test_the_kinds_of_frames_tell_the_intra_period(tmp_path, kinds, period):
    counts = {"i_frame_num": kinds.count(0), "p_frame_num": kinds.count(1)}
    path = dcvc_file(tmp_path, frame_type=kinds, **counts)
    assert load_any(path).protocol.intra_period == period


def test_a_cropped_sequence_is_not_taken_for_the_whole_one(tmp_path):
    path = dcvc_file(tmp_path, frame_pixel_num=1920 * 1024)
    (sequence,) = load_any(path).sequences
    assert (sequence.width, sequence.height) == (1920, 1024)


def test_dcvcs_anchor_becomes_a_curve_in_order_of_bits(tmp_path):
    result = load_any(vtm_file(tmp_path))
    assert result.codec["name"] == "VTM-17.0"
    assert "10 bits inside" in result.codec["note"]
    (sequence,) = result.sequences
    assert sequence.frames == 96
    assert [p.rate for p in sequence.points] == [31, 28, 25, 22]
    assert result.protocol.intra_period is None
    definition = result.protocol.definitions["psnr_yuv_unrounded"]
    assert "bit depth of the decoder's output not stated" in definition


def test_the_anchors_psnr_is_not_compared_with_unrounded_psnr_unasked(tmp_path):
    results = [load_any(vtm_file(tmp_path)), load_any(dcvc_file(tmp_path))]
    names = [result.name for result in results]
    with pytest.raises(ProtocolMismatch, match=r"definitions\.psnr_y_unrounded"):
        compare_results(results, names[0], allow=["unstated"])
    comparison = compare_results(
        results, names[0], allow=["unstated", "definitions"], metrics=METRICS
    )
    assert comparison.headline in ("psnr_y_unrounded", "psnr_yuv_unrounded")
    assert any("10 bits inside" in note for note in comparison.notes)


def test_an_import_is_compared_with_an_own_result(tmp_path):
    ours = load_any(dcvc_file(tmp_path))
    ours.name = "ours"
    ours.protocol = Protocol(
        "yuv420", 96, -1, "bitstream", definitions=ours.protocol.definitions
    )
    for point in ours.sequences[0].points:
        point.bpp *= 0.9
    ours.save(tmp_path / "ours.json")
    results = [load_any(tmp_path / "ours.json"), load_any(dcvc_file(tmp_path))]
    with pytest.raises(ProtocolMismatch, match="rate is not stated in DCVC-RT and bit"):
        compare_results(results, "DCVC-RT")
    comparison = compare_results(results, "DCVC-RT", allow=["unstated"])
    row = comparison.row("ours", "psnr_yuv_unrounded", "overall_mean", None)
    assert row.rate.value == pytest.approx(-10)


def test_a_psnr_that_is_not_weighted_6_1_1_is_refused(tmp_path):
    path = dcvc_file(tmp_path, ave_all_frame_psnr=37.0)
    with pytest.raises(ResultError, match=r"37 is not \(6 Y \+ U \+ V\) / 8"):
        load_any(path)


def test_an_entry_without_its_keys_is_refused_by_name(tmp_path):
    path = dcvc_file(tmp_path)
    data = json.loads(path.read_text())
    (rates,) = data["UVG"].values()
    del rates["002"]["p_frame_num"]
    path.write_text(json.dumps(data))
    with pytest.raises(ResultError, match=r"YUV\.yuv/002 .*p_frame_num"):
        load_any(path)


def test_rates_with_different_frames_are_refused(tmp_path):
    path = dcvc_file(tmp_path)
    data = json.loads(path.read_text())
    (rates,) = data["UVG"].values()
    rates["003"]["p_frame_num"] = 31
    path.write_text(json.dumps(data))
    with pytest.raises(ResultError, match="other frames than the rates before"):
        load_any(path)


def compressai_file(folder, results, **more):
    path = folder / "ssf.json"
    whole = {"name": "ssf2020-mse", "description": "Inference (ans)", **more}
    path.write_text(json.dumps({**whole, "results": results}))
    return path


CURVE = {
    "q": ["ssf2020-mse-1-ans", "ssf2020-mse-2-ans"],
    "bpp": [0.2, 0.1],
    "psnr-y": [36.0, 34.0],
    "psnr-u": [40.0, 38.0],
    "psnr-v": [42.0, 41.0],
    "psnr-yuv": [37.667, 35.833],
    "psnr-rgb": [35.0, 33.0],
    "ms-ssim-rgb": [0.97, 0.96],
    "mse-rgb": [20.0, 30.0],
}


def test_compressais_results_become_one_curve(tmp_path):
    result = load_any(compressai_file(tmp_path, CURVE))
    assert (result.name, result.codec["kind"]) == ("ssf2020-mse", "imported")
    (sequence,) = result.sequences
    assert sequence.key == ("compressai", "mean")
    assert [p.bpp for p in sequence.points] == [0.1, 0.2]
    assert [p.rate for p in sequence.points] == [1, 0]
    assert sequence.points[0].metrics["psnr_rgb"] == 33.0
    assert result.protocol.colour is None
    assert result.protocol.rate is None
    for name, definition in result.protocol.definitions.items():
        assert definition != METRICS[name].definition


def test_compressais_yuv_psnr_is_never_ours(tmp_path):
    result = load_any(compressai_file(tmp_path, CURVE))
    first = result.sequences[0].points[-1].metrics
    assert first["psnr_yuv"] == pytest.approx((6 * 36 + 40 + 42) / 8)
    assert first["psnr_yuv"] != pytest.approx((4 * 36 + 40 + 42) / 6, abs=0.1)
    without = {k: v for k, v in CURVE.items() if k != "psnr-v"}
    result = load_any(compressai_file(tmp_path, without))
    assert "psnr_yuv" not in result.metric_names()


def test_compressais_bitrate_is_bpp_where_the_video_is_known(tmp_path):
    values = {"bitrate": 1000.0, "psnr-y": 36.0}
    path = compressai_file(tmp_path, values, source="Beauty_1920x1080_120fps_420_8bit")
    (sequence,) = load_any(path).sequences
    assert sequence.points[0].bpp == pytest.approx(1e6 / (1920 * 1080 * 120))
    path = compressai_file(tmp_path, {"bitrate": [1000.0], "psnr-y": [36.0]})
    with pytest.raises(ResultError, match="has no bpp, and a bitrate in kbit/s"):
        load_any(path)


def test_an_estimate_of_compressais_is_known_as_one(tmp_path):
    described = "Inference (entropy-estimation)"
    path = compressai_file(tmp_path, CURVE, description=described)
    assert load_any(path).protocol.rate == "estimate"


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"bpp": [0.1]}, "has none of psnr-y"),
        ({"bpp": [0.1, 0.2], "psnr-y": [30.0]}, "lists of different lengths"),
        ({"bpp": ["much"], "psnr-y": [30.0]}, "damaged file of Comp"),
    ],
)
def test_unusable_files_of_compressai_are_refused(tmp_path, results, message):
    with pytest.raises(ResultError, match=message):
        load_any(compressai_file(tmp_path, results))


@pytest.mark.parametrize("text", ["{}", "[]", '{"a": {"b": 1}}', "no JSON", "3"])
def test_other_files_are_refused_with_the_formats_there_are(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"DCVC|cannot be read as JSON"):
        load_any(path)


def test_this_suites_own_results_are_read_as_they_are(tmp_path):
    path = tmp_path / "ours.json"
    make_result().save(path)
    assert load_any(path).name == "ours"


HUGE = 10**400


@pytest.mark.parametrize("key", ["ave_all_frame_bpp", "frame_pixel_num", "p_frame_num"])
@pytest.mark.parametrize("value", [HUGE, float("inf"), float("nan"), -2])
def test_impossible_numbers_of_dcvc_are_refused(tmp_path, key, value):
    with pytest.raises(ResultError, match=r"DCVC-RT\.json"):
        load_any(dcvc_file(tmp_path, **{key: value}))


@pytest.mark.parametrize("value", [HUGE, float("inf"), float("nan"), -1])
def test_impossible_numbers_of_compressai_are_refused(tmp_path, value):
    with pytest.raises(ResultError, match=r"ssf\.json is a damaged file"):
        load_any(compressai_file(tmp_path, {**CURVE, "bpp": [0.1, value]}))


@pytest.mark.parametrize("part", ["sequences", "points"])
def test_a_result_without_points_is_not_exported_as_an_empty_file(
    tmp_path, capsys, part
):
    result = make_result()
    (result if part == "sequences" else result.sequences[0]).__dict__[part].clear()
    source, target = tmp_path / "ours.json", tmp_path / "dcvc.json"
    result.save(source)
    assert main([str(source), str(target)]) == 2
    assert f"{source} has no point to export" in capsys.readouterr().err
    assert not target.exists()


def test_a_sequence_of_unknown_size_is_not_exported(tmp_path):
    path = dcvc_file(tmp_path, frame_pixel_num=1234)
    with pytest.raises(ValueError, match="does not state size and frames of uvg/Beau"):
        to_dcvc(load_any(path))
