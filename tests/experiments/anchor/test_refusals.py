"""Anchors refuse unknown options, absent encoders, lost frames and damaged files."""

from dataclasses import replace
from itertools import islice

import pytest

from experiments.anchor.coders import make_coder
from experiments.anchor.command import main
from experiments.anchor.settings import load_preset


@pytest.mark.parametrize(
    ("codec", "own"),
    [
        ("x264", {"x264-params": {"unheard": 1}}),
        ("x265", {"x265-params": {"unheard": 1}}),
        ("av1", {"svtav1-params": {"unheard": 1}}),
        ("x264", {"unheard": 1}),
    ],
)
def test_options_that_the_encoder_does_not_know_are_refused(
    anchor, tmp_path, codec, own
):
    preset = load_preset(codec, None)
    coder = make_coder(replace(preset, options=own), "qp", -1, name="anchor")
    with pytest.raises(ValueError, match=r"does not take.*unheard"):
        anchor.code(coder, tmp_path, 30)


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path, capsys):
    below = tmp_path / "file"
    below.write_text("mine")
    options = ["--codec=x264", "--sequences=none", "--qp", "30"]
    assert main([*options, f"--output={below}/q.json"]) == 2
    reason = f"--output: {below} is a file, it must be a folder: choose another"
    assert capsys.readouterr().err == f"error: {reason}\n"


def test_an_encoder_that_loses_frames_is_refused(anchor, tmp_path, monkeypatch):
    coder = anchor.coder_of("x264", "ldp_medium")
    write = coder.write

    def forget(task, *arguments):
        coded = write(task, *arguments)
        return replace(coded, frame_bits=coded.frame_bits[:-1])

    monkeypatch.setattr(coder, "write", forget)
    with pytest.raises(ValueError, match=r"was given 8 frames and coded 7"):
        anchor.code(coder, tmp_path, 27)


def test_a_decoder_that_loses_frames_is_refused(anchor, tmp_path, monkeypatch):
    coder = anchor.coder_of("x264", "ldp_medium")
    read = coder.read
    monkeypatch.setattr(coder, "read", lambda task: islice(read(task), 7))
    with pytest.raises(ValueError, match=r"8 frames were encoded and 7 decoded"):
        anchor.code(coder, tmp_path, 27)


def test_a_pyav_without_the_encoder_is_refused():
    preset = load_preset("x264", None)
    preset = replace(preset, run={**preset.run, "encoder": "libnothing"})
    with pytest.raises(ValueError, match=r"without libnothing: .*pip install"):
        make_coder(preset, "qp", -1, name="anchor")


@pytest.mark.parametrize(
    ("codec", "preset"),
    [
        ("x264", "ldp_medium"),
        ("x265", "ldp_medium"),
        ("av1", "ld_preset8"),
        ("vvc", "ldb_faster"),
    ],
)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.66, 0.99])
def test_a_file_that_lost_its_end_is_refused(
    anchor, tmp_path, monkeypatch, codec, preset, kept
):
    if codec == "vvc":
        pytest.importorskip("imageio_ffmpeg")
    coder = anchor.coder_of(codec, preset)
    write = coder.write

    def lose(task, *arguments):
        coded = write(task, *arguments)
        data = task.path.read_bytes()
        task.path.write_bytes(data[: int(len(data) * kept)])
        return coded

    monkeypatch.setattr(coder, "write", lose)
    with pytest.raises(ValueError, match=r"decoded|damaged|decoder failed|fewer"):
        anchor.code(coder, tmp_path, 27)


@pytest.mark.parametrize(
    ("codec", "preset"), [("x264", "ldp_medium"), ("vvc", "ldb_faster")]
)
def test_damage_that_the_decoder_sees_is_refused(
    anchor, tmp_path, monkeypatch, codec, preset
):
    if codec == "vvc":
        pytest.importorskip("imageio_ffmpeg")
    coder = anchor.coder_of(codec, preset)
    write = coder.write

    def damage(task, *arguments):
        coded = write(task, *arguments)
        data = bytearray(task.path.read_bytes())
        for place in range(len(data) // 3, len(data) // 3 + 30):
            data[place] ^= 0x55
        task.path.write_bytes(bytes(data))
        return coded

    monkeypatch.setattr(coder, "write", damage)
    with pytest.raises(ValueError, match=r"damaged|decoder failed"):
        anchor.code(coder, tmp_path, 27)
