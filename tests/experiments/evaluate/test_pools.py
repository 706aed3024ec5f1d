"""FID and KID of whole sets: who measures what, when, changes nothing."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from callbacks.metrics.distribution import Samples, frechet_distance, patches
from callbacks.metrics.table import METRICS, describe_metrics
from experiments.cli.options import parse
from experiments.compare.command import main as compare
from experiments.evaluate import jobs
from experiments.evaluate.coder import Coder, Cost, Task
from experiments.evaluate.job import Job, Rate
from experiments.evaluate.jobs import run_jobs
from experiments.evaluate.options import JobOptions
from experiments.evaluate.pools import make_pools
from experiments.results.result import Point, Protocol, Result, SequenceResult
from lightning_modules.perceptual import UnavailableMetricError

WIDTH, HEIGHT, FRAMES = 272, 260, 3
RATES = (1.0, 2.0, 4.0)


class ToyInception:
    """Means of a picture's quarters, by channel."""

    size = 12

    def __call__(self, pictures):
        assert pictures.dtype == torch.uint8
        Looked.pictures += len(pictures)
        quarters = torch.nn.functional.adaptive_avg_pool2d(pictures.float(), 2)
        return quarters.flatten(1)


class Looked:
    pictures = 0


class NoisyCoder(Coder):
    """Codes nothing: the more bits, the less noise."""

    name = "noisy"

    def describe(self):
        return {"name": "noisy", "kind": "learned", "fingerprint": "0"}

    def environment(self):
        return {}

    def encode(self, task):
        frames = len(list(task.codes()))
        return Cost(round(1000 * task.rate), [1000.0] * frames)

    def decode(self, task, cost, scales=None):
        rng = np.random.default_rng(0)
        for frame in task.codes():
            planes = []
            for plane in frame:
                noise = (
                    rng.normal(0, 40 / task.rate, (9, 10)).repeat(50, 0).repeat(50, 1)
                )
                noise = noise[: plane.shape[0], : plane.shape[1]]
                planes.append(torch.from_numpy(plane / 255 + noise / 255).float())
            yield tuple(planes)

    def find_rate(self, task, target_bpp):
        return 2.0

    def boundaries(self, frames):
        return [2] if frames > 2 else []


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr("callbacks.metrics.distribution.Inception", ToyInception)
    monkeypatch.setattr("callbacks.metrics.distribution.check_inception", lambda: None)
    Looked.pictures = 0


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources") / "clips"
    folder.mkdir()
    for seed, name in enumerate(("calm", "wild")):
        raw = source_frames(seed)
        (folder / f"{name}_{WIDTH}x{HEIGHT}_25.yuv").write_bytes(raw.tobytes())
    return folder


def source_frames(seed):
    rng = np.random.default_rng(seed)
    size = HEIGHT * WIDTH * 3 // 2
    slow = rng.integers(60, 190, (FRAMES, size // 75 + 1)).repeat(75, axis=1)
    return slow[:, :size].astype(np.uint8)


def options(clips, output, *more):
    given = ["--sequences", str(clips), "--output", str(output), "--lpips=none"]
    given += ["--threads=1", "--pictures", "--fid", "frames", "patches"]
    return parse(JobOptions, "toy", [*given, *more])


def measure(clips, output, *more, rates=RATES, coder=NoisyCoder):
    rates = [rate if isinstance(rate, Rate) else Rate(rate) for rate in rates]
    return run_jobs(coder(), rates, options(clips, output, *more))


def values(path):
    return [
        (pool.key, pool.bpp, pool.metrics, pool.samples, pool.unavailable)
        for pool in Result.load(path).pools
    ]


def test_a_pool_is_of_all_frames_of_all_sequences(toy, clips, tmp_path):
    output = tmp_path / "a.json"
    assert measure(clips, output, "--colour=rgb", rates=[2.0]) == 0
    (pool,) = Result.load(output).pools
    frames = {"source": [], "decoded": []}
    from datamodules.sequences.files import read_codes
    from datamodules.sequences.find import find_sequences
    from datamodules.yuv import quantise

    for sequence in find_sequences([str(clips)]):
        codes = [tuple(c) for c in read_codes(sequence, "rgb")]
        frames["source"] += [torch.from_numpy(np.stack(c)) for c in codes]
        task = Task(sequence, lambda c=codes: c, "rgb", 2.0, tmp_path)
        decoded = NoisyCoder().decode(task, Cost())
        frames["decoded"] += [torch.from_numpy(np.stack(quantise(p))) for p in decoded]
    both = [torch.stack(frames[kind]) for kind in ("source", "decoded")]
    for name, cut in (("fid", lambda x: x), ("fid_256", patches)):
        x, y = (Samples([ToyInception()(cut(x)).numpy()]) for x in both)
        assert pool.metrics[name] == pytest.approx(frechet_distance(x, y), rel=1e-9)
        assert pool.metrics[name] > 0.01
    # One square of each frame.
    assert pool.samples == {"fid": 2 * FRAMES, "fid_256": 2 * FRAMES}
    assert "subsets of 1000 samples, there are 6" in pool.unavailable["kid_256"]
    assert pool.sequences == [f"{n}_{WIDTH}x{HEIGHT}_25" for n in ("calm", "wild")]
    points = [p for _, p in Result.load(output).all_points()]
    assert pool.bpp == pytest.approx(sum(p.bpp for p in points) / 2)
    assert not any(p.features for p in points)
    definitions = Result.load(output).protocol.definitions
    assert definitions["fid"] == METRICS["fid"].definition
    assert "kid" not in definitions


class InThreads:
    """Stands for a worker process."""

    def __init__(self, *arguments, daemon):
        pass

    def call(self, function, *arguments):
        return function(*arguments)

    def close(self):
        pass


def test_workers_ranks_and_resuming_give_what_one_process_gives(
    toy, clips, tmp_path, monkeypatch
):
    names = ("one", "two", "ranks", "resumed", "turned")
    paths = [tmp_path / name / "a.json" for name in names]
    assert measure(clips, paths[0]) == 0
    # Of the source once for each sequence, and of each decoded point.
    assert Looked.pictures == 2 * FRAMES * (1 + len(RATES)) * 2
    assert paths[0].stat().st_size < 40_000
    assert not paths[0].with_suffix(".parts").exists()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "WorkerProcess", InThreads)
        assert measure(clips, paths[1], "--workers=3") == 0
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        for rank in "10":
            assert not paths[2].exists()
            patch.setenv("RANK", rank)
            assert measure(clips, paths[2]) == 0
    real, done = jobs.assess, []

    def stops(job, *arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(str(job))
        return real(job, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "assess", stops)
        assert measure(clips, paths[3]) == 130
    assert measure(clips, paths[3]) == 0
    turned = [str(path) for path in sorted(clips.iterdir(), reverse=True)]
    chosen = replace(options(clips, paths[4]), sequences=turned)
    assert run_jobs(NoisyCoder(), [Rate(rate) for rate in RATES], chosen) == 0
    found = [values(path) for path in paths]
    assert len(found[0]) == len(RATES)
    assert all(other == found[0] for other in found)
    fids = [metrics["fid"] for _, _, metrics, _, _ in found[0]]
    assert fids == sorted(fids, reverse=True)


def test_what_is_there_is_not_measured_again_and_what_is_pooled_anew_is(
    toy, clips, tmp_path, monkeypatch, capsys
):
    done = []
    real = jobs.assess
    monkeypatch.setattr(
        jobs, "assess", lambda job, *a: done.append(str(job)) or real(job, *a)
    )
    one = tmp_path / "clips"
    one.mkdir()
    names = sorted(clips.iterdir())
    shutil.copy(names[0], one)
    output = tmp_path / "a.json"
    assert measure(one, output, rates=[1.0, 2.0]) == 0
    assert measure(one, output, rates=[1.0, 2.0]) == 0
    assert len(done) == 2
    # Another rate pools what it measures; the others stay.
    before = values(output)
    assert measure(one, output, rates=[4.0]) == 0
    assert len(done) == 3 and values(output)[:2] == before
    # Another sequence is pooled with the first, whose features are gone.
    shutil.copy(names[1], one)
    assert measure(one, output, rates=[1.0]) == 0
    assert len(done) == 5
    whole = next(v for v in values(output) if len(v[0][1]) == 2)
    assert whole[3]["fid"] == 2 * FRAMES
    assert len(Result.load(output).sequences) == 2
    points = [(s.key, p.key) for s, p in Result.load(output).all_points()]
    assert len(points) == len(set(points)) == 4
    capsys.readouterr()


def test_features_that_were_lost_are_made_again(toy, clips, tmp_path, monkeypatch):
    output = tmp_path / "a.json"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert measure(clips, output, rates=[1.0]) == 0
    parts = output.with_suffix(".parts")
    (lost,) = parts.glob("*rate1.0.frames.npy")
    lost.unlink()
    monkeypatch.setenv("RANK", "1")
    assert measure(clips, output, rates=[1.0]) == 0
    assert not output.exists()
    monkeypatch.setenv("RANK", "0")
    assert measure(clips, output, rates=[1.0]) == 0
    assert values(output)[0][3]["fid"] == 2 * FRAMES


def test_features_of_another_source_are_refused(toy, clips, tmp_path, capsys):
    output = tmp_path / "a.json"
    parts = output.with_suffix(".parts")
    # Of a command that is still at work; alone they would be made anew.
    (parts / "coding-of-another").mkdir(parents=True)
    sequence = f"clips.calm_{WIDTH}x{HEIGHT}_25"
    stale = parts / f"{sequence}.yuv420.all.source.frames.npy"
    np.save(stale, np.zeros((7, 12), np.float32))
    with pytest.raises(ValueError, match="features of 7 frames, but 3 were decoded"):
        measure(clips, output, rates=[1.0])


def test_the_last_of_two_that_finish_together_reads_what_the_first_wrote(
    toy, clips, tmp_path, monkeypatch
):
    output = tmp_path / "a.json"
    real = jobs.make_pools

    def late(*arguments):
        monkeypatch.setattr(jobs, "make_pools", real)
        # Another process finishes meanwhile.
        assert measure(clips, output, rates=[1.0]) == 0
        return real(*arguments)

    monkeypatch.setattr(jobs, "make_pools", late)
    assert measure(clips, output, rates=[1.0]) == 0
    assert len(Result.load(output).pools) == 1


@pytest.mark.parametrize("rates", [[4.0], [1.0, 2.0]])
def test_a_run_that_ends_first_leaves_another_its_features(
    toy, clips, tmp_path, monkeypatch, rates
):
    alone, output = tmp_path / "alone.json", tmp_path / "a.json"
    assert measure(clips, alone, rates=[1.0, 2.0, *rates]) == 0
    real, done = jobs.assess, []

    def other_run_ends_meanwhile(job, *arguments):
        result = real(job, *arguments)
        done.append(job)
        if len(done) == 2:
            # One point is kept, and this one's features are there, not yet its part.
            assert measure(clips, output, rates=rates) == 0
        return result

    monkeypatch.setattr(jobs, "assess", other_run_ends_meanwhile)
    assert measure(clips, output, rates=[1.0, 2.0]) == 0
    assert values(output) == values(alone)
    assert not output.with_suffix(".parts").exists()


def test_small_frames_have_no_squares_and_say_so(toy, tmp_path, capsys):
    clips = tmp_path / "clips"
    clips.mkdir()
    raw = np.random.default_rng(0).integers(0, 255, (2, 64 * 48 * 3 // 2), np.uint8)
    (clips / "tiny_64x48_25.yuv").write_bytes(raw.tobytes())
    output = tmp_path / "a.json"
    assert measure(clips, output, rates=[1.0, 2.0]) == 0
    result = Result.load(output)
    for pool in result.pools:
        assert set(pool.metrics) == {"fid"}
        assert "at least 256x256" in pool.unavailable["fid_256"]
    said = capsys.readouterr().out
    assert said.count("not measured: fid_256 of clips: fid_256 and kid_256 need") == 1
    assert "caution: fid of clips is of 2 samples, below 2048" in said
    # It is known, and nothing is left to do.
    assert measure(clips, output, rates=[1.0, 2.0]) == 0
    assert "2 of 2 points are there already" in capsys.readouterr().err


def test_a_single_picture_has_no_fid(toy, tmp_path, capsys):
    clips = tmp_path / "clips"
    clips.mkdir()
    raw = np.random.default_rng(0).integers(0, 255, 64 * 48 * 3 // 2, np.uint8)
    (clips / "tiny_64x48_25.yuv").write_bytes(raw.tobytes())
    assert measure(clips, tmp_path / "a.json", rates=[1.0]) == 0
    (pool,) = Result.load(tmp_path / "a.json").pools
    assert not pool.metrics
    assert pool.unavailable["fid"] == "fid needs at least 2 samples, there is 1"


def test_targets_are_pools_of_their_own(toy, clips, tmp_path):
    output = tmp_path / "a.json"
    assert measure(clips, output, rates=[2.0, Rate(0.5, "kbps")]) == 0
    pools = Result.load(output).pools
    assert [pool.target for pool in pools] == [None, "kbps 0.5"]
    assert pools[0].metrics == pools[1].metrics
    assert pools[1].rate == 2.0
    assert measure(clips, output, rates=[Rate(0.5, "kbps")]) == 0


def unavailable():
    raise UnavailableMetricError("fid and kid need the weights w.pth, put them at /p")


def test_missing_weights_are_said_and_made_up_for_when_they_are_there(
    clips, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "a.json"
    module = "callbacks.metrics.distribution"
    monkeypatch.setattr(f"{module}.Inception", unavailable)
    monkeypatch.setattr(f"{module}.check_inception", unavailable)
    assert "unavailable here: fid and kid need the weights" in describe_metrics()
    assert measure(clips, output, rates=[1.0]) == 0
    result = Result.load(output)
    assert result.pools == []
    lacking = result.environment["unavailable"]
    assert set(lacking) == {"fid", "kid", "fid_256", "kid_256"}
    said = capsys.readouterr().out
    assert "not measured: fid, kid, fid_256, kid_256: fid and kid need" in said
    # Nothing can be added yet.
    assert measure(clips, output, rates=[1.0]) == 0
    assert "2 of 2 points are there already" in capsys.readouterr().err
    monkeypatch.setattr(f"{module}.Inception", ToyInception)
    monkeypatch.setattr(f"{module}.check_inception", lambda: None)
    assert measure(clips, output, rates=[1.0]) == 0
    result = Result.load(output)
    assert result.pools[0].metrics.keys() == {"fid", "fid_256"}
    assert result.environment["unavailable"] == {}


def test_files_from_before_pools_are_read(toy, clips, tmp_path):
    output = tmp_path / "a.json"
    assert measure(clips, output, rates=[1.0]) == 0
    data = json.loads(output.read_text())
    del data["pools"]
    for sequence in data["sequences"]:
        del sequence["boundaries"]
        for point in sequence["points"]:
            del point["unavailable"], point["features"]
    output.write_text(json.dumps(data))
    result = Result.load(output)
    assert result.pools == [] and result.sequences[0].fps == Fraction(25)


def test_a_pool_with_a_value_that_is_no_number_is_damaged(toy, clips, tmp_path):
    output = tmp_path / "a.json"
    assert measure(clips, output, rates=[1.0]) == 0
    data = json.loads(output.read_text())
    data["pools"][0]["metrics"]["fid"] = float("nan")
    output.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"pools\[0\]\.metrics\.fid is nan"):
        Result.load(output)


def test_boundaries_have_motion_of_their_own(clips, tmp_path):
    output = tmp_path / "a.json"
    chosen = replace(options(clips, output, "--tof", "dis", "dis_l1", "teco"), fid=())
    assert run_jobs(NoisyCoder(), [Rate(1.0)], chosen) == 0
    result = Result.load(output)
    assert "(L1)" in result.protocol.definitions["tof_l1"]
    for sequence in result.sequences:
        assert sequence.boundaries == [2]
        (point,) = sequence.points
        assert point.metrics["tof_boundary"] == point.per_frame["tof"][1]
        assert point.metrics["tof"] != point.metrics["tof_boundary"]
        assert len(point.per_frame["tof_teco"]) == FRAMES - 1
        assert point.metrics["tof_l1"] > point.metrics["tof"]
        assert point.metrics["tof_l1_boundary"] == point.per_frame["tof_l1"][1]
        assert "tof_boundary" not in point.per_frame


def test_measured_files_are_compared_on_fid(toy, clips, tmp_path, capsys):
    class Worse(NoisyCoder):
        name = "worse"

        def describe(self):
            return {**super().describe(), "name": "worse"}

        def encode(self, task):
            cost = super().encode(task)
            cost.nbytes *= 2
            return cost

    paths = [str(tmp_path / f"{name}.json") for name in ("noisy", "worse")]
    for path, coder in zip(paths, (NoisyCoder, Worse), strict=True):
        assert measure(clips, tmp_path / path, coder=coder) == 0
    report = tmp_path / "report"
    command = [*paths, "--anchor=worse", "--metric", "fid", "fid_256"]
    assert compare([*command, f"--output={report}"]) == 0
    shown = capsys.readouterr().out
    assert "-50.00" in shown
    assert "noisy, clips: BD-rate over FID" in shown
    rows = json.loads((report / "bd.json").read_text())["rows"]
    assert {row["kind"] for row in rows} == {"set_pool", "overall_pool"}
    row = next(r for r in rows if r["kind"] == "set_pool" and r["metric"] == "fid")
    assert row["rate"]["value"] == pytest.approx(-50)
    assert row["rate"]["overlap"] == pytest.approx(100)
    fids = [pool.metrics["fid"] for pool in Result.load(tmp_path / paths[0]).pools]
    assert row["rate"]["interval"] == pytest.approx([min(fids), max(fids)])
    flags = {flag["kind"]: flag["text"] for flag in row["flags"]}
    assert "3 points, the least that pchip takes" in flags["few_points"]
    assert "FID of 6 pictures" in flags["few_samples"]
    text = (report / "report.md").read_text()
    assert "FID and KID of all sequences of a set together" in text
    assert (report / "plots" / "clips" / "fid.png").is_file()
    assert "FID, lower is better" in (report / "report.html").read_text()


def test_the_order_of_jobs_changes_no_digit(tmp_path):
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    sequences = []
    for name in names:
        for kind in ("decoded", "source"):
            features = rng.normal(size=(9, 4)).astype(np.float32)
            np.save(tmp_path / f"{name}.{kind}.npy", features)
        files = [f"{name}.{kind}.npy" for kind in ("decoded", "source")]
        point = Point(1.0, 0.1, features={"fid": files})
        entry = SequenceResult("set", name, 64, 48, Fraction(25), 9, [point])
        sequences.append(entry)
    result = Result("x", {}, Protocol("rgb", 0, -1, "bitstream"), sequences=sequences)
    jobs = [Job(entry, Rate(1.0), pool=tuple(names)) for entry in sequences]
    pools = [
        make_pools(result, [jobs[i] for i in order], tmp_path)
        for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0))
    ]
    assert pools[0] == pools[1] == pools[2]
    assert pools[0][0].samples["fid"] == 27
