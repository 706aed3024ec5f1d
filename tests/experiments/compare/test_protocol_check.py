"""Files that were not measured alike are not compared, unless that is allowed."""

from dataclasses import fields, replace
from fractions import Fraction

import pytest

from experiments.compare.protocol_check import EXPLANATIONS, ProtocolMismatch
from experiments.results.result import Protocol

CHANGES = {
    "colour": "rgb",
    "max_frames": 32,
    "intra_period": 32,
    "rate": "estimate",
    "matrix": "bt601_limited",
    "chroma_up": "bilinear",
    "chroma_down": "drop",
    "crop": "1920x1024",
    "yuv_as": "ffmpeg",
    "definitions": {"psnr_yuv": "weighted 4:1:1"},
}

# Nothing becomes RGB where planes stay as they are.
ALIKE = {"yuv_as": {"colour": "rgb"}}


def test_every_field_of_the_protocol_has_a_change_in_these_tests():
    assert set(CHANGES) == {field.name for field in fields(Protocol)}
    assert set(CHANGES) < set(EXPLANATIONS)


@pytest.mark.parametrize("field", CHANGES)
def test_files_that_differ_in_a_field_of_the_protocol_are_refused(
    compare, make_result, field
):
    alike = ALIKE.get(field, {})
    other = make_result("b", **alike, **{field: CHANGES[field]})
    with pytest.raises(ProtocolMismatch) as caught:
        compare(make_result("a", **alike), other)
    name = "definitions.psnr_yuv" if field == "definitions" else field
    changed = CHANGES[field]
    theirs = changed["psnr_yuv"] if field == "definitions" else changed
    message = str(caught.value)
    assert f"{name} is " in message
    assert f" in a and {theirs} in b" in message
    assert f"--allow {field}" in message


@pytest.mark.parametrize("field", CHANGES)
def test_an_allowed_difference_is_compared_and_recorded(
    compare, make_result, value, field
):
    alike = ALIKE.get(field, {})
    other = make_result("b", 0.9, **alike, **{field: CHANGES[field]})
    comparison = compare(make_result("a", **alike), other, allow=[field])
    assert value(comparison, "overall_mean") == pytest.approx(-10)
    (difference,) = comparison.differences
    assert difference.field.partition(".")[0] == field
    assert difference.files == ("a", "b")


def test_how_rgb_is_made_does_not_matter_to_planes_that_stay_as_they_are(
    compare, make_result
):
    assert not compare(make_result("a"), make_result("b", yuv_as=None)).differences


def test_a_codec_that_codes_each_frame_alone_fits_any_intra_period(
    compare, make_result
):
    alone = make_result("b", 0.9, intra_period=1)
    with pytest.raises(ProtocolMismatch, match="intra_period is -1 in a and 1 in b"):
        compare(make_result("a"), alone)
    alone.codec["structure"] = "all_intra"
    assert not compare(make_result("a"), alone).differences
    assert not compare(alone, make_result("a"), anchor="b").differences
    # It says nothing of the rest, nor of what the other does not state.
    shorter = make_result("a", max_frames=32, intra_period=None)
    with pytest.raises(ProtocolMismatch, match=r"max_frames is .*intra_period is not"):
        compare(shorter, alone)


def test_where_intra_frames_are_does_not_matter_to_still_pictures(compare, make_result):
    files = [make_result("a"), make_result("b", 0.9, intra_period=1, max_frames=0)]
    with pytest.raises(ProtocolMismatch, match="max_frames is 96 in a and 0 in b"):
        compare(*files)
    for file in files:
        for sequence in file.sequences:
            sequence.frames = 1
    assert not compare(*files).differences
    # One video among them, and it matters.
    for file in files:
        file.sequences[0].frames = 2
    with pytest.raises(ProtocolMismatch, match="intra_period is -1 in a and 1 in b"):
        compare(*files)


def test_the_same_difference_to_several_files_is_said_once(compare, make_result):
    others = [make_result(n, intra_period=32) for n in "bc"]
    for other in others:
        for sequence in other.sequences:
            sequence.frames = 60
    with pytest.raises(ProtocolMismatch) as caught:
        compare(make_result("a"), *others)
    assert "intra_period is -1 in a and 32 in b, c;" in str(caught.value)
    assert "frames of uvg/Beauty and 2 more is 96 in a and 60 in b, c" in str(
        caught.value
    )


def test_allowing_one_difference_does_not_allow_another(compare, make_result):
    other = make_result("b", colour="rgb", crop="1920x1024")
    with pytest.raises(ProtocolMismatch) as caught:
        compare(make_result("a"), other, allow=["crop"])
    assert "colour" in str(caught.value)
    assert "crop is" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("size", {"width": 832, "height": 480}),
        ("fps", {"fps": Fraction(30)}),
        ("frames", {"frames": 60}),
        ("source", {"source": "RGB images"}),
    ],
)
def test_a_shared_sequence_must_be_the_same_source(
    compare, make_result, field, changes
):
    other = make_result("b")
    other.sequences[0] = replace(other.sequences[0], **changes)
    with pytest.raises(ProtocolMismatch, match=rf"{field} of uvg/Beauty is "):
        compare(make_result("a"), other)
    assert compare(make_result("a"), other, allow=[field]).differences[0].where == (
        "uvg/Beauty"
    )


def test_what_a_file_does_not_state_is_named_and_refused(compare, make_result):
    other = make_result("b", matrix=None)
    with pytest.raises(ProtocolMismatch, match=r"matrix is bt709_full in a and not st"):
        compare(make_result("a"), other)
    with pytest.raises(ProtocolMismatch, match="matrix is not stated in b and not sta"):
        compare(other, make_result("c", matrix=None), anchor="b")
    comparison = compare(make_result("a"), other, allow=["unstated"])
    assert comparison.differences[0].values == ("bt709_full", "not stated")


def test_unstated_allows_no_difference_that_both_files_state(compare, make_result):
    other = make_result("b", crop="1920x1024", matrix=None)
    with pytest.raises(ProtocolMismatch, match="crop"):
        compare(make_result("a"), other, allow=["unstated"])


def test_an_unstated_limit_on_frames_is_judged_by_the_frames(compare, make_result):
    other = make_result("b", 0.9, max_frames=None)
    assert compare(make_result("a"), other).differences == ()
    other.sequences[0].frames = 97
    with pytest.raises(ProtocolMismatch, match="frames of uvg/Beauty is 96 in a and"):
        compare(make_result("a"), other)


def test_metrics_that_are_not_compared_may_be_defined_otherwise(compare, make_result):
    metrics = ("psnr_yuv", "lpips_alex")
    results = [make_result(n, metrics=metrics) for n in "ab"]
    results[1].protocol.definitions["lpips_alex"] = "another"
    with pytest.raises(ProtocolMismatch, match=r"definitions\.lpips_alex"):
        compare(*results)
    comparison = compare(*results, metrics=["psnr_yuv"])
    assert comparison.metrics == ("psnr_yuv",)


@pytest.mark.parametrize("name", ["nonsense", "definition.psnr_yuv"])
def test_a_field_that_does_not_exist_cannot_be_allowed(compare, make_result, name):
    with pytest.raises(ValueError, match=f"--allow {name}: no such field"):
        compare(make_result("a"), make_result("b"), allow=[name])
