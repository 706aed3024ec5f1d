"""Some of a codec's scales: decoded, measured, compared and shown."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

import lightning_modules
from experiments import compare, decode, evaluate, exchange
from experiments.comparing import compare_results
from experiments.comparison import Curve
from experiments.fixed_rates import qualities_at, quality_at
from experiments.learned_coder import LearnedCoder, decode_stream
from experiments.parts import Job, Rate, merge
from experiments.report.names import FileNames
from experiments.report.page import show_scales
from experiments.report.scales import (
    draw_bits,
    draw_progressive,
    progressive_points,
    whole_points,
    write_scale_figures,
)
from experiments.results import METRICS, Point, Protocol, Result, SequenceResult
from experiments.streams import StreamDecoder, code_video, open_stream
from lightning_modules.bitstream import BitstreamWriter, StreamHeader
from lightning_modules.codec import Packet

SIDE, FRAMES = 64, 4
RATE = "1024"


def make_checkpoint(path, **architecture):
    """Save a tiny DHVC of random weights whose every scale has something to code."""
    torch.manual_seed(1)
    module = lightning_modules.DHVC(size="tiny", **architecture)
    for name, parameter in module.codec.named_parameters():
        if name.endswith("posterior.1.weight"):
            parameter.data *= 10.0
    saved = {"state_dict": module.state_dict(), "global_step": 0}
    module.on_save_checkpoint(saved)
    torch.save(saved, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("progressive")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return make_checkpoint(folder / "dhvc.ckpt", auxiliary=False)


@pytest.fixture(scope="module")
def codec(checkpoint):
    return lightning_modules.load_codec(checkpoint)


@pytest.fixture(scope="module")
def frames():
    coarse = torch.rand(FRAMES, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


@pytest.fixture(scope="module")
def clips(folder, frames):
    clip = folder / "clips" / "waves"
    clip.mkdir(parents=True)
    for number, frame in enumerate(frames):
        pixels = frame.permute(1, 2, 0).mul(255).round().byte().numpy()[..., ::-1]
        cv2.imwrite(str(clip / f"{number:03}.png"), pixels)
    return clip.parent


@pytest.fixture(scope="module")
def stream(folder, codec, frames):
    path = folder / "waves.lvc"
    header = StreamHeader(
        codec="DHVCCodec",
        fingerprint=codec.fingerprint(),
        width=SIDE,
        height=SIDE,
        fps=Fraction(25),
        rate=1024.0,
    )
    return path, code_video(codec, header, frames, path, reconstruct=True)


def units_of(path):
    with open_stream(path) as reader:
        return reader.header, list(reader)


def framed(unit):
    """Return a unit's bytes as the container's description has them."""
    return 1 + (1 if len(unit.payload) < 128 else 2) + 1 + 4 + len(unit.payload) + 4


def bits_of(coded, scales=None):
    """Return the bits of each frame's first scales."""
    return [sum(bits) for bits in zip(*coded.scale_bits[:scales], strict=True)]


def decoded(codec, path, scales):
    with open_stream(path) as reader:
        decoder = StreamDecoder(codec, reader, scales=scales)
        return list(decoder), decoder.digest


def test_a_frames_bits_are_those_of_its_scales(stream):
    path, coded = stream
    header, units = units_of(path)
    assert [unit.frames for unit in units] == [0, 0, 0, 1] * FRAMES
    for scale, bits in enumerate(coded.scale_bits):
        assert bits == [8 * framed(unit) for unit in units[scale::4]]
    assert coded.frame_bits == bits_of(coded)
    overhead = len(header.to_bytes()) + 1 + 1 + 4
    assert 8 * (coded.nbytes - overhead) == sum(coded.frame_bits)


def test_each_scale_changes_every_frame_and_all_of_them_are_the_whole(codec, stream):
    path, coded = stream
    frames = {k: decoded(codec, path, k) for k in (1, 2, 3, 4, None)}
    assert frames[4][1] == frames[None][1] == coded.digest
    assert len({digest for _, digest in frames.values()}) == 4
    for number in range(FRAMES):
        own = [frames[k][0][number] for k in (1, 2, 3, 4)]
        assert all(not torch.equal(a, b) for a, b in pairwise(own))


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_finer_packets_are_never_read(codec, stream, tmp_path, scales):
    header, units = units_of(stream[0])
    path = tmp_path / "damaged.lvc"
    with path.open("wb") as file:
        writer = BitstreamWriter(file, header)
        for number, unit in enumerate(units):
            noise = unit.payload
            if number % 4 >= scales:
                # Only what names the scale is left.
                noise = unit.payload[:1] + b"\x55" * 3
            writer.write(Packet(noise, unit.frames, unit.checksum))
        writer.close()
    assert decoded(codec, path, scales)[1] == decoded(codec, stream[0], scales)[1]
    with pytest.raises(ValueError):
        decoded(codec, path, scales + 1)


# decode


def run_decode(checkpoint, stream, out, *more):
    options = ["--checkpoint", str(checkpoint), "--device=cpu", *more]
    return decode.main([str(stream), str(out), *options])


def test_decode_shows_some_scales_and_says_so(
    checkpoint, codec, stream, tmp_path, capsys
):
    path, _ = stream
    out = tmp_path / "preview"
    assert run_decode(checkpoint, path, out, "--scales", "2", "--hash") == 0
    line, digest = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{out}: {FRAMES} frames of 64x64, 2 of 4 scales decoded, ")
    assert "bytes" not in line and "bpp" not in line
    frames, own = decoded(codec, path, 2)
    assert digest == own
    shown = cv2.imread(str(sorted(out.iterdir())[1]))[..., ::-1]
    assert np.array_equal(shown, frames[1].permute(1, 2, 0).mul(255).round().numpy())


@pytest.mark.parametrize("scales", ["0", "5", "-1"])
def test_so_many_scales_as_there_are_not_are_refused(
    checkpoint, stream, tmp_path, capsys, scales
):
    out = tmp_path / "out.y4m"
    assert run_decode(checkpoint, stream[0], out, f"--scales={scales}") == 2
    error = capsys.readouterr().err
    assert f"error: {scales} scales: there are 1 to 4" in error
    assert not out.exists()


def encode(module, path):
    codec = module.codec.eval()
    points = codec.rate_knob.points
    header = StreamHeader(
        codec=type(codec).__name__,
        fingerprint=codec.fingerprint(),
        width=SIDE,
        height=SIDE,
        fps=Fraction(25),
        rate=points[0],
    )
    code_video(codec, header, torch.rand(1, 3, SIDE, SIDE), path)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: lightning_modules.UI2C(size="tiny"), "UI2CCodec has no scales"),
        (lambda: lightning_modules.DHVC(size="tiny"), "with an auxiliary path"),
    ],
)
def test_codecs_whose_scales_need_each_other_are_refused(
    make, named, tmp_path, clips, capsys
):
    torch.manual_seed(0)
    module = make().eval()
    saved = {"state_dict": module.state_dict(), "global_step": 0}
    module.on_save_checkpoint(saved)
    torch.save(saved, tmp_path / "c.ckpt")
    encode(module, tmp_path / "s.lvc")
    out = tmp_path / "out.y4m"
    paths = tmp_path / "c.ckpt", tmp_path / "s.lvc", out
    assert run_decode(*paths, "--scales=1") == 2
    assert named in capsys.readouterr().err
    assert not out.exists()
    output = tmp_path / "r.json"
    assert run(tmp_path / "c.ckpt", clips, output, "--scales", "1") == 2
    assert named in capsys.readouterr().err
    assert not output.exists()


# evaluate


class SameProcess:
    """Stands for the decoding process where that is not what is tested."""

    def __init__(self):
        self.scales = []

    def call(self, function, *arguments):
        assert function is decode_stream
        self.scales.append(arguments[3])
        return function(*arguments)


@pytest.fixture
def quick(monkeypatch):
    process = SameProcess()
    monkeypatch.setattr(LearnedCoder, "_decoding_process", lambda self: process)
    return process


def run(checkpoint, clips, output, *more):
    options = ["--checkpoint", str(checkpoint), "--sequences", str(clips)]
    options += ["--output", str(output), "--lpips=none", "--threads=1", "--colour=rgb"]
    return evaluate.main([*options, "--device=cpu", *more])


@pytest.fixture(scope="module")
def measured(folder, checkpoint, clips):
    """Two rates, all numbers of scales; another process decodes."""
    output = folder / "results" / "DHVC.json"
    more = ["--rate", "256", RATE, "--scales", "1,2,3,4", "--pictures", "1"]
    assert run(checkpoint, clips, output, *more) == 0
    return Result.load(output)


def points_at(result, rate=float(RATE)):
    (sequence,) = result.sequences
    return {p.scales: p for p in sequence.points if p.rate == rate}


def test_each_number_of_scales_is_a_point_with_its_own_bytes_and_error(
    measured, codec, stream, frames, clips
):
    points = points_at(measured)
    assert set(points) == {1, 2, 3, None}
    # The stream of the other fixture has frames that were not rounded to 8 bits.
    source = [
        cv2.imread(str(p))[..., ::-1] for p in sorted((clips / "waves").iterdir())
    ]
    rounded = torch.stack(
        [torch.from_numpy(s.copy()).permute(2, 0, 1) / 255 for s in source]
    )
    path = stream[0].with_name("rounded.lvc")
    header, _ = units_of(stream[0])
    coded = code_video(codec, header, rounded, path)
    header, units = units_of(path)
    for scales, point in points.items():
        sent = [u for n, u in enumerate(units) if n % 4 < (scales or 4)]
        nbytes = len(header.to_bytes()) + sum(map(framed, sent)) + 1 + 1 + 4
        assert point.nbytes == nbytes
        assert point.bpp == 8 * nbytes / (SIDE * SIDE * FRAMES)
        assert point.kbps == pytest.approx(8 * nbytes / FRAMES * 25 / 1000)
        bits = bits_of(coded, scales)
        assert point.per_frame["bits"] == bits
        shown, _ = decoded(codec, path, scales)
        for number, frame in enumerate(shown):
            codes = frame.permute(1, 2, 0).mul(255).round().double().numpy()
            psnr = 10 * np.log10(255**2 / ((codes - source[number]) ** 2).mean())
            got = point.per_frame["psnr_rgb"][number]
            assert got == pytest.approx(psnr, abs=1e-5)
    assert points[None].nbytes == coded.nbytes


def test_the_whole_point_tells_the_bits_of_each_scale(measured):
    points = points_at(measured)
    whole = points[None]
    assert len(whole.scale_bits) == 4
    for scales in (1, 2, 3):
        assert points[scales].scale_bits == []
        parts = bits_of(whole, scales)
        assert points[scales].per_frame["bits"] == parts
    assert bits_of(whole) == whole.per_frame["bits"]
    assert "encode" in whole.seconds and "encode" not in points[1].seconds
    assert all(p.seconds["decode"] > 0 for p in points.values())


def test_every_number_of_scales_has_its_own_pictures(measured):
    points = points_at(measured)
    paths = [measured.path.parent / p.pictures["1"] for p in points.values()]
    assert len({path.read_bytes() for path in paths}) == len(points) == 4


def test_the_table_names_the_scales(quick, checkpoint, clips, tmp_path, capsys):
    more = [f"--rate={RATE}", "--scales", "1", "2"]
    assert run(checkpoint, clips, tmp_path / "a.json", *more) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines()]
    scales = [row[5].strip() for row in rows if len(row) > 5 and "waves" in row[2]]
    assert sorted(scales) == ["1", "2", "all"]
    assert sorted(quick.scales, key=str) == [1, 2, None]


def test_what_was_measured_without_scales_gets_them_later(
    quick, checkpoint, clips, tmp_path, capsys
):
    output = tmp_path / "a.json"
    assert run(checkpoint, clips, output, f"--rate={RATE}") == 0
    (plain,) = Result.load(output).sequences[0].points
    assert plain.scales is None and len(plain.scale_bits) == 4
    assert run(checkpoint, clips, output, f"--rate={RATE}", "--scales=1") == 0
    points = points_at(Result.load(output))
    assert set(points) == {1, None}
    assert points[None].per_frame == plain.per_frame
    quick.scales.clear()
    assert run(checkpoint, clips, output, f"--rate={RATE}", "--scales=1") == 0
    assert run(checkpoint, clips, output, f"--rate={RATE}") == 0
    assert "1 of 1 points are there already" in capsys.readouterr().err
    assert quick.scales == []
    assert set(points_at(Result.load(output))) == {1, None}


class WrongPreview(SameProcess):
    def call(self, function, path, checkpoint, device, scales, options):
        digest, *rest = function(path, checkpoint, device, scales, options)
        return ("0" * 64 if scales == 2 else digest, *rest)


def test_another_preview_in_the_other_process_is_caught(
    checkpoint, clips, tmp_path, monkeypatch, capsys
):
    process = WrongPreview()
    monkeypatch.setattr(LearnedCoder, "_decoding_process", lambda self: process)
    output = tmp_path / "a.json"
    more = [f"--rate={RATE}", "--scales"]
    assert run(checkpoint, clips, output, *more, "1") == 0
    assert run(checkpoint, clips, tmp_path / "b.json", *more, "1,2") == 2
    assert "decoded other frames than the encoder decoded" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--scales", "1,x"], "--scales 1,x: give numbers"),
        (["--scales", "1,5"], "5 scales: there are 1 to 4"),
        (["--scales", "0"], "0 scales"),
        (["--scales", "1", "--estimate"], "--scales needs real bitstreams"),
    ],
)
def test_impossible_scales_are_one_clear_error(
    checkpoint, clips, tmp_path, capsys, more, named
):
    assert run(checkpoint, clips, tmp_path / "a.json", *more) == 2
    assert named in capsys.readouterr().err


def test_a_job_is_done_when_all_its_scales_are():
    points = [Point(1.0, 0.1), Point(1.0, 0.05, scales=1), Point(2.0, 0.2)]
    result = make_result("a", points)
    sequence = result.sequences[0]
    assert Job(sequence, Rate(1.0)).done_in(result)
    assert Job(sequence, Rate(1.0), scales=(1,)).done_in(result)
    assert not Job(sequence, Rate(1.0), scales=(1, 2)).done_in(result)
    assert not Job(sequence, Rate(2.0), scales=(1,)).done_in(result)
    alone = make_result("a", [points[1]])
    assert not Job(sequence, Rate(1.0), scales=(1,)).done_in(alone)
    merged = merge(replace(result, sequences=[]), [alone, result])
    assert [p.key for p in merged.sequences[0].points] == [
        (1.0, None, 1),
        (1.0, None, None),
        (2.0, None, None),
    ]


# compare and report


def make_result(name, points):
    sequence = SequenceResult("set", "one", 64, 64, Fraction(25), 4, points, "planes")
    return Result(name, {}, Protocol("rgb", 4, -1, "bitstream"), {}, [sequence])


def curve(name, gain, scaled=True):
    """Return a result with four rates, of which one scale gives 5 dB less."""
    points = []
    for n in range(4):
        bpp, psnr = 0.05 * 2**n, 30 + 3 * n + gain
        for scales, less in ((None, 0), (1, 5), (2, 2)):
            share = {None: 1, 1: 0.2, 2: 0.5}[scales]
            bits = [bpp * share * 4096 * (2 if t == 0 else 2 / 3) for t in range(4)]
            parts = {f"bits_scale{k}": [b / 4 for b in bits] for k in (1, 2, 3, 4)}
            if scales or not scaled:
                parts = {}
            point = Point(
                float(n),
                bpp * share,
                kbps=1.0,
                seconds={"decode": 9.0 if scales else 0.1},
                metrics={"psnr_rgb": psnr - less},
                per_frame={
                    "bits": bits,
                    **parts,
                    "psnr_rgb": [psnr - less] * 4,
                },
                scales=scales,
            )
            if scaled or scales is None:
                points.append(point)
    definition = {"psnr_rgb": METRICS["psnr_rgb"].definition}
    result = make_result(name, points)
    return replace(result, protocol=replace(result.protocol, definitions=definition))


@pytest.fixture(scope="module")
def files(folder):
    paths = []
    for name, gain, scaled in (("x265", 0, False), ("one", 1, True), ("two", 3, True)):
        paths.append(folder / f"{name}.json")
        curve(name, gain, scaled).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def report(folder, files):
    """Return the folder of a report and what was printed."""
    printed = io.StringIO()
    out = folder / "report"
    more = ["--anchor=x265", "--at_bpp", "0.1", "0.9", "--output", str(out)]
    with redirect_stdout(printed):
        assert run_compare(files, *more) == 0
    return out, printed.getvalue()


def run_compare(files, *more):
    return compare.main([*map(str, files), *more])


def test_compare_takes_the_points_with_all_scales():
    results = [curve("x265", 0, scaled=False), curve("one", 1), curve("two", 3)]
    comparison = compare_results(results, "x265")
    assert comparison.scales is None
    for shown in comparison.curves:
        assert shown.bpp == pytest.approx([0.05, 0.1, 0.2, 0.4])
    quality = {row.codec: row.quality.value for row in comparison.rows}
    assert quality == {"one": pytest.approx(1), "two": pytest.approx(3)}


def test_compare_takes_fewer_scales_if_it_is_told_to(files, capsys):
    comparison = compare_results([curve("one", 1), curve("two", 3)], "one", scales=1)
    assert comparison.scales == 1
    for shown in comparison.curves:
        assert shown.bpp == pytest.approx([0.01, 0.02, 0.04, 0.08])
    assert comparison.rows[0].quality.value == pytest.approx(2)
    assert run_compare(files[1:], "--anchor=one", "--scales=2") == 0
    assert "only the 2 coarsest scales were decoded" in capsys.readouterr().out
    assert run_compare(files, "--anchor=one", "--scales=1") == 2
    assert "x265 has no point of which 1 of the scales" in capsys.readouterr().err


def test_the_report_shows_bits_by_scale_and_progressive_decoding(report):
    out, _ = report
    made = sorted(p.relative_to(out).as_posix() for p in out.glob("scales/**/*.*"))
    assert made == [
        f"scales/set/one_{what}.{suffix}"
        for what in ("bits", "progressive")
        for suffix in ("png", "svg")
    ]
    text = (out / "report.md").read_text()
    assert all(f"]({path})" in text for path in made)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "<h2>Scales</h2>" in page
    # Tables and charts are of the points that were compared.
    assert "| one | set | 0.1 |" in text and "| two | set | 0.1 |" in text
    frames = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["frames"]
    assert [entry["codec"] for entry in frames].count(1) == 4


def test_codecs_without_scales_make_no_such_figure(tmp_path):
    results = [curve(name, 0, scaled=False) for name in ("x265", "plain")]
    comparison = compare_results(results, "x265")
    assert list(write_scale_figures(comparison, results, FileNames(tmp_path))) == []
    assert show_scales({}) == ""


def test_figures_of_scales_draw_the_files_numbers():
    results = [curve("one", 1), curve("two", 3), curve("x265", 0, scaled=False)]
    parts = progressive_points(results, "set", "one")
    assert [[p.scales for p in own] for own in parts.values()] == [[1, 2, None]] * 2
    assert {p.rate for own in parts.values() for p in own} in ({1.0}, {2.0})
    assert list(whole_points(results, "set", "one")) == ["one", "two"]
    figure = draw_progressive("one", parts, "psnr_rgb")
    upper, other, lower, last = figure.axes
    for own, axes in zip(parts.values(), (lower, last), strict=True):
        for point, line in zip(own, axes.lines, strict=True):
            assert list(line.get_ydata()) == point.per_frame["psnr_rgb"]
    colours = [line.get_color() for line in upper.lines]
    assert len(set(colours)) == 3
    assert colours == [line.get_color() for line in other.lines]
    # Two of four scales have the second colour, all of them the fourth.
    bars = draw_bits("one", {"two": parts["two"][-1]})
    faces = [patch.get_facecolor() for patch in bars.axes[0].patches]
    assert len(faces) == 4
    from matplotlib.colors import to_rgba

    assert faces[1] == to_rgba(colours[1]) and faces[3] == to_rgba(colours[2])
    tops = [patch.get_data().values for patch in bars.axes[0].patches]
    whole = [b / 1000 for b in parts["two"][-1].per_frame["bits"]]
    assert list(tops[3]) == pytest.approx(whole)
    shares = [patch.get_data().values for patch in bars.axes[1].patches]
    assert list(shares[0]) == pytest.approx([25] * 4)
    assert list(shares[3]) == pytest.approx([100] * 4)


def test_a_page_of_too_many_figures_says_how_many_are_beside_it(tmp_path):
    stems = {}
    for name in "abc":
        stems["set", name] = {"bits by scale": tmp_path / name}
        (tmp_path / f"{name}.png").write_bytes(b"\0" * 300)
    page = show_scales(stems, limit=1000)
    assert page.count("data:image/png") == 2
    assert "1 more figures are beside this page" in page


def test_dcvcs_format_gets_the_points_with_all_scales(tmp_path):
    result = curve("one", 1)
    for point in result.sequences[0].points:
        values = point.per_frame["psnr_rgb"]
        point.metrics["psnr_rgb_unrounded"] = values[0]
        point.per_frame["psnr_rgb_unrounded"] = values
    result.save(tmp_path / "one.json")
    out = tmp_path / "dcvc.json"
    assert exchange.main([str(tmp_path / "one.json"), str(out)]) == 0
    entries = json.loads(out.read_text())["set"]["one"].values()
    bpp = [entry["ave_all_frame_bpp"] for entry in entries]
    assert bpp == pytest.approx([0.05, 0.1, 0.2, 0.4])


# Fixed rates


def mean_curve(bpp, quality, left_out=(), sequence=None):
    rates = tuple(range(len(bpp)))
    return Curve("c", "psnr_rgb", "s", sequence, rates, bpp, quality, left_out)


def test_quality_at_a_rate_lies_on_the_curve_in_log_rate():
    line = mean_curve((0.05, 0.1, 0.2, 0.4), (30.0, 33.0, 36.0, 39.0))
    assert quality_at(line, 0.1) == pytest.approx(33)
    assert quality_at(line, 0.1 * 2**0.5) == pytest.approx(34.5)
    assert quality_at(line, 0.05) == pytest.approx(30)
    assert quality_at(line, 0.4) == pytest.approx(39)
    assert quality_at(line, 0.0499) is None
    assert quality_at(line, 0.4001) is None


def test_quality_at_a_rate_passes_over_points_that_are_left_out():
    bent = mean_curve((0.05, 0.1, 0.2), (30.0, 29.0, 34.0), left_out=(1,))
    assert quality_at(bent, 0.1) == pytest.approx(32)
    assert quality_at(mean_curve((0.1,), (30.0,)), 0.1) is None
    assert quality_at(mean_curve((), ()), 0.1) is None


def test_only_mean_curves_are_read_off_and_no_rate_below_0():
    curves = [mean_curve((0.1, 0.2), (1.0, 2.0), sequence=s) for s in (None, "one")]
    (value,) = qualities_at(curves, [0.2])
    assert (value.bpp, value.value) == (0.2, pytest.approx(2.0))
    with pytest.raises(ValueError, match="-1 bpp"):
        qualities_at(curves, [-1.0])


def test_compare_shows_quality_at_fixed_rates_and_none_where_there_is_none(report):
    out, printed = report
    table = printed[printed.index("at fixed rates") :].splitlines()
    rows = [line.split() for line in table if line.strip().startswith("set ")]
    assert rows == [
        ["set", "bpp", "x265", "one", "two"],
        ["set", "0.1", "33", "34", "36"],
        ["set", "0.9", "none", "none", "none"],
    ]
    assert "| set | 0.1 | 33 | 34 | 36 |" in (out / "report.md").read_text()
    assert "at fixed rates" in (out / "report.html").read_text()
    fixed = json.loads((out / "bd.json").read_text())["fixed"]
    found = {(q["codec"], q["bpp"]): q["value"] for q in fixed}
    assert found["two", 0.1] == pytest.approx(36)
    assert found["two", 0.9] is None
