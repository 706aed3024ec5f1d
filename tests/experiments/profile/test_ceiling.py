"""What profile says of the ceiling of latents."""

import json
from dataclasses import replace
from fractions import Fraction
from math import log10, pi
from pathlib import Path

import pytest
import torch

from datamodules.sequences.find import find_sequences
from datamodules.writing import create_video
from experiments.profile import ceiling
from experiments.profile.ceiling import find_clips, measure_ceiling, sizes_of
from experiments.profile.command import ProfileOptions, build_codec, main

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"
UI2C = ("ui2c.yaml", "rehearsal.yaml")
SINGLE = ("ui2c.yaml", "ablations/ui2c/single_frame.yaml", "rehearsal.yaml")
AMPLITUDE = 0.4
"""Of grey waves: a block of one has two dimensions, wherever it is cut out."""


def write_waves(path, frames, phase, width=64, height=48):
    columns = torch.arange(width)
    with create_video(path, width, height, Fraction(25)) as append:
        for number in range(frames):
            wave = torch.cos(2 * pi * (columns / 16 + phase + number / frames))
            append((0.5 + AMPLITUDE * wave).expand(3, height, width))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return write_waves(folder / "train", 8, 0.0), write_waves(folder / "test", 8, 0.03)


@pytest.fixture(scope="module")
def pairs():
    with torch.device("meta"):
        return build_codec([CONFIGS / name for name in UI2C])


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    monkeypatch.setattr(ceiling, "TRAINING_BLOCKS", 400)


def profile(configs, *more):
    arguments = [f"--config={CONFIGS / name}" for name in configs]
    return main([*arguments, "--height=32", "--width=32", *map(str, more)])


def test_profile_tells_the_ceiling_of_every_size(tmp_path, capsys, clips):
    train, test = clips
    output = tmp_path / "profile.json"
    given = ("--ceiling", train, "--held_out", test, "--numbers", 1, 2)
    assert profile(SINGLE, *given, f"--output={output}") == 0
    found = json.loads(output.read_text())["ceiling"]
    rows = {row["size"] or row["numbers"]: row for row in found["rows"]}
    assert list(rows) == ["paper", "small", "small_48", "tiny", 1, 2]
    assert rows["paper"]["levels"] == {"y": 128}
    assert rows["paper"]["parameters"] == 20_691_456
    assert rows["paper"]["per_pixel"] == 0.5
    assert found["training_blocks"] == {"16x16x1": 400} and found["seconds"] > 0
    # An even and an odd wave, as strong as each other; then rounding is left.
    assert rows[1]["psnr"]["test"] == pytest.approx(
        -10 * log10(AMPLITUDE**2 / 4), abs=0.1
    )
    assert 57 < rows[2]["psnr"]["test"] < 60
    assert rows["small"]["psnr"]["test"] > rows[2]["psnr"]["test"]
    said = capsys.readouterr().out
    assert "Ceiling of UI2C's latents" in said and "16x16x1" in said


def test_what_is_wrong_is_one_line(tmp_path, capsys, clips):
    output = tmp_path / "profile.json"
    given = ("--ceiling", clips[0], "--held_out", clips[0], f"--output={output}")
    assert profile(UI2C, *given) == 2
    assert "is among --ceiling and --held_out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ceiling": ("a",)}, "--ceiling needs --held_out"),
        ({"held_out": ("a",)}, "--held_out needs --ceiling"),
        ({"numbers": (3,)}, "--numbers are of a ceiling"),
        (
            {"ceiling": ("a",), "held_out": ("b",), "numbers": (4, 0)},
            "--numbers is 0: it must be at least 1",
        ),
    ],
)
def test_options_that_need_others_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        ProfileOptions(config=("ui2c",), **given)


def test_what_holds_no_block_is_refused_before_the_work(
    tmp_path, clips, pairs, monkeypatch
):
    monkeypatch.setattr(ceiling, "find_components", None)
    monkeypatch.setattr(ceiling, "sizes_of", lambda codec: {"tiny": codec})
    small = write_waves(tmp_path / "small", 2, 0.0, width=12)
    short = write_waves(tmp_path / "short", 1, 0.0)
    for training, held_out, more, said in (
        (*clips, [1537], "1537 numbers: a block of 16x16x2 has 1536"),
        (clips[0], small, [], "is 12x48: a block of 16x16x2 needs larger"),
        (short, clips[1], [], "has 1 frames: a block of 16x16x2 needs 2"),
    ):
        sequences = find_clips([str(training)], [str(held_out)])
        with pytest.raises(ValueError, match=said):
            measure_ceiling(pairs, *sequences, more)


def test_two_that_share_a_name_are_refused(tmp_path, clips):
    (tmp_path / "other").mkdir()
    other = write_waves(tmp_path / "other" / "test.y4m", 2, 0.0)
    with pytest.raises(ValueError, match="two sequences 'test'"):
        find_clips([str(clips[0])], [str(clips[1]), str(other)])


def test_a_video_that_turns_out_shorter_than_a_unit_is_refused(clips):
    (sequence,) = find_sequences([str(clips[0])])
    unknown = replace(sequence, frames=None)
    with pytest.raises(ValueError, match="has 8 frames: a block of 16x16x9 needs 9"):
        list(ceiling.units(unknown, (9, 16, 16)))


def test_a_codec_that_does_not_say_its_latents_is_refused(clips, pairs, monkeypatch):
    monkeypatch.delattr(type(pairs), "latents")
    sequences = find_clips(*([str(each)] for each in clips))
    with pytest.raises(ValueError, match="UI2CCodec does not count its latents: leave"):
        measure_ceiling(pairs, *sequences)


def test_each_clip_gives_as_many_blocks(clips, tmp_path):
    longer = write_waves(tmp_path / "longer", 20, 0.0)
    sequences = find_sequences([str(clips[0]), str(longer)])
    for sequence in sequences:
        blocks = ceiling.training_blocks([sequence, sequence], (2, 16, 16))
        assert 400 <= sum(map(len, blocks)) <= 430


def test_a_codec_without_sizes_is_measured_as_it_is(clips, pairs):
    class Sizeless(type(pairs)):
        def __init__(self, frames_per_unit=2):
            super().__init__("tiny", frames_per_unit)

    codec = Sizeless()
    assert sizes_of(codec) == {"as given": codec}
    train, test = find_clips(*([str(each)] for each in clips))
    (row,) = measure_ceiling(codec, train, test)["rows"]
    assert row["numbers"] == 32 and row["psnr"]["test"] > 40
