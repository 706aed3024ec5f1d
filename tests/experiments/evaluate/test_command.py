import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from callbacks.metrics.table import METRICS
from experiments.evaluate import jobs
from experiments.evaluate.learned import LearnedCoder
from experiments.results.result import Result

ROOT = Path(__file__).parents[3]
WIDTH, HEIGHT, FRAMES = 64, 48, 6


@pytest.fixture(scope="session")
def checkpoint(checkpoint):
    return checkpoint("ui2c")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("calm", "wild")):
        raw = source_frames(seed).tobytes()
        (folder / f"{name}_{WIDTH}x{HEIGHT}_25.yuv").write_bytes(raw)
    return folder


@pytest.fixture(scope="module")
def measure(evaluate, checkpoint, clips):
    """Measure that codec on those clips."""
    return partial(evaluate, checkpoint, clips)


def source_frames(seed):
    """Moving smooth pictures, (frames, bytes of a 4:2:0 frame)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frames = []
    for t in range(FRAMES):
        wave = np.sin((columns + 3 * t) / 9) * np.cos((rows - t) / (5 + seed))
        y = 120 + 60 * wave + rng.normal(0, 3 * seed, wave.shape)
        chroma = [np.full((HEIGHT // 2, WIDTH // 2), v) for v in (110 + t, 140 - t)]
        planes = np.concatenate([p.ravel() for p in (y, *chroma)])
        frames.append(planes.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


class SameProcess:
    """Stands for the decoding process where that is not what is tested."""

    def generate(self, function, *arguments):
        return function(*arguments)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(LearnedCoder, "_decoding_process", lambda self: SameProcess())


def figures(result):
    """What must not depend on who measured it."""
    return [
        (s.key, s.frames, replace(p, seconds={}, peak_memory={}))
        for s, p in result.all_points()
    ]


def test_a_result_counts_the_bytes_of_encode_and_the_error_of_decode(
    measure, checkpoint, clips, tmp_path
):
    from experiments import decode, encode

    output = tmp_path / "results" / "tiny.json"
    assert measure(output, "--rate", "21") == 0
    result = Result.load(output)
    names = [f"{name}_{WIDTH}x{HEIGHT}_25" for name in ("calm", "wild")]
    assert [s.name for s in result.sequences] == names
    sequence = result.sequences[0]
    point = sequence.points[0]
    source = clips / f"calm_{WIDTH}x{HEIGHT}_25.yuv"
    stream, decoded = tmp_path / "s.lvc", tmp_path / "d.yuv"
    arguments = ["--checkpoint", str(checkpoint)]
    size = ["--size", f"{WIDTH}x{HEIGHT}", "--fps", "25"]
    assert encode.main([str(source), str(stream), "--rate=21", *size, *arguments]) == 0
    assert decode.main([str(stream), str(decoded), *arguments]) == 0
    assert point.nbytes == stream.stat().st_size
    assert point.bpp == 8 * point.nbytes / (WIDTH * HEIGHT * FRAMES)
    assert point.kbps == pytest.approx(8 * point.nbytes / FRAMES * 25 / 1000)
    got = np.frombuffer(decoded.read_bytes(), np.uint8).reshape(FRAMES, -1)
    error = got.astype(float) - source_frames(0)
    luma = (error[:, : WIDTH * HEIGHT] ** 2).mean(axis=1)
    expected = 10 * np.log10(255**2 / luma)
    assert point.per_frame["psnr_y"] == pytest.approx(list(expected), abs=1e-6)
    assert point.metrics["psnr_y"] == pytest.approx(expected.mean(), abs=1e-6)
    assert len(point.per_frame["bits"]) == FRAMES
    overhead = 8 * point.nbytes - sum(point.per_frame["bits"])
    assert 0 < overhead < 8 * 100
    assert 0.5 < point.estimated_bpp / point.bpp < 1.1
    names = {"encode", "encode_network", "encode_entropy"}
    assert names | {n.replace("en", "de", 1) for n in names} >= set(point.seconds)
    assert all(value > 0 for value in point.seconds.values())
    assert all(value > 1e7 for value in point.peak_memory.values())
    assert result.protocol.rate == "bitstream"
    assert result.codec["fingerprint"] and result.codec["rate_unit"] == "qp"
    assert not output.with_suffix(".parts").exists()
    picture = output.parent / point.pictures["0"]
    assert picture.is_file()
    assert (output.parent / sequence.pictures["0"]).is_file()


def test_workers_and_ranks_give_what_one_process_gives(measure, tmp_path, monkeypatch):
    # Without decoding processes, each of which takes seconds to start.
    rates = ["--rate", "0", "63", "--estimate"]
    paths = [tmp_path / name / "a.json" for name in ("one", "two", "ranks")]
    assert measure(paths[0], *rates) == 0
    assert measure(paths[1], *rates, "--workers=2") == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "10":
        assert not paths[2].exists()
        monkeypatch.setenv("RANK", rank)
        assert measure(paths[2], *rates) == 0
    one, two, ranks = (Result.load(path) for path in paths)
    assert len(figures(one)) == 4
    assert figures(one) == figures(two) == figures(ranks)
    assert one.protocol == two.protocol == ranks.protocol


def test_an_interrupted_command_goes_on_with_what_is_missing(
    measure, quick, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "a.json"
    done = []
    real = jobs.assess

    def stops_at_the_third(job, *arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(str(job))
        return real(job, *arguments)

    monkeypatch.setattr(jobs, "assess", stops_at_the_third)
    assert measure(output, "--rate", "0", "63") == 130
    assert "goes on" in capsys.readouterr().err
    assert not output.exists()
    kept = sorted(p.name for p in output.with_suffix(".parts").glob("*.json"))
    assert len(kept) == 2
    monkeypatch.setattr(
        jobs, "assess", lambda job, *a: done.append(str(job)) or real(job, *a)
    )
    assert measure(output, "--rate", "0", "63") == 0
    assert len(done) == len(set(done)) == 4
    assert len(figures(Result.load(output))) == 4
    # One more rate is added to the file; what it has is not measured again.
    assert measure(output, "--rate", "0", "21", "63") == 0
    assert len(done) == 6
    rates = [p.rate for p in Result.load(output).sequences[0].points]
    assert sorted(rates) == [0, 21, 63]


def test_another_codec_or_protocol_is_not_mixed_in(
    measure,
    evaluate,
    lively_module,
    save_checkpoint,
    quick,
    checkpoint,
    clips,
    tmp_path,
    capsys,
):
    output = tmp_path / "a.json"
    assert measure(output, "--rate", "0", "--max_frames=2") == 0
    before = output.read_bytes()
    other = save_checkpoint(lively_module("UI2C", seed=2), tmp_path / "other.ckpt")
    capsys.readouterr()
    for changed, more in ((other, ()), (checkpoint, ("--colour=rgb",))):
        options = ["--rate", "0", "--max_frames=2", *more]
        assert evaluate(changed, clips, output, *options) == 2
        assert output.read_bytes() == before
        error = capsys.readouterr().err
        assert "--overwrite" in error
        assert ("codec.fingerprint" if changed is other else "colour") in error
    options = ["--rate", "0", "--max_frames=2", "--overwrite"]
    assert evaluate(other, clips, output, *options) == 0
    assert output.read_bytes() != before


class WrongDecoder:
    def generate(self, function, *arguments):
        yield from function(*arguments)
        return "0" * 64, {}, 1


def test_a_refresh_belongs_to_what_the_curve_is_of(measure, tmp_path, capsys):
    plain, told = (tmp_path / f"{name}.json" for name in ("plain", "told"))
    options = ["--estimate", "--rate", "21"]
    assert measure(plain, *options) == measure(told, *options, "--refresh", "2") == 0
    one, other = Result.load(plain), Result.load(told)
    assert other.codec == {**one.codec, "options": {"refresh": 2}}
    assert one.sequences[0].points[0].bpp != other.sequences[0].points[0].bpp
    capsys.readouterr()
    assert measure(plain, *options, "--refresh", "4") == 2
    assert "codec.options None, not {'refresh': 4}" in capsys.readouterr().err


def test_a_decoder_that_gives_other_frames_is_caught(
    measure, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(LearnedCoder, "_decoding_process", lambda self: WrongDecoder())
    output = tmp_path / "a.json"
    assert measure(output, "--rate", "0", "--max_frames=2") == 2
    assert "decoded other frames" in capsys.readouterr().err
    assert not output.exists()


def test_what_fails_does_not_lose_the_rest(
    evaluate, quick, checkpoint, clips, tmp_path, capsys
):
    import shutil

    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    (folder / "broken.mp4").write_bytes((b"\0\0\0\x18ftypmp42" + bytes(64)) * 3)
    output = tmp_path / "a.json"
    status = evaluate(checkpoint, folder, output, "--rate", "0", "--max_frames=2")
    assert status == 2
    assert "broken" in capsys.readouterr().err


def test_an_estimate_is_labelled_and_decodes_nothing(measure, tmp_path, monkeypatch):
    monkeypatch.delattr(LearnedCoder, "_decoding_process")
    output = tmp_path / "a.json"
    options = ["--estimate", "--rate", "21", "--max_frames=4"]
    assert measure(output, *options) == 0
    result = Result.load(output)
    assert result.protocol.rate == "estimate"
    for _, point in result.all_points():
        assert point.nbytes is None
        assert point.bpp == point.estimated_bpp
        assert "decode" not in point.seconds


def test_a_target_is_searched_on_each_sequence(measure, quick, tmp_path, capsys):
    plain = tmp_path / "plain.json"
    assert measure(plain, "--rate", "0", "63") == 0
    costs = [p.bpp for p in Result.load(plain).sequences[0].points]
    middle = sum(costs) / 2
    kbps = middle * WIDTH * HEIGHT * 25 / 1000
    for number, option in enumerate(
        ([f"--target_bpp={middle}"], [f"--target_kbps={kbps}"])
    ):
        output = tmp_path / f"{number}.json"
        assert measure(output, *option) == 0
        point = Result.load(output).sequences[0].points[0]
        assert point.target_bpp == pytest.approx(middle)
        # Three units leave steps of a third of a qp.
        assert point.bpp == pytest.approx(middle, rel=0.03)
    capsys.readouterr()
    status = measure(tmp_path / "far.json", "--target_bpp=500")
    assert status == 2
    assert "500 bpp is out of the codec's reach" in capsys.readouterr().err


def test_a_killed_worker_is_an_error_and_not_a_hang(
    measure, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(jobs, "_assess_there", Deadly())
    status = measure(tmp_path / "a.json", "--rate", "0", "63", "--workers=2")
    assert status == 2
    assert "exit code -9" in capsys.readouterr().err


class Deadly:
    """Kills the process that receives it."""

    def __reduce__(self):
        return signal.raise_signal, (signal.SIGKILL,)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--rate", "64"], "qp is a number from 0"),
        (["--max_frames", "0"], "--max_frames is 0"),
        (["--intra_period", "0"], "--intra_period is 0"),
        (["--intra_period", "3", "--rate=0"], "intra_period is 3"),
        (["--workers", "0"], "--workers is 0"),
        (["--output", "x.txt"], "must end in .json"),
        (["--checkpoint", "nowhere.ckpt"], "no checkpoint nowhere.ckpt"),
        (["--sequences", "nowhere"], "no such file or directory"),
        (["--sequences", "uvq=/"], "no standard set 'uvq'"),
    ],
)
def test_impossible_options_are_one_clear_error(
    measure, tmp_path, capsys, options, named
):
    assert measure(tmp_path / "a.json", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert named in error
    assert not (tmp_path / "a.json").exists()


def test_ctrl_c_ends_all_processes_and_keeps_what_is_done(checkpoint, clips, tmp_path):
    output = tmp_path / "a.json"
    command = [sys.executable, "-m", "experiments.evaluate", "--lpips=none"]
    command += ["--checkpoint", str(checkpoint), "--sequences", str(clips)]
    command += ["--output", str(output), "--workers=2", "--rate"]
    command += [str(rate) for rate in range(40)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stderr:
        if "bpp" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "goes on" in rest and "Traceback" not in rest
    kept = list(output.with_suffix(".parts").glob("*.json"))
    assert kept
    assert all(json.loads(path.read_text())["sequences"] for path in kept)
    # The decoding processes notice, as soon as they have started.
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            assert not list(output.with_suffix(".parts").glob("coding-*"))
            return
        time.sleep(0.2)
    pytest.fail("processes of the command are left")


def test_the_whole_protocol_is_in_the_file(measure, quick, tmp_path):
    output = tmp_path / "a.json"
    options = ["--rate=0", "--max_frames=4", "--intra_period=2", "--name=mine"]
    assert measure(output, *options) == 0
    data = json.loads(output.read_text())
    assert data["name"] == "mine"
    protocol = data["protocol"]
    assert protocol["max_frames"] == 4 and protocol["intra_period"] == 2
    assert protocol["colour"] == "yuv420" and protocol["matrix"] == "bt709_full"
    point = data["sequences"][0]["points"][0]
    assert set(protocol["definitions"]) == set(point["metrics"])
    assert data["environment"]["threads"] == 1
    assert data["environment"]["suite"]
    assert METRICS["psnr_y"].definition == protocol["definitions"]["psnr_y"]
