import math
import os
import pickle
import re
import stat
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from types import SimpleNamespace

import av
import numpy as np
import pytest

from experiments.anchor import main
from experiments.anchors.coders import make_coder
from experiments.anchors.pictures import PIXEL_FORMATS, from_samples, to_samples
from experiments.anchors.settings import codec_names, load_preset, load_presets
from experiments.results import Result

FRAMES = 8
PRESETS = [(codec, name) for codec in codec_names() for name in load_presets(codec)]
PYAV = [
    ("x264", "ldp_medium", 27),
    ("x265", "ldp_medium", 27),
    ("av1", "ld_preset8", 30),
]


def scene(colour="yuv420", height=48, width=64, frames=FRAMES):
    """A textured pattern that moves by a pixel a frame, in 8-bit planes."""
    generator = np.random.default_rng(0)
    texture = generator.normal(0, 6, (height + frames, width + frames))
    waves = np.add.outer(np.arange(height + frames), np.arange(width + frames))
    luma = 128 + 60 * np.sin(waves / 9) + texture
    found = []
    for t in range(frames):
        full = luma[t : t + height, t : t + width].clip(0, 255).astype(np.uint8)
        half = full[::2, ::2]
        if colour == "rgb":
            found.append((full, full // 2 + 50, 255 - full))
        else:
            found.append((full, half // 2 + 60, 200 - half // 2))
    return found


def sequence(codes):
    height, width = codes[0][0].shape
    return SimpleNamespace(name="scene", height=height, width=width, fps=Fraction(25))


def coder_of(codec, preset=None, knob="qp", intra_period=-1, **options):
    preset = load_preset(codec, preset)
    return make_coder(preset, knob, intra_period, name="anchor", **options)


def code(coder, tmp_path, rate, codes=None, colour="yuv420"):
    codes = codes or scene(colour)
    decoded = []
    cost = coder.code(
        sequence(codes), lambda: iter(codes), colour, rate, tmp_path, decoded.append
    )
    return cost, decoded


def psnr(codes, decoded):
    errors = [
        np.mean((plane - other.numpy() * 255.0) ** 2)
        for frame, planes in zip(codes, decoded, strict=True)
        for plane, other in zip(frame, planes, strict=True)
    ]
    return 10 * math.log10(255**2 / max(np.mean(errors), 1e-9))


def key_frames(path, container):
    with av.open(str(path), format=container) as file:
        packets = [p for p in file.demux(video=0) if p.size]
    return [n for n, packet in enumerate(packets) if packet.is_keyframe]


@pytest.mark.parametrize(("codec", "name"), PRESETS)
def test_every_preset_says_what_it_is_and_leaves_no_placeholder(codec, name):
    preset = load_preset(codec, name)
    assert preset.structure in ("low_delay", "random_access")
    assert preset.source and preset.note
    assert set(preset.pixel_formats) == {"yuv420", "rgb"}
    assert set(preset.pixel_formats.values()) <= set(PIXEL_FORMATS)
    assert isinstance(preset.run["suffix"], str)
    for knob, limits in preset.knobs.items():
        options = preset.encoder_options(knob, limits.high, 12, 8)
        assert not any("{" in value for value in options.values())
        if preset.tool != "reference":
            assert any(f"{limits.high:g}" == value for value in options.values())


@pytest.mark.parametrize("colour", ["yuv420", "rgb"])
@pytest.mark.parametrize(("codec", "preset", "rate"), PYAV)
def test_bytes_are_those_of_the_file_and_of_its_frames(
    tmp_path, codec, preset, rate, colour
):
    coder = coder_of(codec, preset)
    cost, decoded = code(coder, tmp_path, rate, colour=colour)
    (path,) = tmp_path.iterdir()
    assert path.name == f"stream{coder.preset.run['suffix']}"
    assert cost.nbytes == path.stat().st_size
    assert len(cost.frame_bits) == len(decoded) == FRAMES
    assert 0 <= 8 * cost.nbytes - sum(cost.frame_bits) < 800
    assert cost.frame_bits[0] == max(cost.frame_bits)
    assert psnr(scene(colour), decoded) > 27
    assert cost.seconds["encode"] > 0 and cost.seconds["decode"] > 0


@pytest.mark.parametrize(("codec", "preset", "rate"), PYAV)
def test_a_higher_qp_costs_less_and_looks_worse(tmp_path, codec, preset, rate):
    points = []
    for number, value in enumerate((rate - 12, rate, rate + 12)):
        folder = tmp_path / str(number)
        folder.mkdir()
        cost, decoded = code(coder_of(codec, preset), folder, value)
        points.append((cost.nbytes, psnr(scene(), decoded)))
    assert points == sorted(points, reverse=True)
    assert points[0][1] - points[2][1] > 3


@pytest.mark.parametrize(("codec", "preset", "rate"), PYAV)
def test_a_second_run_gives_the_same_bytes(tmp_path, codec, preset, rate):
    files = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        # As a worker gets it.
        coder = pickle.loads(pickle.dumps(coder_of(codec, preset)))
        code(coder, folder, rate)
        files.append(next(folder.iterdir()).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_encoders_do_not_sign_their_files(tmp_path, codec):
    code(coder_of(codec, "ldp_medium"), tmp_path, 27)
    (path,) = tmp_path.iterdir()
    assert codec.encode() not in path.read_bytes()


def test_x264_at_qp_zero_is_lossless(tmp_path):
    _, decoded = code(coder_of("x264"), tmp_path, 0)
    for frame, planes in zip(scene(), decoded, strict=True):
        for plane, other in zip(frame, planes, strict=True):
            assert np.array_equal(plane, (other * 255).numpy())


def test_the_same_qp_is_the_same_step_at_eight_and_ten_bits(tmp_path):
    codes = scene()
    results = []
    for name, formats in (("8", {}), ("10", {"yuv420": "yuv420p10le"})):
        preset = load_preset("x264", "ldp_medium")
        formats = {**preset.pixel_formats, **formats}
        preset = replace(preset, pixel_formats=formats)
        (tmp_path / name).mkdir()
        coder = make_coder(preset, "qp", -1, name="anchor")
        cost, decoded = code(coder, tmp_path / name, 27, codes)
        results.append((cost.nbytes, psnr(codes, decoded)))
    assert results[1][0] == pytest.approx(results[0][0], rel=0.1)
    assert results[1][1] == pytest.approx(results[0][1], abs=0.5)


@pytest.mark.parametrize("intra_period", [-1, 3])
@pytest.mark.parametrize(("codec", "preset", "rate"), PYAV)
def test_intra_frames_are_where_the_intra_period_says(
    tmp_path, codec, preset, rate, intra_period
):
    coder = coder_of(codec, preset, intra_period=intra_period)
    # A cut, at which encoders would like to start anew.
    codes = scene(frames=4) + [tuple(255 - p for p in f) for f in scene(frames=4)]
    code(coder, tmp_path, rate, codes)
    (path,) = tmp_path.iterdir()
    wanted = [0] if intra_period == -1 else [0, 3, 6]
    assert key_frames(path, coder.preset.run["container"]) == wanted


@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_lookahead_starts_no_intra_frame_at_a_cut(tmp_path, codec):
    codes = scene() + [tuple(255 - plane for plane in frame) for frame in scene()]
    code(coder_of(codec, "ra_medium"), tmp_path, 27, codes)
    with av.open(str(next(tmp_path.iterdir()))) as file:
        kinds = ["?IPB"[frame.pict_type] for frame in file.decode(video=0)]
    assert (kinds[0], kinds.count("I")) == ("I", 1)


def coded_pictures(data):
    """Count the pictures of each temporal unit of an AV1 stream, hidden ones too."""
    units, place = [], 0
    while place < len(data):
        kind, has_extension = data[place] >> 3 & 15, data[place] >> 2 & 1
        place += 1 + has_extension
        size = shift = 0
        while True:
            byte = data[place]
            size |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                break
        if kind == 2:  # a temporal delimiter
            units.append(0)
        units[-1] += kind in (3, 6)  # a frame's header, alone or with the frame
        place += size
    return units


@pytest.mark.parametrize(
    ("codec", "name"), [row for row in PRESETS if row[0] in ("x264", "x265", "av1")]
)
def test_low_delay_presets_code_no_frame_before_an_earlier_one(tmp_path, codec, name):
    preset = load_preset(codec, name)
    knob = next(iter(preset.knobs))
    code(coder_of(codec, name, knob), tmp_path, 30, scene(frames=12))
    (path,) = tmp_path.iterdir()
    if codec == "av1":
        in_order = coded_pictures(path.read_bytes()) == [1] * 12
    else:
        with av.open(str(path), format=preset.run["container"]) as file:
            assert len(list(file.decode(video=0))) == 12
            in_order = not file.streams.video[0].codec_context.has_b_frames
    assert in_order is (preset.structure == "low_delay")


def test_an_encoder_that_keeps_another_intra_period_is_refused(tmp_path):
    preset = load_preset("x264", "ldp_medium")
    options = {**preset.options, "x264-params": {"keyint": 2, "scenecut": 0}}
    preset = replace(preset, options=options)
    coder = make_coder(preset, "qp", 4, name="anchor")
    with pytest.raises(ValueError, match=r"intra frames are \[0, 2, 4, 6\].*\[0, 4\]"):
        code(coder, tmp_path, 27)


@pytest.mark.parametrize(
    ("codec", "own"),
    [
        ("x264", {"x264-params": {"unheard": 1}}),
        ("x265", {"x265-params": {"unheard": 1}}),
        ("av1", {"svtav1-params": {"unheard": 1}}),
        ("x264", {"unheard": 1}),
    ],
)
def test_options_that_the_encoder_does_not_know_are_refused(tmp_path, codec, own):
    preset = load_preset(codec, None)
    coder = make_coder(replace(preset, options=own), "qp", -1, name="anchor")
    with pytest.raises(ValueError, match=r"does not take.*unheard"):
        code(coder, tmp_path, 30)


def test_bits_of_reordered_frames_are_in_order_of_display(tmp_path):
    codes = scene()
    cost, _ = code(coder_of("x264", "ra_medium"), tmp_path, 24, codes)
    (path,) = tmp_path.iterdir()
    with av.open(str(path), format="h264") as file:
        kinds = ["?IPB"[frame.pict_type] for frame in file.decode(video=0)]
    assert "B" in kinds
    by_kind = {
        kind: [b for b, k in zip(cost.frame_bits, kinds, strict=True) if k == kind]
        for kind in "IPB"
    }
    assert max(by_kind["B"]) < min(by_kind["P"]) < min(by_kind["I"])


@pytest.mark.parametrize("colour", ["yuv420", "rgb"])
@pytest.mark.parametrize(("codec", "preset"), [row[:2] for row in PYAV])
def test_odd_sizes_are_padded_and_cut_again(tmp_path, codec, preset, colour):
    codes = scene(colour, 47, 63)
    _, decoded = code(coder_of(codec, preset), tmp_path, 20, codes, colour)
    assert [p.shape for p in decoded[0]] == [p.shape for p in codes[0]]
    assert psnr(codes, decoded) > 29


def test_ten_bit_pictures_hold_eight_bit_frames_exactly():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    codes = (values, values[:8, :8], values[8:, 8:])
    samples = to_samples(codes, "yuv420", PIXEL_FORMATS["yuv420p10le"])
    assert np.array_equal(samples[0], values.astype(int) * 4)
    planes = from_samples(samples, "yuv420", PIXEL_FORMATS["yuv420p10le"], 16, 16)
    for plane, code_plane in zip(planes, codes, strict=True):
        assert np.array_equal((plane * 255).round().numpy(), code_plane)


def test_ten_bit_444_keeps_every_rgb_colour():
    generator = np.random.default_rng(0)
    codes = tuple(generator.integers(0, 256, (64, 64), dtype=np.uint8) for _ in "rgb")
    samples = to_samples(codes, "rgb", PIXEL_FORMATS["yuv444p10le"])
    planes = from_samples(samples, "rgb", PIXEL_FORMATS["yuv444p10le"], 64, 64)
    for plane, code_plane in zip(planes, codes, strict=True):
        assert np.array_equal((plane * 255).round().numpy(), code_plane)
    # The matrix is BT.709's, over the full range.
    r, g, b = (plane.astype(float) / 255 for plane in codes)
    luma = np.round(1023 * (0.2126 * r + 0.7152 * g + 0.0722 * b))
    assert np.abs(samples[0] - luma).max() <= 1


def test_rgb_without_444_is_subsampled_and_comes_back_smooth():
    codes = tuple(np.full((6, 8), value, dtype=np.uint8) for value in (200, 90, 30))
    pixel_format = PIXEL_FORMATS["yuv420p10le"]
    samples = to_samples(codes, "rgb", pixel_format)
    assert [s.shape for s in samples] == pixel_format.shapes(6, 8)
    planes = from_samples(samples, "rgb", pixel_format, 6, 8)
    for plane, code_plane in zip(planes, codes, strict=True):
        assert np.array_equal((plane * 255).round().numpy(), code_plane)


def test_420_frames_are_not_coded_as_444():
    with pytest.raises(ValueError, match=r"not coded as yuv444p10le"):
        to_samples(scene()[0], "yuv420", PIXEL_FORMATS["yuv444p10le"])


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
        ("x264", None, "qp", math.nan, "not nan"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    codec, preset, knob, rate, message
):
    with pytest.raises(ValueError, match=message):
        load_preset(codec, preset).check_rate(knob, rate)


def test_encoders_leave_the_priority_of_the_process_alone(tmp_path):
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    code(coder_of("av1", "ld_preset8"), tmp_path, 40)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_an_encoder_that_loses_frames_is_refused(tmp_path, monkeypatch):
    coder = coder_of("x264", "ldp_medium")
    encode = coder.encode

    def forget(task, pictures):
        coded = encode(task, pictures)
        return replace(coded, frame_bits=coded.frame_bits[:-1])

    monkeypatch.setattr(coder, "encode", forget)
    with pytest.raises(ValueError, match=r"was given 8 frames and coded 7"):
        code(coder, tmp_path, 27)


def test_a_decoder_that_loses_frames_is_refused(tmp_path, monkeypatch):
    coder = coder_of("x264", "ldp_medium")
    decode = coder.decode
    monkeypatch.setattr(coder, "decode", lambda task: islice(decode(task), 7))
    with pytest.raises(ValueError, match=r"8 frames were encoded and 7 decoded"):
        code(coder, tmp_path, 27)


def test_crf_may_be_fractional(tmp_path):
    cost, _ = code(coder_of("x264", "dvc_era", "crf"), tmp_path, 23.5)
    assert cost.nbytes > 100


def test_a_pyav_without_the_encoder_is_refused():
    preset = load_preset("x264", None)
    preset = replace(preset, run={**preset.run, "encoder": "libnothing"})
    with pytest.raises(ValueError, match=r"without libnothing: .*pip install"):
        make_coder(preset, "qp", -1, name="anchor")


@pytest.mark.parametrize(
    ("codec", "preset", "rate"), [*PYAV, ("vvc", "ldb_faster", 27)]
)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.66, 0.99])
def test_a_file_that_lost_its_end_is_refused(
    tmp_path, monkeypatch, codec, preset, rate, kept
):
    if codec == "vvc":
        pytest.importorskip("imageio_ffmpeg")
    coder = coder_of(codec, preset)
    encode = coder.encode

    def lose(task, pictures):
        coded = encode(task, pictures)
        data = task.path.read_bytes()
        task.path.write_bytes(data[: int(len(data) * kept)])
        return coded

    monkeypatch.setattr(coder, "encode", lose)
    with pytest.raises(ValueError, match=r"decoded|damaged|decoder failed|fewer"):
        code(coder, tmp_path, rate)


@pytest.mark.parametrize(
    ("codec", "preset", "rate"), [PYAV[0], ("vvc", "ldb_faster", 27)]
)
def test_damage_that_the_decoder_sees_is_refused(
    tmp_path, monkeypatch, codec, preset, rate
):
    if codec == "vvc":
        pytest.importorskip("imageio_ffmpeg")
    coder = coder_of(codec, preset)
    encode = coder.encode

    def damage(task, pictures):
        coded = encode(task, pictures)
        data = bytearray(task.path.read_bytes())
        for place in range(len(data) // 3, len(data) // 3 + 30):
            data[place] ^= 0x55
        task.path.write_bytes(bytes(data))
        return coded

    monkeypatch.setattr(coder, "encode", damage)
    with pytest.raises(ValueError, match=r"damaged|decoder failed"):
        code(coder, tmp_path, rate)


def test_programs_are_refused_for_codecs_that_need_none(tmp_path):
    with pytest.raises(ValueError, match=r"x264 needs no --binary"):
        coder_of("x264", binary=tmp_path / "x264")


# A program that behaves like EncoderApp and DecoderApp: packed frames and HM's log.
FAKE = """\
#!{python}
import sys, zlib
if len(sys.argv) == 1:
    print("HM software: Encoder Version [16.25] (including RExt)")
    raise SystemExit(1)
options, words = {{}}, sys.argv[1:]
while words:
    word = words.pop(0)
    if word.startswith("--"):
        key, value = word[2:].split("=")
    else:
        key, value = word[1:], words.pop(0)
    options[key] = value
if "InputFile" not in options:
    assert options["d"] == "10", options
    open(options["o"], "wb").write(zlib.decompress(open(options["b"], "rb").read()))
    raise SystemExit
assert open(options["c"]).read() == "GOPSize: 4", options
if options["q"] == "51":
    print("reading"); print("Error: no such quantiser"); raise SystemExit(1)
data = open(options["InputFile"], "rb").read()
if options["InputBitDepth"] == "8":
    data = b"".join((4 * x).to_bytes(2, "little") for x in data)
packed = zlib.compress(data)
open(options["b"], "wb").write(packed)
open(options["o"], "wb").write(data)
frames, period = int(options["f"]), int(options["IntraPeriod"])
for n in range(0 if options["q"] == "50" else frames):
    kind = "I" if n == 0 or (period > 0 and n % period == 0) else "B"
    print(f"POC {{n:4}} TId: 0 ( {{kind}}-SLICE, nQP 27 QP 27 ) {{100 + n:10}} bits "
          f"[Y 40.1 dB    U 41.1 dB    V 42.1 dB] [ET     0 ] [L0 ]")
"""


@pytest.fixture
def reference(tmp_path):
    program = tmp_path / "EncoderApp"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    config = tmp_path / "encoder_lowdelay_main10.cfg"
    config.write_text("GOPSize: 4")
    return {"binary": program, "config": config}


@pytest.mark.parametrize("colour", ["yuv420", "rgb"])
@pytest.mark.parametrize("with_decoder", [True, False])
@pytest.mark.parametrize("codec", ["hm", "vtm"])
def test_a_reference_encoder_runs_by_its_command_line(
    tmp_path, reference, codec, with_decoder, colour
):
    if with_decoder:
        reference["decoder"] = reference["binary"]
    coder = coder_of(codec, intra_period=4, **reference)
    (tmp_path / "work").mkdir()
    cost, decoded = code(coder, tmp_path / "work", 27, colour=colour)
    assert cost.nbytes == (tmp_path / "work" / "stream.bin").stat().st_size
    assert cost.frame_bits == [100.0 + n for n in range(FRAMES)]
    assert psnr(scene(colour), decoded) > (99 if colour == "yuv420" else 50)
    described = coder.describe()
    assert described["version"] == "16.25"
    assert ("decoder" == described["measured"]) is with_decoder


def test_bits_are_spread_evenly_where_the_log_does_not_say(tmp_path, reference):
    (tmp_path / "work").mkdir()
    cost, _ = code(coder_of("hm", **reference), tmp_path / "work", 50)
    assert len(set(cost.frame_bits)) == 1
    assert sum(cost.frame_bits) == pytest.approx(8 * cost.nbytes)


def test_the_last_line_of_a_failing_reference_encoder_is_told(tmp_path, reference):
    (tmp_path / "work").mkdir()
    with pytest.raises(ValueError, match=r"HM on scene.*code 1: Error: no such quant"):
        code(coder_of("hm", **reference), tmp_path / "work", 51)


def test_vtm_log_lines_are_understood():
    run = load_preset("vtm", None).run
    line = (
        "POC    4 LId:  0 TId: 0 ( TRAIL, B-SLICE, QP 36 )      13456 bits "
        "[Y 37.1712 dB    U 41.9385 dB    V 42.6 dB] [ET     3 ] [L0 3 0 ] [L1 3 0 ]"
    )
    found = re.search(run["frame_line"], line)
    assert (found["type"], found["bits"]) == ("B", "13456")
    greeting = "VVCSoftware: VTM Encoder Version 17.0 [Linux][GCC 12.2.0][64 bit]"
    assert re.search(run["version_line"], greeting)["version"] == "17.0"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("binary", "HM comes with no package"),
        ("config", "--config.*not named.*encoder_lowdelay_main10.cfg"),
    ],
)
def test_what_a_reference_encoder_needs_is_asked_for(reference, lost, message):
    with pytest.raises(ValueError, match=message):
        coder_of("hm", **{**reference, lost: None})


def test_a_program_that_is_not_there_is_refused(tmp_path, reference):
    reference["binary"] = tmp_path / "nothing"
    with pytest.raises(ValueError, match=r"nothing is no program"):
        coder_of("hm", **reference)


def test_the_pip_command_is_told_where_the_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install 'imageio-ffmpeg>=0.8.1'"):
        coder_of("vvc")


def test_libaom_at_crf_zero_is_lossless_through_the_pipe(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    cost, decoded = code(coder_of("aom", "ld_cpu6", "crf"), tmp_path, 0)
    assert psnr(scene(), decoded) > 99
    assert cost.nbytes == (tmp_path / "stream.obu").stat().st_size
    assert sum(cost.frame_bits) == 8 * cost.nbytes


@pytest.mark.parametrize("intra_period", [-1, 5])
def test_vvc_starts_anew_at_each_intra_period(tmp_path, intra_period):
    pytest.importorskip("imageio_ffmpeg")
    coder = coder_of("vvc", "ldb_faster", intra_period=intra_period)
    codes = scene()
    cost, decoded = code(coder, tmp_path, 27, codes)
    assert [p.name for p in tmp_path.iterdir()] == ["stream.266"]
    assert cost.nbytes == (tmp_path / "stream.266").stat().st_size
    assert len(cost.frame_bits) == FRAMES
    assert psnr(codes, decoded) > 29
    largest = sorted(range(FRAMES), key=lambda n: -cost.frame_bits[n])
    assert sorted(largest[:2]) == ([0, 5] if intra_period == 5 else largest[:2])


def test_an_ffmpeg_encoder_that_fails_says_why(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    preset = load_preset("vvc", "ldb_faster")
    preset = replace(preset, options={"vvenc-params": {"unheard": 1}})
    coder = make_coder(preset, "qp", -1, name="anchor")
    with pytest.raises(ValueError, match=r"VVenC on scene at qp 27.*unheard"):
        code(coder, tmp_path, 27)


def test_vmaf_falls_with_the_damage():
    pytest.importorskip("imageio_ffmpeg")
    from experiments.anchors.vmaf import Vmaf

    codes = scene()
    means = []
    for step in (1, 16, 48):
        meter = Vmaf(48, 64)
        for frame in codes:
            meter.add(frame, tuple(plane // step * step for plane in frame))
        values = meter.close()
        assert len(values) == FRAMES
        means.append(sum(values) / FRAMES)
    assert means == sorted(means, reverse=True) and means[0] > 95


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip_64x48_25.y4m"
    data = b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg XCOLORRANGE=FULL\n"
    for frame in scene():
        data += b"FRAME\n" + b"".join(plane.tobytes() for plane in frame)
    path.write_bytes(data)
    return path


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codec", "x263", "--qp", "27"], "no codec 'x263'"),
        (["--codec", "x264", "--preset", "best", "--qp", "27"], "no preset 'best'"),
        (["--codec", "x264", "--qp", "27", "99"], "from 0 to 51, not 99"),
        (["--codec", "hm", "--qp", "27"], "HM comes with no package"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, clip, capsys, options, message):
    output = tmp_path / "results" / "x.json"
    command = ["--sequences", str(clip), "--output", str(output), *options]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not output.parent.exists()


def test_the_list_names_every_preset_and_its_source(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--list"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for codec, name in PRESETS:
        assert f"{codec}: " in text and f"  {name}" in text
    assert text.count("source: ") == len(PRESETS)
