"""Anchors that are programs of their own: HM, VTM, and FFmpeg for VVenC and libaom.

VMAF is measured by the same FFmpeg.
"""

import re
import stat
import sys
from dataclasses import replace

import pytest
import torch

from callbacks.metrics.gauges import Frame, FramePair
from callbacks.metrics.vmaf import Vmaf
from experiments.anchor.coders import make_coder
from experiments.anchor.settings import load_preset


def test_programs_are_refused_for_codecs_that_need_none(anchor, tmp_path):
    with pytest.raises(ValueError, match="x264 needs no --binary: leave it out"):
        anchor.coder_of("x264", binary=tmp_path / "x264")


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
    anchor, tmp_path, reference, codec, with_decoder, colour
):
    if with_decoder:
        reference["decoder"] = reference["binary"]
    coder = anchor.coder_of(codec, intra_period=4, **reference)
    (tmp_path / "work").mkdir()
    cost, decoded = anchor.code(coder, tmp_path / "work", 27, colour=colour)
    assert cost.nbytes == (tmp_path / "work" / "stream.bin").stat().st_size
    assert cost.frame_bits == [100.0 + n for n in range(anchor.FRAMES)]
    assert anchor.psnr(anchor.scene(colour), decoded) > (
        99 if colour == "yuv420" else 50
    )
    described = coder.describe()
    assert described["version"] == "16.25"
    assert ("decoder" == described["measured"]) is with_decoder
    assert list(described["paper_versions"]) == (
        ["16.25", "16.26"] if codec == "hm" else ["17.0", "18.0"]
    )
    # The fake encoder's version is HM's.
    assert len(coder.remarks()) == (codec == "vtm")


def test_a_version_that_no_paper_used_is_told(anchor, reference):
    (remark,) = anchor.coder_of("vtm", **reference).remarks()
    assert "version of EncoderApp is 16.25, papers used 17.0: the family" in remark
    assert "18.0: DHVC 2.0" in remark


def test_bits_are_spread_evenly_where_the_log_does_not_say(anchor, tmp_path, reference):
    (tmp_path / "work").mkdir()
    cost, _ = anchor.code(anchor.coder_of("hm", **reference), tmp_path / "work", 50)
    assert len(set(cost.frame_bits)) == 1
    assert sum(cost.frame_bits) == pytest.approx(8 * cost.nbytes)


def test_the_last_line_of_a_failing_reference_encoder_is_told(
    anchor, tmp_path, reference
):
    (tmp_path / "work").mkdir()
    with pytest.raises(ValueError, match=r"HM on scene.*code 1: Error: no such quant"):
        anchor.code(anchor.coder_of("hm", **reference), tmp_path / "work", 51)


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
def test_what_a_reference_encoder_needs_is_asked_for(anchor, reference, lost, message):
    with pytest.raises(ValueError, match=message):
        anchor.coder_of("hm", **{**reference, lost: None})


def test_a_program_that_is_not_there_is_refused(anchor, tmp_path, reference):
    reference["binary"] = tmp_path / "nothing"
    with pytest.raises(ValueError, match=r"nothing is no program"):
        anchor.coder_of("hm", **reference)


def test_the_pip_command_is_told_where_the_extra_is_missing(anchor, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install 'imageio-ffmpeg>=0.8.1'"):
        anchor.coder_of("vvc")


def test_libaom_at_crf_zero_is_lossless_through_the_pipe(anchor, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    cost, decoded = anchor.code(anchor.coder_of("aom", "ld_cpu6", "crf"), tmp_path, 0)
    assert anchor.psnr(anchor.scene(), decoded) > 99
    assert cost.nbytes == (tmp_path / "stream.obu").stat().st_size
    assert sum(cost.frame_bits) == 8 * cost.nbytes


@pytest.mark.parametrize("intra_period", [-1, 5])
def test_vvc_starts_anew_at_each_intra_period(anchor, tmp_path, intra_period):
    pytest.importorskip("imageio_ffmpeg")
    coder = anchor.coder_of("vvc", "ldb_faster", intra_period=intra_period)
    codes = anchor.scene()
    cost, decoded = anchor.code(coder, tmp_path, 27, codes)
    assert [p.name for p in tmp_path.iterdir()] == ["stream.266"]
    assert cost.nbytes == (tmp_path / "stream.266").stat().st_size
    assert len(cost.frame_bits) == anchor.FRAMES
    assert anchor.psnr(codes, decoded) > 29
    largest = sorted(range(anchor.FRAMES), key=lambda n: -cost.frame_bits[n])
    assert sorted(largest[:2]) == ([0, 5] if intra_period == 5 else largest[:2])


def test_an_ffmpeg_encoder_that_fails_says_why(anchor, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    preset = load_preset("vvc", "ldb_faster")
    preset = replace(preset, options={"vvenc-params": {"unheard": 1}})
    coder = make_coder(preset, "qp", -1, name="anchor")
    with pytest.raises(ValueError, match=r"VVenC on scene at qp 27.*unheard"):
        anchor.code(coder, tmp_path, 27)


def as_frame(codes):
    return Frame(tuple(torch.from_numpy(plane).float() for plane in codes), None)


def test_vmaf_falls_with_the_damage(anchor):
    pytest.importorskip("imageio_ffmpeg")
    codes = anchor.scene()
    means = []
    for step in (1, 16, 48):
        gauge = Vmaf(["vmaf"], "cpu")
        for frame in codes:
            coarse = tuple(plane // step * step for plane in frame)
            gauge.add(FramePair(as_frame(coarse), as_frame(frame), ()))
        values = gauge.close()["vmaf"]
        assert len(values) == anchor.FRAMES
        means.append(sum(values) / anchor.FRAMES)
    assert means == sorted(means, reverse=True) and means[0] > 95
