"""``python -m experiments.fit``: options out of range are told before anything runs."""

import re

import cv2
import numpy as np
import pytest

from experiments.fit.options import TrackingOptions, TrainerOptions
from lightning_modules.stages import Shrink, Stage

ROW = {"name": "row", "steps": 1, "frames": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "'row': lr is 0.0, it must be above 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"warmup": -3}, "warmup is -3, it must be at least 0"),
        ({"weights": {"rate": -5.0}}, "weight of rate is -5.0, it must be at least 0"),
        ({"weights": {"rate": float("nan")}}, "weight of rate is nan"),
        ({"weights": {"rate": float("inf")}}, "weight of rate is inf"),
        ({"precision": "foo"}, "no precision 'foo'.* choose from 32-true, bf16-mixed"),
        ({"precision": "bf16-true"}, "no precision 'bf16-true'"),
    ],
)
def test_a_row_that_cannot_train_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Stage(**{**ROW, **change})


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "a/b", "/tmp", "-a", ".a", "a b", "a\n"),
        *("media", "wandb", "results", "config.yaml", "metrics.csv", "wandb_id.txt"),
    ],
)
def test_a_row_whose_folder_would_lie_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match=r"stage .*must consist of letters"):
        Stage(**{**ROW, "name": name})


@pytest.mark.parametrize("name", ["crop512_128", "a-b.c", "8", "étage", "media_2"])
def test_a_row_may_be_called_what_a_folder_may(name):
    assert Stage(**{**ROW, "name": name}).name == name


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"lr": 0}, "'second': lr is 0"),
        ({"precision": "foo"}, "'second': there is no precision 'foo'"),
        ({"name": ".."}, "stage '..'"),
        ({"frozen": ["network"]}, "'second' trains nothing.*'network'"),
        (
            {"trainable": ["network.adaptor_p"], "frozen": ["network"]},
            "'second' trains nothing",
        ),
    ],
)
def test_a_later_row_is_refused_before_the_first_has_trained(
    schedule, only_error, two_stages, tmp_path, row, message
):
    stages = [schedule["stages"][0], {**schedule["stages"][1], **row}]
    assert two_stages(tmp_path, "--run=run", stages=stages) == 2
    assert re.search(f"^error: .*{message}", only_error())
    assert not (tmp_path / "run").exists()


def test_rows_that_still_run_need_their_data_and_finished_ones_do_not(
    schedule, only_error, two_stages, tmp_path, capsys
):
    for video in ("a", "b", "c"):
        (tmp_path / "videos" / video).mkdir(parents=True)
        for number in range(3):
            picture = np.full((48, 48, 3), 40 * number, np.uint8)
            cv2.imwrite(str(tmp_path / f"videos/{video}/{number}.png"), picture)
    first, second = schedule["stages"]
    videos = {"source": "folder", "root": str(tmp_path / "videos"), "stride": 1}
    stages = [{**first, "data": videos}, second]
    assert two_stages(tmp_path, "--run=run", "--to_stage=first", stages=stages) == 0
    (tmp_path / "videos").rename(tmp_path / "gone")
    assert two_stages(tmp_path, "--run=run", stages=stages) == 0
    assert two_stages(tmp_path, "--run=fork", "--from_stage=second", stages=stages) == 0
    capsys.readouterr()
    stages = [first, {**second, "data": videos}]
    assert two_stages(tmp_path, "--run=other", stages=stages) == 2
    assert only_error().startswith("error: stage 'second': source 'folder': ")
    assert not (tmp_path / "other").exists()


def test_videos_too_small_for_a_later_row_are_said_before_the_first(
    schedule, capsys, two_stages, tmp_path
):
    (tmp_path / "videos").mkdir()
    for number in range(3):
        picture = np.full((40, 40, 3), 40 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"videos/{number}.jpg"), picture)
    first, second = schedule["stages"]
    videos = {"source": "folder", "root": str(tmp_path / "videos")}
    stages = [first, {**second, "crop": 48, "data": videos}]
    assert two_stages(tmp_path, "--run=run", stages=stages) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        "error: stage 'second': no video is left to train on: 1 of 1"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "least"),
    [
        ("log_every_n_steps", 1),
        ("val_every_n_steps", 1),
        ("save_every_n_steps", 1),
        ("check_ranks_every_n_steps", 1),
        ("accumulate_grad_batches", 1),
        ("devices", 1),
        ("num_nodes", 1),
        ("threads", 0),
        ("max_bad_steps", 0),
    ],
)
def test_a_trainer_option_below_its_least_is_refused(option, least):
    assert getattr(TrainerOptions(**{option: least}), option) == least
    with pytest.raises(ValueError, match=f"trainer: {option} is .* least {least}$"):
        TrainerOptions(**{option: least - 1})


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true", "foo"])
def test_a_precision_that_weights_would_lose_is_refused(precision):
    with pytest.raises(ValueError, match=f"trainer: .*{precision}.*16-mixed"):
        TrainerOptions(precision=precision)


@pytest.mark.parametrize("what", ["strips", "real_bits"])
def test_a_negative_number_of_validations_is_refused(what):
    option = f"{what}_every_n_validations"
    TrackingOptions(**{option: 0})
    with pytest.raises(ValueError, match=f"tracking: {option} is -1"):
        TrackingOptions(**{option: -1})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("total_steps", 0),
        ("min_steps", 0),
        ("frames", 0),
        ("crop", 0),
        ("batch_size", 0),
        ("lr_scale", 0.0),
        ("lr_scale", float("nan")),
    ],
)
def test_a_rehearsal_of_nothing_is_refused(option, value):
    with pytest.raises(ValueError, match=f"shrink: {option} is {value}"):
        Shrink(**{option: value})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.devices=0", "trainer: devices is 0, it must be at least 1"),
        ("--tracking.strips_every_n_validations=-1", "tracking: strips_every"),
        ("--shrink.total_steps=-4", "shrink: total_steps is -4"),
        ("--trainer.strategy=abacus", "abacus"),
        ("--stages.first.precision=16-mixed", "'first' trains in 16-mixed, .*bf16"),
        ("--model.distortion=msee", "distortion 'msee' is unknown: choose .*'mse'"),
        ("--model.lmbda_range=[5,1]", r"lmbda_range is \[5\.0, 1\.0\]"),
    ],
)
def test_an_option_out_of_range_is_one_line(
    only_error, two_stages, tmp_path, option, message
):
    assert two_stages(tmp_path, "--run=run", option) == 2
    assert re.search(f"^error: .*{message}", only_error())


def test_what_this_machine_lacks_is_one_line(
    only_error, two_stages, tmp_path, monkeypatch
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert two_stages(tmp_path, "--run=run", "--trainer.accelerator=gpu") == 2
    assert re.search("^error: trainer: .*gpu", only_error())


@pytest.mark.parametrize("script", [False, True])
def test_several_nodes_without_a_launcher_are_refused(
    only_error, two_stages, tmp_path, monkeypatch, script
):
    # A job's script that does not call srun has these.
    told = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "fit", "SLURM_PROCID": "0"}
    for name, value in told.items() if script else ():
        monkeypatch.setenv(name, value)
    assert two_stages(tmp_path, "--run=run", "--trainer.num_nodes=2") == 2
    line = only_error()
    assert line.startswith("error: --trainer.num_nodes 2 would wait for ever")
    assert "start it with srun, or with torchrun --nnodes 2" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../../x", "/x", ".", "..", "a/../b", "a//b"])
def test_a_run_outside_its_folder_is_refused(only_error, two_stages, tmp_path, name):
    assert two_stages(tmp_path / "runs", f"--run={name}") == 2
    message = f"error: --run {name!r} would not be a folder of its own in "
    assert only_error().startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_accelerator_that_is_none_is_refused(two_stages, tmp_path, capsys):
    with pytest.raises(SystemExit):
        two_stages(tmp_path, "--trainer.accelerator=abacus")
    assert "trainer.accelerator" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [2**32, -1, 1.5, "x"])
def test_a_seed_that_numpy_does_not_take_is_refused(two_stages, tmp_path, capsys, seed):
    with pytest.raises(SystemExit):
        two_stages(tmp_path, f"--seed={seed}")
    assert f"argument --seed: invalid uint32 value: '{seed}'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        two_stages(tmp_path, seed=seed)
    assert f"{seed!r} is no whole number from 0 to" in capsys.readouterr().err
