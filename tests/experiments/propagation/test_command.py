import json
import re
from pathlib import Path
from statistics import fmean, pstdev
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.frames import open_video
from experiments.cli.activity import activity
from experiments.propagation import command as propagation
from experiments.propagation import plots
from experiments.propagation.bench import Grid, LeftOut
from experiments.propagation.control import of_sweep, rates_of_sweep, target_rate
from experiments.propagation.drift import choose_positions, least_squares_slope
from experiments.propagation.experiment import CODED, MEASURE, Experiment
from experiments.propagation.findings import Report
from lightning_modules import load_codec
from lightning_modules.codec import RateKnob

ROOT = Path(__file__).parents[3]
SIDE = 64


@pytest.fixture(scope="session")
def video(make_video):
    return make_video(12)


@pytest.fixture(scope="module")
def run(checkpoint, video, tmp_path_factory):
    """Run the command without figures and give its report."""

    def run(codec, *arguments, out=None):
        out = out or tmp_path_factory.mktemp("out")
        command = ["--checkpoint", checkpoint(codec), "--sequences", video]
        command += ["--output", out, *arguments]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plots, "write_plots", lambda *_: [])
            assert propagation.main(list(map(str, command))) == 0
        return Report.load(out / "propagation.json")

    return run


def refused(capsys, *arguments):
    assert propagation.main(list(map(str, arguments))) == 2
    return capsys.readouterr().err


def decoded_psnr(codec, frames, rate, **options):
    """PSNR of what a decoder shows, and bits, without any code of the command."""
    packets = list(codec.compress(frames, rate, **options))
    height, width = frames[0].shape[-2:]
    shown = torch.stack(list(codec.decompress(packets, height, width)))
    error = (shown * 255).round().double() - (torch.stack(frames) * 255).round()
    psnr = 20 * np.log10(255) - 10 * error.square().mean(dim=(1, 2, 3)).log10()
    return psnr.tolist(), [8 * len(packet.payload) for packet in packets]


TESTS = ("position", "slope", "low_reference", "fluctuation", "sawtooth")


def test_where_errors_do_not_propagate_every_number_of_them_is_exactly_zero(run):
    report = run(
        "dual_domain", "--tests", *TESTS, "--max_frames", "5", "--targets", "1"
    )
    values = {}
    for mean in report.means:
        values |= mean.values
    zeros = ("epi", "slope", "drift", "pd", "psnr_std_own", "intra_jump")
    for name in (*zeros, "transient", "transient_max"):
        assert values[name] == 0.0, name
    # It was measured: qualities and rates do change (bytes after a change of quality
    # may still be as many, with weights that are random).
    assert values["low_loss"] != 0 and values["psnr_std"] > 0
    assert values["ro"] != 0 and "rate_transient" in values
    assert report.mean("position", 0.67).series["position"] == [1, 2, 4]
    assert report.left_out == {}


def test_the_numbers_are_those_of_the_codec_itself(run, checkpoint, video):
    arguments = ("--rate", "1024", "--positions", "1,2,4", "--targets", "2")
    report = run("auxiliary", *arguments, "--max_frames", "7", "--low_rate", "300")
    codec = load_codec(checkpoint("auxiliary"))
    frames = list(open_video(video))[:7]
    scales = codec.scales

    found = report.mean("position", 1024)
    assert found.series["position"] == [1, 2, 4]
    expected = []
    for place in (1, 2, 4):
        losses = []
        for target in (6, 4):
            near, _ = decoded_psnr(codec, frames[target - 1 : target + 1], 1024)
            far, _ = decoded_psnr(codec, frames[target - place : target + 1], 1024)
            losses.append(near[-1] - far[-1])
        expected.append(fmean(losses))
    assert found.series["ep"] == pytest.approx(expected, abs=1e-6)
    assert found.values["epi"] == pytest.approx(expected[-1], abs=1e-6)
    assert expected[-1] != 0

    psnr, bits = decoded_psnr(codec, frames, 1024)
    intra, intra_bits = decoded_psnr(codec, frames, 1024, intra_period=1)
    less = np.subtract(psnr, intra)
    values = report.mean("slope", 1024).values
    line = np.polyfit(np.arange(1, 7), less[1:], 1)
    assert values["slope"] == pytest.approx(100 * line[0], abs=1e-6)
    drift = less[1:3].mean() - less[-2:].mean()
    assert values["drift"] == pytest.approx(drift, abs=1e-6)
    assert values["bpp"] == pytest.approx(sum(bits) / (7 * SIDE * SIDE))
    assert values["saving"] == pytest.approx(100 - 100 * sum(bits) / sum(intra_bits))

    # Of seven frames the second is bad, and the five after it are looked at.
    low, low_bits = decoded_psnr(
        codec, frames, 1024, rate_at=lambda n: 300 if n == 1 else 1024
    )
    values = report.mean("low_reference", 1024).values
    lost = np.subtract(psnr, low)
    assert values["pd"] == pytest.approx(lost[2:].sum(), abs=1e-6)
    assert values["low_loss"] == pytest.approx(lost[1], abs=1e-6)
    per_frame = [np.reshape(each, (7, scales)).sum(1) for each in (low_bits, bits)]
    rises = per_frame[0][2:] / per_frame[1][2:] - 1
    assert values["ro"] == pytest.approx(100 * rises.sum())

    started, _ = decoded_psnr(codec, frames, 1024, intra_period=3)
    values = report.mean("fluctuation", 1024).values
    own = np.subtract(started, intra)
    jump = max(abs(own[3] - own[2]), abs(own[6] - own[5]))
    assert values["intra_jump"] == pytest.approx(jump, abs=1e-6)
    assert values["psnr_std"] == pytest.approx(pstdev(psnr), abs=1e-6)
    assert values["psnr_std_own"] == pytest.approx(pstdev(less), abs=1e-6)


def test_units_of_two_frames_are_looked_at_whole_and_at_like_places(
    run, checkpoint, video
):
    report = run("ui2c", "--tests", "position", "low_reference", "--rate", "40")
    found = report.mean("position", 40).series
    assert found["position"] == [2, 10]
    codec = load_codec(checkpoint("ui2c"))
    frames = list(open_video(video))
    near, _ = decoded_psnr(codec, frames[8:], 40)
    far, _ = decoded_psnr(codec, frames, 40)
    expected = fmean(a - b for a, b in zip(near[2:], far[10:], strict=True))
    assert found["ep"] == pytest.approx([0, expected], abs=1e-6)
    offsets = report.mean("low_reference", 40).series["offset"]
    # Frames 2 and 3 are the bad ones.
    assert offsets == list(range(-3, 9))
    assert report.protocol["low_rate"] == 0


def test_a_codec_of_one_rate_leaves_out_what_needs_two_and_does_the_rest(run):
    tests = ("position", "slope", "low_reference", "sawtooth", "sweep", "target_rate")
    report = run("video_vae", "--tests", *tests)
    assert {mean.test for mean in report.means} == {"position", "slope"}
    reason = "the codec has one rate only, lmbda 0.2"
    assert report.left_out == dict.fromkeys(tests[2:], reason)
    # Groups of pictures refer to no other.
    assert report.mean("position", 0.2).series == {"position": [4, 8], "ep": [0, 0]}
    assert report.mean("slope", 0.2).values["slope"] == 0


def test_a_schedule_gives_each_unit_its_rate(checkpoint, video):
    frames = list(open_video(video))[:8]
    for name in ("ui2c", "auxiliary", "video_vae", "dual_domain"):
        codec = load_codec(checkpoint(name))
        knob = codec.rate_knob
        asked = []

        def rate_at(first, asked=asked, knob=knob):
            asked.append(first)
            return knob.low if first == 4 else knob.high

        usual = [p.payload for p in codec.compress(frames, knob.high)]
        held = codec.compress(frames, knob.low, rate_at=lambda _, k=knob: k.high)
        assert [p.payload for p in held] == usual, name
        own = [p.payload for p in codec.compress(frames, knob.high, rate_at=rate_at)]
        step = Grid.of(codec).unit
        assert asked == list(range(0, 8, step)), name
        before = 4 * len(own) // 8
        assert own[:before] == usual[:before]
        assert (own[before] == usual[before]) == (knob.low == knob.high)
        with pytest.raises(ValueError, match=f"is not possible: .*{knob.name}"):
            list(
                codec.compress(frames, knob.high, rate_at=lambda _, k=knob: k.high + 1)
            )


@pytest.mark.parametrize(
    ("unit", "cycle", "expected"),
    [
        (1, 1, [1, 1, 2, 5, 96]),
        (2, 8, [2, 2, 2, 10, 98]),
        (8, 8, [8, 8, 8, 8, 96]),
        (1, 8, [1, 1, 9, 9, 97]),
    ],
)
def test_positions_are_as_far_into_a_cycle_as_the_first_unit_after_a_start(
    unit, cycle, expected
):
    grid = Grid(unit, cycle)
    assert [grid.position(wanted) for wanted in (0, 1, 2, 5, 96)] == expected


def test_positions_are_those_that_the_shortest_sequence_has():
    assert choose_positions(Grid(2, 8), (1, 2, 4, 8, 16), 12) == [2, 10]
    assert choose_positions(Grid(1, 1), (4, 11), 12) == [1, 4, 11]
    assert choose_positions(Grid(1, 1), (4, 12), 12) == [1, 4]
    with pytest.raises(LeftOut, match="needs 12 frames or more"):
        choose_positions(Grid(2, 8), (1, 2, 4, 8, 16), 11)


def test_a_slope_is_that_of_the_least_squares_line():
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    assert least_squares_slope(values) == pytest.approx(
        np.polyfit(range(6), values, 1)[0]
    )


def test_a_sweep_counts_rates_that_repeat_or_fall():
    values = of_sweep([0, 1, 2, 3, 4], [1.0, 2.0, 2.0, 1.5, 3.0])
    assert values["distinct"] == 4 and values["violations"] == 2
    assert values["step_max"] == pytest.approx(100)
    assert values["step_median"] == pytest.approx(50)
    assert values["range"] == 3
    # Ranks of ties are shared: 1, 3.5, 3.5, 2, 5 against 1 to 5.
    assert values["spearman"] == pytest.approx(
        np.corrcoef([1, 2, 3, 4, 5], [1, 3.5, 3.5, 2, 5])[0, 1]
    )
    assert of_sweep([0, 1], [2.0, 2.0])["spearman"] == 0


def test_a_sweep_of_a_lambda_has_one_factor_from_each_rate_to_the_next():
    rates = rates_of_sweep(RateKnob("lmbda", 256, 2048, (256,)), 4)
    assert rates == pytest.approx([256, 512, 1024, 2048])
    rates = rates_of_sweep(RateKnob("quality", 0, 1, (0,)), 65)
    assert rates == pytest.approx([i / 64 for i in range(65)])
    assert rates[0] == 0 and rates[-1] == 1


def test_a_target_is_met_closer_with_each_trial():
    knob = RateKnob("quality", 0.0, 1.0, (0.0, 0.33, 0.67, 1.0))

    def bits(rate):
        return 1000 * np.exp(3 * rate**1.4)

    bench = SimpleNamespace(
        codec=SimpleNamespace(rate_knob=knob), bits=bits, bpp=lambda each: each / 1e4
    )
    values, series = target_rate(bench)
    errors = [values[f"error_{n}"] for n in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 5 > 1 > errors[3]
    targets = series["target"]
    assert targets == pytest.approx([0.1 * np.exp(3 * i / 4) for i in (1, 2, 3)])
    first = 100 * np.abs(np.divide(series["trial_1"], targets) - 1)
    assert errors[0] == pytest.approx(first.mean())


def test_a_sweep_and_targets_come_from_real_bytes(run, checkpoint, video):
    report = run("ui2c", "--tests", "target_rate", "--sweep", "3", "--max_frames", "4")
    codec = load_codec(checkpoint("ui2c"))
    frames = list(open_video(video))[:4]
    found = report.mean("sweep", None)
    assert found.series["rate"] == [0, 31.5, 63]
    for rate, bpp in zip(found.series["rate"], found.series["bpp"], strict=True):
        packets = codec.compress(frames, rate)
        bits = 8 * sum(len(packet.payload) for packet in packets)
        assert bpp == pytest.approx(bits / (4 * SIDE * SIDE))
    assert found.values["violations_of_mean"] == found.values["violations"]
    assert "error_4" in report.mean("target_rate", None).values


def test_several_codecs_are_shown_together_without_measuring_again(run, tmp_path):
    files = []
    for codec, frames in (("auxiliary", 5), ("dual_domain", 4)):
        out = tmp_path / codec
        arguments = ("position", "slope", "low_reference", "--targets", "1")
        run(codec, "--tests", *arguments, "--max_frames", frames, "--sweep", 2, out=out)
        files.append(out / "propagation.json")
    before = files[0].read_text()
    out = tmp_path / "both"
    assert propagation.main(list(map(str, ["--overlay", *files, "--output", out]))) == 0
    names = {path.name for path in out.iterdir()}
    stems = ("position", "frames", "low_reference", "sweep")
    figures = {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    assert names == {"propagation.md", *figures}
    text = (out / "propagation.md").read_text()
    assert "DHVC, lmbda 1024" in text and "DualDomain, quality 0.67" in text
    assert "DHVC and DualDomain differ in max_frames, sequences" in text
    assert re.search(r"\| EPI \(dB\) \| -?0\.\d+ \| 0 \|", text)
    assert files[0].read_text() == before
    svg = (out / "position.svg").read_text()
    assert "#0072b2" in svg.lower() and "#d55e00" in svg.lower()


def test_the_file_says_everything_that_defines_its_numbers(run, video):
    report = run("auxiliary", "--tests", "slope", "--max_frames", "5", "--name", "mine")
    assert report.name == "mine" and report.rates == [1024]
    assert report.protocol["max_frames"] == 5 and report.protocol["positions"] == []
    assert report.sequences[0]["frames"] == 5 and report.sequences[0]["name"] == "clip"
    assert report.codec["cycle"] == 1 and len(report.codec["fingerprint"]) == 16
    assert set(report.definitions) == set(report.means[0].values)
    assert {"suite", "torch", "device", "threads"} <= set(report.environment)


def test_the_file_says_what_the_codec_was_told(run):
    arguments = ("--tests", "low_reference", "--max_frames", "6", "--rate", "40")
    assert run("ui2c", *arguments, "--refresh", "2").codec["options"] == {"refresh": 2}
    assert "options" not in run("ui2c", *arguments).codec


def test_wrong_options_are_one_line_and_nothing_is_written(
    capsys, checkpoint, video, tmp_path
):
    out = tmp_path / "out"
    usual = ("--checkpoint", checkpoint("ui2c"), "--sequences", video, "--output", out)
    for arguments, message in (
        (("--output", out), "nothing to do"),
        (("--checkpoint", "x.ckpt", "--output", out), "go together"),
        ((*usual, "--max_frames", "1"), "--max_frames is 1"),
        ((*usual, "--targets", "0"), "--targets is 0"),
        ((*usual, "--sweep", "1"), "--sweep is 1"),
        ((*usual, "--rate", "64"), "rate 64.0 is not possible: qp"),
        ((*usual, "--low_rate", "-1"), "rate -1.0 is not possible: qp"),
        ((*usual, "--positions", "1,96"), "needs 100 frames"),
        ((*usual, "--tests", "position", "--max_frames", "8"), "needs 12 frames"),
        ((*usual, "--overlay", video / "none.json"), "none.json does not exist"),
    ):
        error = refused(capsys, *arguments)
        assert message in error, error
        assert error.splitlines()[-1].startswith("error: ")
        assert not out.exists()
    for wrong in (("--tests", "drift"), ("--positions", "0,1")):
        with pytest.raises(SystemExit) as stopped:
            propagation.main(list(map(str, [*usual, *wrong])))
        assert stopped.value.code == 2


def test_a_test_without_a_lower_rate_is_left_out_at_this_rate_only(run, capsys):
    arguments = ("--tests", "low_reference", "--rate", "0", "40", "--max_frames", "6")
    report = run("ui2c", *arguments)
    assert list(report.left_out) == ["low_reference at qp 0"]
    assert [mean.rate for mean in report.means] == [40]
    assert "left out: low_reference at qp 0: the low rate" in capsys.readouterr().err


def test_files_that_are_damaged_or_named_alike_are_refused(run, capsys, tmp_path):
    out = tmp_path / "one"
    run("auxiliary", "--tests", "slope", "--max_frames", "4", out=out)
    path = out / "propagation.json"
    again = ("--overlay", path, path, "--output", tmp_path / "two")
    assert "two are called DHVC" in refused(capsys, *again)
    data = json.loads(path.read_text())
    for changed, message in (
        ({"schema": "learned-video-codecs/result"}, "no propagation file"),
        ({"version": 2}, "is version 2"),
        ({"means": [{"test": "slope"}]}, "damaged"),
        ({"means": [{**data["means"][0], "values": {"psi": 1.0}}]}, "unknown numbers"),
    ):
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps({**data, **changed}))
        assert message in refused(capsys, "--overlay", bad, "--output", tmp_path / "x")
    assert not (tmp_path / "two").exists() and not (tmp_path / "x").exists()


def test_progress_foretells_the_frames_that_each_test_codes(run, monkeypatch, capsys):
    told, real = {}, Experiment._try

    def watched(self, bench, item, *arguments):
        found = real(self, bench, item, *arguments)
        told[item.test] = activity().frames, activity().total
        return found

    monkeypatch.setattr(Experiment, "_try", watched)
    tests = ["slope", "fluctuation"]
    run("dhvc", "--tests", *tests, "--sweep=2", "--max_frames=5")
    # Nothing is coded twice.
    assert told["slope"] == (10, 10)
    assert told["fluctuation"] == (5, 5)
    assert told["sweep"] == (10, 10)
    assert CODED.keys() == MEASURE.keys()
    lines = capsys.readouterr().err.splitlines()
    assert "3 tests to do" in lines and lines[-1].endswith("; 3/3 tests")
