"""Encoders of still pictures: a file for each frame, all of whose bytes count."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, features

from experiments.anchor.coders import make_coder
from experiments.anchor.command import main
from experiments.anchor.settings import load_preset, load_presets
from experiments.compare import command as compare_command
from experiments.evaluate.coder import Task
from experiments.results.result import Result

FEATURES = {"jpeg": "jpg", "webp": "webp", "avif": "avif"}
CODECS = [codec for codec, feature in FEATURES.items() if features.check(feature)]
PRESETS = [(codec, name) for codec in CODECS for name in load_presets(codec)]


def still(codec="jpeg", preset=None, **changes):
    preset = replace(load_preset(codec, preset), **changes)
    return make_coder(preset, "quality", 1, name="anchor")


@pytest.mark.parametrize("colour", ["yuv420", "rgb"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_byte_of_every_file_counts(anchor, tmp_path, codec, colour):
    # As a worker gets it.
    coder = pickle.loads(pickle.dumps(still(codec)))
    cost, decoded = anchor.code(coder, tmp_path, 80, colour=colour)
    files = sorted(tmp_path.iterdir())
    assert [8 * path.stat().st_size for path in files] == cost.frame_bits
    assert cost.nbytes == sum(path.stat().st_size for path in files)
    assert len(files) == len(decoded) == anchor.FRAMES
    assert anchor.psnr(anchor.scene(colour), decoded) > 30
    assert cost.seconds["encode"] > 0 and cost.seconds["decode"] > 0
    # Another program shows each file alone.
    with Image.open(files[3]) as picture:
        assert (picture.format, picture.size) == (codec.upper(), (64, 48))
        assert not {"exif", "icc_profile"} & picture.info.keys()


@pytest.mark.parametrize(("codec", "preset"), PRESETS)
def test_a_higher_quality_costs_more_and_looks_better(anchor, tmp_path, codec, preset):
    points = []
    # Sides that no block divides.
    codes = anchor.scene("rgb", 47, 63, frames=1)
    for quality in (5, 50, 95):
        folder = tmp_path / str(quality)
        folder.mkdir()
        coder = still(codec, preset)
        cost, decoded = anchor.code(coder, folder, quality, codes, "rgb")
        points.append((cost.nbytes, anchor.psnr(codes, decoded)))
    assert points == sorted(points) and points[2][1] > points[0][1] + 3
    assert coder.describe()["structure"] == "all_intra"
    assert coder.describe()["options"]["quality"] == "{rate}"
    assert all(coder.environment().values())


def test_a_jpeg_file_holds_the_colours_that_viewers_expect(anchor, tmp_path):
    codes = tuple(np.full((16, 16), value, np.uint8) for value in (200, 90, 30))
    _, (planes,) = anchor.code(still(), tmp_path, 100, [codes], "rgb")
    for plane, code in zip(planes, codes, strict=True):
        assert torch.allclose(plane * 255, torch.tensor(float(code[0, 0])), atol=1.5)
    with Image.open(tmp_path / "000000.jpg") as picture:
        picture.draft("YCbCr", None)
        luma = np.array(picture)[..., 0]
        assert [layer[1:3] for layer in picture.layer] == [(2, 2), (1, 1), (1, 1)]
    # BT.601 over the full range, whatever matrix the suite's own planes have.
    assert np.abs(luma - (0.299 * 200 + 0.587 * 90 + 0.114 * 30)).max() <= 1
    assert "BT.601, full range" in still().describe()["colour"]


def test_huffman_tables_are_the_pictures_own(anchor, tmp_path):
    sizes = []
    for name, options in (("a", {}), ("b", {"subsampling": "4:2:0"})):
        (tmp_path / name).mkdir()
        changes = {"options": options} if options else {}
        cost, _ = anchor.code(still(**changes), tmp_path / name, 50)
        sizes.append(cost.nbytes)
    assert sizes[0] < 0.9 * sizes[1]


def test_a_pillow_without_the_format_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(ValueError, match=r"built without AVIF: .*pip install .*11\.3"):
        make_coder(load_preset("avif", None), "quality", 1, name="anchor")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_file_that_lost_its_end_is_refused(anchor, tmp_path, codec, kept):
    coder, codes = still(codec), anchor.scene("rgb")
    cost, _ = anchor.code(coder, tmp_path, 50, codes, "rgb")
    path = sorted(tmp_path.iterdir())[2]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(
        ValueError, match=r"scene at quality 50: frame 2 is not decoded"
    ):
        list(coder.decode(task_of(anchor, codes, tmp_path), cost))


def test_a_file_of_another_size_is_refused(anchor, tmp_path):
    coder, codes = still(), anchor.scene("rgb", frames=1)
    cost, _ = anchor.code(coder, tmp_path, 50, codes, "rgb")
    Image.new("RGB", (5, 7)).save(tmp_path / "000000.jpg")
    with pytest.raises(ValueError, match="frame 0 decodes to 5x7"):
        list(coder.decode(task_of(anchor, codes, tmp_path), cost))


@pytest.mark.skipif("webp" not in CODECS, reason="this Pillow has no WebP")
def test_a_picture_that_the_format_cannot_hold_is_refused(anchor, tmp_path):
    codes = anchor.scene("rgb", 1, 16384, frames=1)
    with pytest.raises(ValueError, match=r"WebP on scene at .* frame 0 is not coded: "):
        anchor.code(still("webp"), tmp_path, 50, codes, "rgb")
    assert not list(tmp_path.iterdir())


def task_of(anchor, codes, folder):
    return Task(anchor.sequence(codes), lambda: iter(codes), "rgb", 50, folder)


@pytest.fixture
def pictures(tmp_path):
    """Photographs of several sizes, as far as a wave with noise is one."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, (height, width) in {"wide.png": (96, 130), "tall.png": (121, 97)}.items():
        waves = np.add.outer(np.arange(height), np.arange(width)) / 9
        luma = 128 + 80 * np.sin(waves) + generator.normal(0, 8, (height, width))
        pixels = np.stack([luma, 255 - luma, luma / 2], -1).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return folder


def test_pictures_of_a_folder_are_measured_and_compared(pictures, tmp_path, capsys):
    shared = [f"--sequences=stills={pictures}", "--colour=rgb", "--lpips=random"]
    jpeg, x264 = tmp_path / "jpeg.json", tmp_path / "x264.json"
    assert main(["--codec=jpeg", *shared, f"--output={jpeg}"]) == 0
    result = Result.load(jpeg)
    assert result.protocol.intra_period == 1
    assert [(s.set, s.name, s.width, s.height, s.frames) for s in result.sequences] == [
        ("photographs", "tall", 97, 121, 1),
        ("photographs", "wide", 130, 96, 1),
    ]
    usual = load_preset("jpeg", None).knobs["quality"].usual
    for _, point in result.all_points():
        assert {"psnr_rgb", "ms_ssim_rgb", "lpips_random"} <= point.metrics.keys()
        # Metrics of two frames have no value, and say so.
        assert not {"tof", "tlp_random"} & point.metrics.keys()
        assert {"tof", "tlp_random"} <= point.unavailable.keys()
        assert point.per_frame["bits"] == [8 * point.nbytes]
    assert [p.rate for p in result.sequences[0].points] == list(usual)
    # One start is every start.
    limited = ["--codec=x264", "--preset=ldp_medium", "--qp", "20", "26", "32", "38"]
    limited += ["--max_frames=96", f"--output={x264}"]
    assert main([*limited, *shared]) == 0
    assert Result.load(x264).protocol.intra_period == -1
    report = tmp_path / "report"
    files = [str(jpeg), str(x264), f"--output={report}", "--metric=psnr_rgb"]
    assert compare_command.main([*files, "--anchor=jpeg"]) == 0
    assert "tof" not in capsys.readouterr().err
    assert "| intra_period | 1 | -1 |" in (report / "report.md").read_text()


def test_an_intra_period_that_jpeg_has_not_is_told(pictures, tmp_path, capsys):
    output = tmp_path / "jpeg.json"
    command = ["--codec=jpeg", "--quality=50", f"--sequences=stills:1={pictures}"]
    command += ["--lpips=none", f"--output={output}", "--intra_period"]
    for period, told in (("32", True), ("1", False), ("-1", False)):
        assert main([*command, period]) == 0
        assert ("intra period is 1, and not 32" in capsys.readouterr().err) is told
    assert Result.load(output).protocol.intra_period == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codec=jpeg", "--qp=30"], "set by --quality, not by --qp"),
        (["--codec=jpeg", "--quality=0"], "whole number from 1 to 100, not 0"),
        (["--codec=webp", "--quality=50.5"], "from 0 to 100, not 50.5"),
        (["--codec=x265"], "x265 needs its rates: give --qp or --crf"),
        (["--codec=decoded"], "decoded needs its rates: give --decoded"),
    ],
)
def test_rates_that_there_are_not_are_refused(
    pictures, tmp_path, only_error, options, message
):
    output = tmp_path / "results" / "x.json"
    command = [f"--sequences=stills={pictures}", f"--output={output}", *options]
    assert main(command) == 2
    assert message in only_error()
    assert not output.parent.exists()
