"""CompressAI's published results of UVG, and what the user states of them."""

import json
from fractions import Fraction

import pytest

from datamodules.sequences.standard_sets import STANDARD_SETS
from experiments.compare import command
from experiments.results.load import load_any
from experiments.results.result import Point, Protocol, Result, SequenceResult
from experiments.results.set_means import MEAN, add_set_means
from experiments.results.stated import Statements
from experiments.results.typed_json import ResultError

# Some points of results/video/UVG-1080p, in the keys and the order of its files.
VTM = {
    "name": "VTM-v15.0-lowdelay",
    "description": "VTM reference software, version 15.0",
    "results": {
        "qp": [22, 27, 32, 37],
        "bitrate": [17790.914, 6960.8937, 3032.3605, 1379.0738],
        "psnr-rgb": [38.9326, 37.0104, 35.0579, 33.1958],
        "psnr-yuv": [43.1532, 41.1022, 39.0713, 37.1277],
    },
}
SSF = {
    "name": "ssf2020-mse-ans-vimeo",
    "description": "Inference (ans), trained on Vimeo90k",
    "results": {
        "q": ["ssf2020-mse-1-c1ac1a47-ans", "b", "c", "d"],
        "psnr-rgb": [32.4647, 33.6516, 34.9687, 36.3031],
        "mse-rgb": [39.4, 29.6, 21.6, 15.8],
        "bitrate": [10416.9472, 16466.6752, 24604.4078, 35834.8279],
    },
}
OLD = {
    "qp": [37, 32, 27, 22],
    "ms-ssim": [0.91, 0.94, 0.957, 0.969],
    "bpp": [0.0126, 0.0247, 0.0503, 0.1154],
    "rgb_psnr": [30.9732, 32.986, 34.8611, 36.67],
    "y_psnr": [34.4271, 36.9736, 39.3535, 41.5472],
    "u_psnr": [39.1353, 40.2591, 41.4664, 42.8953],
    "v_psnr": [39.8049, 40.8564, 41.9645, 43.2047],
}
STATED = ["set=uvg", "colour=rgb", "intra_period=-1"]


@pytest.fixture
def files(tmp_path):
    named = {"vtm": VTM, "ssf": SSF, "ffmpeg-x264-medium": OLD}
    paths = [tmp_path / f"{name}.json" for name in named]
    for path, data in zip(paths, named.values(), strict=True):
        path.write_text(json.dumps(data))
    return paths


def test_a_bitrate_over_a_stated_set_is_bits_per_pixel(files):
    with pytest.raises(ResultError, match=r"give --state vtm:set=uvg, or another"):
        load_any(files[0])
    for texts in (["vtm:set=UVG"], ["set=uvg"], ["size=1920x1080", "fps=120"]):
        (sequence,) = load_any(files[0], Statements(texts)).sequences
        assert sequence.name == MEAN
        assert (sequence.width, sequence.height, sequence.fps) == (1920, 1080, 120)
        assert sequence.points[-1].bpp == pytest.approx(17790914 / (2073600 * 120))
    # Its sequences have several rates, so a mean bitrate says no bits per pixel.
    with pytest.raises(ResultError, match="has no bpp"):
        load_any(files[0], Statements(["set=hevc_b"]))


def test_the_oldest_files_are_read(files):
    result = load_any(files[2], Statements(["set=uvg"]))
    assert result.name == "ffmpeg-x264-medium"
    assert set(result.metric_names()) == {
        *("psnr_y", "psnr_u", "psnr_v", "psnr_yuv", "psnr_rgb")
    }
    assert result.sequences[0].points[0].metrics["psnr_rgb"] == 30.9732


def test_a_name_is_one_line(files):
    for name, read in (("two\nlines", "two lines"), (" ", "ssf"), (None, "ssf")):
        data = {"name": name, "results": {"bpp": [0.1], "psnr-rgb": [30.0]}}
        files[1].write_text(json.dumps(data))
        assert load_any(files[1]).name == read


def test_what_is_stated_is_compared_and_said(files, capsys):
    names = [str(path) for path in files]
    options = ["--anchor=VTM-v15.0-lowdelay", "--metric=psnr_rgb"]
    assert command.main([*names, *options, "--state", *STATED]) == 2
    error = capsys.readouterr().err
    assert "rate is not stated" in error
    assert "colour is" not in error
    allowed = ["--allow", "unstated", "definitions"]
    assert command.main([*names, *options, "--state", *STATED, *allowed]) == 0
    said = capsys.readouterr().out
    assert "stated by the user: set uvg, colour rgb, intra_period -1" in said
    options += ["--state", *STATED, "vtm:rate=bitstream", "ssf:intra_period=12"]
    assert command.main([*names, *options, *allowed]) == 2
    assert "intra_period is -1 in VTM-v15.0-lowdelay and 12 in ssf2020" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour", "write FIELD=VALUE or NAME:FIELD=VALUE, where FIELD is one of"),
        ("color=rgb", "write FIELD=VALUE"),
        ("colour=yuv", "'yuv' is none of yuv420, rgb"),
        ("intra_period=0", "'0' is no whole number from 1"),
        ("frames=all", "'all' is no whole number from 1"),
        ("size=0x1080", "'0x1080' must be at least 1x1"),
        ("fps=0", "'0' must be above 0"),
        ("crop=", "a value must follow the ="),
        ("size=1080p", "is no size such as 1920x1080"),
        ("vmt:set=uvg", "--state vmt: no file of another suite is called so; there"),
    ],
)
def test_a_statement_that_cannot_be_is_refused(files, capsys, text, message):
    options = ["--anchor=VTM-v15.0-lowdelay", "--state", "set=uvg", text]
    assert command.main([*map(str, files), *options]) == 2
    assert message in capsys.readouterr().err


def test_what_a_file_says_cannot_be_stated_otherwise(files):
    data = {**SSF, "description": "Inference (entropy-estimation)"}
    files[1].write_text(json.dumps(data))
    result = load_any(files[1], Statements(["set=uvg", "rate=bitstream"]))
    assert result.protocol.rate == "estimate"
    with pytest.raises(ValueError, match="says rate itself: leave it out"):
        load_any(files[1], Statements(["set=uvg", "ssf:rate=bitstream"]))
    data = {**SSF, "source": "Beauty_1920x1080_120fps_420_8bit_YUV"}
    files[1].write_text(json.dumps(data))
    (sequence,) = load_any(files[1], Statements(["set=uvg"])).sequences
    assert (sequence.key, sequence.fps) == (("uvg", "Beauty"), 120)
    with pytest.raises(ValueError, match="says fps itself: leave it out"):
        load_any(files[1], Statements(["ssf:fps=50"]))


def make_ours(entries):
    sequences = [
        SequenceResult(
            *(entry.set, entry.name, 1920, 1080, Fraction(120), 96),
            [
                Point(rate, 0.01 * rate + 0.001 * at, metrics={"psnr_rgb": 30 + at})
                for rate in (1, 2, 3)
            ],
        )
        for at, entry in enumerate(entries)
    ]
    protocol = Protocol("rgb", 96, -1, "bitstream")
    return Result("ours", {"name": "ours", "kind": "learned"}, protocol, {}, sequences)


def test_our_set_is_averaged_where_another_file_has_its_mean_only(files):
    theirs = load_any(files[0], Statements(["set=uvg"]))
    ours, _ = add_set_means([make_ours(STANDARD_SETS["uvg"]), theirs])
    (mean,) = ours.sequences
    assert (mean.key, mean.width, mean.frames) == (("uvg", MEAN), 1920, 96)
    assert mean.points[1].bpp == pytest.approx(0.02 + 0.003)
    assert mean.points[1].metrics == {"psnr_rgb": pytest.approx(33)}
    assert "uvg/mean is the mean of 7 sequences" in ours.codec["note"]
    with pytest.raises(ValueError, match="ours lacks YachtRide of uvg, of which"):
        add_set_means([make_ours(STANDARD_SETS["uvg"][:-1]), theirs])
    uneven = make_ours(STANDARD_SETS["uvg"])
    del uneven.sequences[2].points[0]
    with pytest.raises(ValueError, match="ours has other rates for each sequence"):
        add_set_means([uneven, theirs])


@pytest.mark.parametrize("kind", ["learned", "imported"])
def test_a_sequence_that_is_called_mean_is_no_mean(kind):
    both = make_ours(STANDARD_SETS["uvg"][:2])
    both.sequences[0].name = MEAN
    both.codec["kind"] = kind
    one = make_ours(STANDARD_SETS["uvg"][1:2])
    assert add_set_means([both, one])[1].sequences == one.sequences
