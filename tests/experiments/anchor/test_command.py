"""``python -m experiments.anchor``, and the presets that it lists."""

import json
import math

import cv2
import numpy as np
import pytest

from datamodules.sequences.files import read_codes
from datamodules.sequences.find import find_sequences
from experiments.anchor.coders import TOOLS
from experiments.anchor.command import main
from experiments.anchor.pictures import PIXEL_FORMATS
from experiments.anchor.settings import codec_names, load_preset, load_presets
from experiments.compare import command as compare_command
from experiments.results.result import Result

PRESETS = [(codec, name) for codec in codec_names() for name in load_presets(codec)]


@pytest.mark.parametrize(("codec", "name"), PRESETS)
def test_every_preset_says_what_it_is_and_leaves_no_placeholder(codec, name):
    preset = load_preset(codec, name)
    assert preset.structure in ("low_delay", "random_access", "all_intra", "unknown")
    assert preset.source and preset.note and preset.tool in TOOLS
    if preset.tool in ("compressai", "decoded"):
        assert not preset.pixel_formats and not preset.options
        return
    if preset.tool == "pillow":
        assert not preset.pixel_formats and preset.intra_period == 1
        knob = preset.knobs["quality"]
        assert all(preset.check_rate("quality", rate) for rate in knob.usual)
        return
    assert set(preset.pixel_formats) == {"yuv420", "rgb"}
    assert set(preset.pixel_formats.values()) <= set(PIXEL_FORMATS)
    assert isinstance(preset.run["suffix"], str)
    for knob, limits in preset.knobs.items():
        options = preset.encoder_options(knob, limits.high, 12, 8)
        assert not any("{" in value for value in options.values())
        if preset.tool != "reference":
            assert any(f"{limits.high:g}" == value for value in options.values())


@pytest.mark.parametrize(
    ("codec", "preset", "knob", "rate", "message"),
    [
        ("h265", None, "qp", 27, "no codec 'h265'.*x264, x265"),
        ("x265", "fastest", "qp", 27, "no preset 'fastest'; it has ldp_veryslow"),
        ("x265", None, "qp", 52, "whole number from 0 to 51, not 52"),
        ("x265", None, "qp", -1, "whole number from 0 to 51, not -1"),
        ("x265", None, "qp", 27.5, "whole number from 0 to 51, not 27.5"),
        ("x265", "dvc_era", "qp", 27, "set by --crf, not by --qp"),
        ("vvc", None, "crf", 27, "set by --qp, not by --crf"),
        ("compressai", "cheng2020-attn", "quality", 7, "from 1 to 6, not 7"),
        ("compressai", None, "qp", 27, "set by --quality or --checkpoint, not by --qp"),
        ("x265", None, "decoded", 27, "set by --qp or --crf, not by --decoded"),
        ("x264", None, "qp", math.nan, "not nan"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    codec, preset, knob, rate, message
):
    with pytest.raises(ValueError, match=message):
        load_preset(codec, preset).check_rate(knob, rate)


@pytest.fixture
def clip(anchor, tmp_path):
    return anchor.write_y4m(tmp_path / "clip_64x48_25.y4m", anchor.scene())


def test_the_command_measures_a_clip(tmp_path, clip):
    output = tmp_path / "results" / "x264.json"
    command = ["--codec", "x264", "--preset", "ldp_medium", "--qp", "22", "37"]
    command += ["--sequences", str(clip), "--output", str(output), "--lpips", "none"]
    assert main([*command, "--intra_period", "4", "--max_frames", "6"]) == 0
    result = Result.load(output)
    assert result.codec["preset"] == "ldp_medium"
    assert result.codec["options"]["x264-params"] == "keyint=4:scenecut=0:open-gop=0"
    assert (result.protocol.intra_period, result.protocol.max_frames) == (4, 6)
    (measured,) = result.sequences
    worse, better = measured.points
    assert (worse.rate, better.rate) == (37, 22)
    assert worse.bpp == 8 * worse.nbytes / (6 * 64 * 48)
    assert better.metrics["psnr_y"] > worse.metrics["psnr_y"] + 6


def test_rgb_is_made_as_asked_recorded_and_not_compared_with_the_other(
    anchor, tmp_path, capsys
):
    (codes,) = anchor.scene(frames=1)
    clip = tmp_path / "clip_64x48_25.yuv"
    clip.write_bytes(b"".join(plane.tobytes() for plane in codes))
    results = {}
    for name in ("full709", "ffmpeg"):
        output = tmp_path / f"{name}.json"
        command = ["--codec=x264", "--qp", "22", "27", "32", "37", "--lpips=none"]
        command += ["--sequences", str(clip), "--output", str(output)]
        command += ["--colour=rgb", f"--yuv_as={name}", "--pictures", "0"]
        assert main(command) == 0
        results[name] = Result.load(output)
        assert json.loads(output.read_text())["protocol"]["yuv_as"] == name
        shown = results[name].sequences[0].pictures["0"]
        seen = cv2.imread(str(tmp_path / shown))[..., ::-1]
        (expected,) = read_codes(*find_sequences([str(clip)]), "rgb", yuv_as=name)
        assert np.array_equal(seen, np.stack(expected, -1))
    paths = [str(result.path) for result in results.values()]
    compare = [*paths, "--anchor=full709", f"--output={tmp_path / 'report'}"]
    assert compare_command.main([*compare, "--explain"]) == 2
    printed = capsys.readouterr()
    assert "yuv_as is full709 in full709 and ffmpeg in ffmpeg" in printed.err
    assert "--allow yuv_as" in printed.err
    assert "yuv_as: the same decoded 4:2:0 video" in printed.out
    assert compare_command.main([*compare, "--allow", "yuv_as"]) == 0
    # An older version wrote no such field, and knew one way.
    data = json.loads(results["full709"].path.read_text())
    del data["protocol"]["yuv_as"]
    assert Result.from_json(data, clip).protocol == results["full709"].protocol


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codec=x264", "--qp=27", "--yuv_as=ffmpeg"], "add --colour rgb"),
        (["--codec", "x263", "--qp", "27"], "no codec 'x263'"),
        (["--codec", "x264", "--preset", "best", "--qp", "27"], "no preset 'best'"),
        (["--codec", "x264", "--qp", "27", "99"], "from 0 to 51, not 99"),
        (["--codec", "hm", "--qp", "27"], "HM comes with no package"),
        (["--codec=x264", "--qp=27", "--bytes=27=1"], "x264 needs no --bytes"),
        (["--codec=vvc", "--qp=27", "--device=cpu"], "vvc needs no --device"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, clip, only_error, options, message):
    output = tmp_path / "results" / "x.json"
    command = ["--sequences", str(clip), "--output", str(output), *options]
    assert main(command) == 2
    assert message in only_error()
    assert not output.parent.exists()


def test_the_list_names_every_preset_and_its_source(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--list"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for codec, name in PRESETS:
        assert f"{codec}: " in text and f"  {name}" in text
    assert text.count("source: ") == len(PRESETS)
    # Which paper used which version of a program that users build.
    assert "version 16.25: the family of DCVC" in text
    assert "version 16.26: DHVC 2.0" in text and "version 18.0: DHVC 2.0" in text
    assert "version 17.0: the family of DCVC" in text


def test_the_help_names_every_codec(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.split("--codec NAME  ")[1].split("--preset")[0]
    assert all(codec in shown for codec, _ in PRESETS)
