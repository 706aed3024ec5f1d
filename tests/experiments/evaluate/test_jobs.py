"""Jobs of a command: which there are, who does them, and what is kept of them."""

import os
import re
import shutil
import signal
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.sequences.content import examine
from datamodules.sequences.files import VideoSequence, source_kind
from experiments.cli.activity import activity
from experiments.cli.launcher import rank_and_world
from experiments.cli.options import parse
from experiments.evaluate import command as evaluate
from experiments.evaluate import jobs
from experiments.evaluate.coder import Coder, Cost
from experiments.evaluate.features import SampleFeatures
from experiments.evaluate.gallery import Gallery
from experiments.evaluate.job import Job, Rate
from experiments.evaluate.jobs import run_jobs
from experiments.evaluate.options import JobOptions
from experiments.evaluate.parts import Parts, check_sources
from experiments.results.result import Protocol, Result, SequenceResult

WIDTH, HEIGHT, FRAMES = 64, 48, 2
VAE = {"backbone": "lean_vae", "frames_per_unit": 5, "lpips": "random"}


class ToyCoder(Coder):
    """Gives each frame back as it is."""

    name = "toy"

    def describe(self):
        return {"name": "toy", "kind": "learned", "fingerprint": "0"}

    def environment(self):
        return {}

    def encode(self, task):
        frames = len(list(task.codes()))
        return Cost(round(1000 * task.rate), [1000.0] * frames)

    def decode(self, task, cost, scales=None):
        for frame in task.codes():
            yield tuple(torch.from_numpy(plane / 255).float() for plane in frame)


def write_clip(folder, name, seed=0, frames=FRAMES, size=(WIDTH, HEIGHT), fps=25):
    folder.mkdir(parents=True, exist_ok=True)
    raw = np.random.default_rng(seed).integers(
        0, 255, frames * size[0] * size[1] * 3 // 2, np.uint8
    )
    path = folder / f"{name}_{size[0]}x{size[1]}_{fps}.yuv"
    path.write_bytes(raw.tobytes())
    return path


def measure(clips, output, *more, rates=(1.0,)):
    given = ["--sequences", str(clips), "--output", str(output)]
    given += ["--lpips=none", "--threads=1", "--pictures=0"]
    options = parse(JobOptions, "toy", [*given, *more])
    found = [rate if isinstance(rate, Rate) else Rate(rate) for rate in rates]
    return run_jobs(ToyCoder(), found, options)


def job(own, name, rate=21.0):
    sequence = VideoSequence(own, name, Path("x.yuv"), 64, 48, Fraction(25), 2)
    return Job(sequence, Rate(rate))


def test_ordinary_names_are_names_of_files():
    assert job("uvg", "Beauty").file == "uvg.Beauty.rate21.0.json"
    assert job("my-clips", "calm_64x48_25").stem == "my-clips.calm_64x48_25"


def test_every_sequence_has_files_of_its_own():
    names = [
        ("s", "a b"),
        ("s", "a_b"),
        ("s", "a\u00a0b"),
        ("s", "春天"),
        ("s", "夏天"),
        ("春天", "s"),
        ("a.b", "c"),
        ("a", "b.c"),
        ("s", "\udcff"),
    ]
    stems = [job(*name).stem for name in names]
    assert len(set(stems)) == len(names)
    assert all(stem.isascii() and "/" not in stem for stem in stems)
    # Nobody else is called like one whose name had to be changed.
    own, name = job("s", "a b").stem.split(".")
    assert job(own, name).stem != f"{own}.{name}"


def test_no_point_and_no_picture_is_lost_to_a_similar_name(tmp_path):
    clips, output = tmp_path / "clips", tmp_path / "a.json"
    names = ("a b", "a_b", "春天", "夏天")
    for seed, name in enumerate(names):
        write_clip(clips, name, seed)
    assert measure(clips, output) == 0
    result = Result.load(output)
    assert len(result.sequences) == len(names)
    pictures = {
        (tmp_path / place).read_bytes()
        for sequence in result.sequences
        for place in sequence.pictures.values()
    }
    assert len(pictures) == len(names)


def test_features_of_similar_names_are_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("callbacks.metrics.distribution.Inception", lambda: None)
    options = JobOptions(
        sequences=(), output=tmp_path / "a.json", colour="rgb", fid=("frames",)
    )
    paths = [
        path
        for name in ("a b", "a_b")
        for path in SampleFeatures(job("s", name), options, "cpu")._features
    ]
    assert len(set(paths)) == 4


def test_close_rates_have_pictures_of_their_own(tmp_path):
    options = JobOptions(sequences=(), output=tmp_path / "a.json", colour="rgb")
    codes = tuple(np.zeros((2, 2), np.uint8) for _ in range(3))
    planes = tuple(torch.zeros(2, 2) for _ in range(3))
    kept = []
    for rate in (21.0, 0.12345678, 0.12345679):
        gallery = Gallery(job("s", "a", rate), options)
        gallery.add(0, codes, planes)
        kept.append(gallery.decoded["0"])
    assert kept[0] == "a.frames/s.a/00000.rate21.png"
    assert len(set(kept)) == 3


def test_one_process_never_waits_for_others(tmp_path, monkeypatch, capsys):
    clips, output = tmp_path / "clips", tmp_path / "a.json"
    write_clip(clips, "calm")
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", lambda self, job, result: None)
        with pytest.raises(ValueError, match=r"clips/calm_64x48_25 at rate 1 was"):
            measure(clips, output)
    assert "other processes" not in capsys.readouterr().out
    assert measure(clips, output) == 0


def test_another_video_of_the_same_name_is_not_mixed_in(tmp_path):
    clips, output = tmp_path / "clips", tmp_path / "a.json"
    path = write_clip(clips, "calm")
    assert measure(clips, output) == 0
    before = output.read_bytes()
    images = tmp_path / "images" / "clips" / path.stem
    write_images(images, FRAMES)
    longer = write_clip(tmp_path / "longer" / "clips", "calm", frames=3)
    for other, named in (
        (longer.parent, "was measured as 2 frames of 64x48 at 25 fps.* is 3 frames of"),
        (images.parent, r"\(8-bit 4:2:0 planes as stored\), and .*\(RGB images\)"),
    ):
        with pytest.raises(ValueError, match=named) as caught:
            measure(other, output, rates=(1.0, 2.0))
        assert f"clips/{path.stem}" in str(caught.value)
        assert "choose another --output, or --overwrite" in str(caught.value)
        assert output.read_bytes() == before
    assert measure(longer.parent, output, "--overwrite") == 0


def write_images(folder, frames):
    import cv2

    folder.mkdir(parents=True)
    for number in range(frames):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), picture)


def looked_at(path):
    return VideoSequence("clips", "calm", path, *examine(path))


def stored(path):
    """Return a result as if a video had been measured."""
    sequence = looked_at(path)
    values = (sequence.width, sequence.height, sequence.fps, sequence.frames, [])
    entry = SequenceResult("clips", "calm", *values, source_kind(sequence))
    return Result("x", {}, Protocol("rgb", 0, -1, "bitstream"), sequences=[entry])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": (48, 64)}, "3 frames of 48x64 at 25 fps"),
        ({"fps": 50}, "3 frames of 64x48 at 50 fps"),
        ({"frames": 5}, "5 frames of 64x48 at 25 fps"),
    ],
)
def test_size_speed_and_length_make_another_video(tmp_path, change, named):
    path = write_clip(tmp_path, "calm", frames=3)
    other = write_clip(tmp_path, "other", **{"frames": 3, **change})
    check_sources(stored(path), [looked_at(path)], None)
    with pytest.raises(ValueError, match=named):
        check_sources(stored(path), [looked_at(other)], None)


def test_what_is_not_known_makes_no_other_video(tmp_path):
    path = write_clip(tmp_path, "calm", frames=3)
    longer = write_clip(tmp_path, "longer", frames=4)
    check_sources(stored(path), [looked_at(longer)], 3)
    for most in (None, 9):
        check_sources(stored(path), [replace(looked_at(path), frames=None)], most)
    result = stored(path)
    result.sequences[0].source = None
    check_sources(result, [looked_at(path)], None)
    check_sources(result, [replace(looked_at(longer), name="other")], None)


def set_environment(monkeypatch, values):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")
    for name in (*names, "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, (2, 3)),
        # A batch script: its tasks are those that srun would start.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1)),
        # One process of a step, in a job that has room for more.
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"},
            (0, 1),
        ),
    ],
)
def test_launchers_say_which_process_this_is(monkeypatch, values, expected):
    set_environment(monkeypatch, values)
    assert rank_and_world() == expected


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"RANK": "one", "WORLD_SIZE": "2"}, "variable RANK is 'one'"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "variable WORLD_SIZE is ''"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "variable RANK is '-1'"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2(x2)"}, "TASKS is '2"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, it must be below WORLD_SIZE"),
        ({"LOCAL_RANK": "gpu1"}, "variable LOCAL_RANK is 'gpu1'"),
    ],
)
def test_a_launcher_that_says_no_number_is_named(tmp_path, monkeypatch, values, named):
    set_environment(monkeypatch, values)
    write_clip(tmp_path / "clips", "calm")
    with pytest.raises(ValueError) as caught:
        measure(tmp_path / "clips", tmp_path / "a.json")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("codec", "options", "named"),
    [
        ("ui2c", ["--target_bpp", "0.1", "0"], "a target of 0 bpp is not possible"),
        ("ui2c", ["--target_bpp=-1"], "a target of -1 bpp is not possible"),
        ("ui2c", ["--target_kbps", "inf"], "a target of inf kbps is not possible"),
        ("ui2c", ["--target_kbps", "9", "nan"], "a target of nan kbps is not possible"),
        ("ui2c", ["--rate=21", "--intra_period=3"], "intra_period is 3"),
        ("video_vae", ["--target_bpp=0.1"], "this model has one rate, lmbda "),
    ],
)
def test_what_no_point_can_do_is_refused_before_any_is_tried(
    checkpoint, tmp_path, monkeypatch, only_error, codec, options, named
):
    tried = []
    monkeypatch.setattr(jobs, "assess", lambda *a: tried.append(a))
    write_clip(tmp_path / "clips", "calm")
    given = ["--checkpoint", str(checkpoint(codec)), "--device=cpu"]
    given += ["--sequences", str(tmp_path / "clips")]
    given += ["--output", str(tmp_path / "a.json"), "--lpips=none", "--threads=1"]
    assert evaluate.main([*given, *options]) == 2
    assert named in only_error()
    assert not tried
    assert not (tmp_path / "a.parts").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("UI2C", {}, {}),
        ("DualDomain", {}, {}),
        ("ScaleSpaceFlow", {}, {}),
        ("VideoVAE", VAE, {}),
        ("DHVC", {"auxiliary": False}, {}),
        ("DHVC", {"auxiliary": False}, {"pipeline": 2}),
    ],
)
def test_every_codec_refuses_an_intra_period_without_a_frame(
    lively_module, name, arguments, options
):
    codec = lively_module(name, **arguments).codec.eval()
    codec.configure(**options)
    rate = codec.rate_knob.low
    for possible in (-1, 4):
        with pytest.raises(ValueError, match="there is no frame to code"):
            list(codec.compress([], rate, intra_period=possible))
    with pytest.raises(ValueError, match="intra_period is 0"):
        list(codec.compress([], rate, intra_period=0))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError("the disk is full"), "the same command tries these again"),
        (ValueError("out of reach"), "leave that sequence or rate out"),
    ],
)
def test_what_failed_is_not_advised_for_ever(tmp_path, monkeypatch, error, advice):
    def fails(*_):
        raise error

    monkeypatch.setattr(jobs, "assess", fails)
    write_clip(tmp_path / "clips", "calm")
    with pytest.raises(ValueError) as caught:
        measure(tmp_path / "clips", tmp_path / "a.json")
    assert str(caught.value).endswith(advice)
    assert "goes on" not in str(caught.value)


def test_a_run_that_ends_first_leaves_another_what_it_has(
    tmp_path, monkeypatch, capsys
):
    clips, output = tmp_path / "clips", tmp_path / "a.json"
    write_clip(clips, "calm")
    real, seen = jobs.assess, []

    def other_run_ends_meanwhile(job, coder, options, source):
        if job.rate.value == 2.0 and not seen:
            seen.append(job)
            folder = output.with_suffix(".parts") / "coding-of-this-one"
            folder.mkdir()
            (folder / "stream").write_text("half")
            assert measure(clips, output, rates=(3.0,)) == 0
            assert "holds what other commands left" in capsys.readouterr().err
            assert (folder / "stream").read_text() == "half"
            shutil.rmtree(folder)
        return real(job, coder, options, source)

    monkeypatch.setattr(jobs, "assess", other_run_ends_meanwhile)
    assert measure(clips, output, rates=(1.0, 2.0)) == 0
    (sequence,) = Result.load(output).sequences
    assert sorted(point.rate for point in sequence.points) == [1.0, 2.0, 3.0]
    assert not output.with_suffix(".parts").exists()


def in_another_process(function):
    """Run it in a fork, which holds no lock of this process; return its number."""
    child = os.fork()
    if child == 0:
        # Nothing of pytest's may go on there.
        try:
            function()
        finally:
            os._exit(0)
    return child


def test_two_that_finish_together_lose_no_point(tmp_path, monkeypatch):
    clips, output = tmp_path / "clips", tmp_path / "a.json"
    write_clip(clips, "calm")
    real, children = jobs.make_pools, []

    def late(*arguments):
        monkeypatch.setattr(jobs, "make_pools", real)
        children.append(
            in_another_process(lambda: measure(clips, output, rates=(2.0,)))
        )
        # Without the lock it is through long before.
        time.sleep(0.4)
        return real(*arguments)

    monkeypatch.setattr(jobs, "make_pools", late)
    assert measure(clips, output, rates=(1.0,)) == 0
    os.waitpid(children[0], 0)
    (sequence,) = Result.load(output).sequences
    assert sorted(point.rate for point in sequence.points) == [1.0, 2.0]
    assert not output.with_suffix(".parts").exists()


def test_what_a_killed_job_left_is_removed_and_a_living_one_is_not(
    tmp_path, monkeypatch
):
    clips, output = tmp_path / "clips", tmp_path / "a.json"
    write_clip(clips, "calm")
    begun, said = os.pipe()

    def encode(self, task):
        os.write(said, b"x")
        time.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(ToyCoder, "encode", encode)
        child = in_another_process(lambda: measure(clips, output, rates=(2.0,)))
    os.read(begun, 1)
    parts = output.with_suffix(".parts")
    assert measure(clips, output, rates=(1.0,)) == 0
    assert len(list(parts.glob("coding-*"))) == 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert measure(clips, output, rates=(1.0,)) == 0
    assert not parts.exists()


def test_what_a_job_removes_itself_meanwhile_is_no_error(tmp_path, monkeypatch):
    parts = Parts(
        tmp_path / "a.json", Result("a", {}, Protocol("rgb", 1, -1, None), {})
    )
    (parts.folder / "coding-1").mkdir(parents=True)
    (parts.folder / "coding-1" / ".lock").touch()
    remove = shutil.rmtree

    def late(path, **options):
        remove(path)
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", late)
    parts.clear()
    assert not parts.folder.exists()


def test_what_a_job_does_can_be_looked_at_frame_by_frame(tmp_path, capsys):
    seen = []

    class Looked(ToyCoder):
        def encode(self, task):
            for _ in task.codes():
                seen.append(str(activity()))
            return super().encode(task)

        def decode(self, task, cost, scales=None):
            for planes in super().decode(task, cost):
                seen.append(str(activity()))
                yield planes

    write_clip(tmp_path / "clips", "calm")
    given = ["--sequences", str(tmp_path / "clips"), "--lpips=none", "--threads=1"]
    options = parse(JobOptions, "toy", [*given, f"--output={tmp_path / 'a.json'}"])
    assert run_jobs(Looked(), [Rate(1.0)], options) == 0
    assert seen == [
        *("encode, 0/2 frames", "encode, 1/2 frames"),
        *("decode and measure, 0/2 frames", "decode and measure, 1/2 frames"),
    ]
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "1 points to do" and last.endswith("; 1/1 points")


def test_ranks_count_what_all_of_them_have_done(tmp_path, monkeypatch, capsys):
    clips = tmp_path / "clips"
    write_clip(clips, "calm")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, counts in (("1", ["1/3"]), ("0", ["2/3", "3/3"])):
        monkeypatch.setenv("RANK", rank)
        assert measure(clips, tmp_path / "a.json", rates=(1.0, 2.0, 3.0)) == 0
        said = capsys.readouterr().err
        assert re.findall(r"; (\d/\d) points", said) == counts


def test_nothing_stays_of_a_command_that_ended_before_its_first_point(
    tmp_path, monkeypatch
):
    write_clip(tmp_path / "clips", "calm")

    def encode(self, task):
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyCoder, "encode", encode)
    assert measure(tmp_path / "clips", tmp_path / "a.json") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]
