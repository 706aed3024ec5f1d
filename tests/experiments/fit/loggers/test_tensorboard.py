"""TensorBoard: one axis over all stages, and nothing twice after a kill."""

import cv2
import numpy as np
import pytest

from experiments.fit.loggers import tensorboard
from experiments.fit.loggers.choice import close_loggers, make_loggers
from experiments.fit.loggers.metrics_csv import read_metrics


def test_a_missing_package_is_named_before_anything_is_written(
    two_stages, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    assert two_stages(tmp_path, "--run=run", "--logger=tensorboard") == 2
    assert "pip install -e '.[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def events(tmp_path):
    """Read what TensorBoard would show of a run: steps and values by name."""
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )

    def read(run=tmp_path):
        found = module.EventAccumulator(str(run / "tensorboard"), {"images": 0})
        found.Reload()
        return found

    return read


def scalars(found, name):
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_a_killed_run_shows_no_step_twice(tmp_path, events):
    csv_logger, logger = make_loggers(tmp_path, "tensorboard")
    logger.start_stage("first", 10)
    for step in range(6):
        logger.log_metrics({"train/loss": step, "epoch": 0}, step)
    # Killed: nobody closes it, and it goes on from an earlier checkpoint.
    again = make_loggers(tmp_path, "tensorboard")[1]
    again.start_stage("first", 10, done=4)
    for step in range(4, 8):
        again.log_metrics({"train/loss": 100 + step}, step)
    again.finalize("success")
    again.start_stage("second", 18)
    again.log_metrics({"train/loss": 7.0}, 0)
    close_loggers([csv_logger, again])
    shown = scalars(events(), "train/loss")
    first = [(11 + step, step) for step in range(4)]
    assert shown == [*first, *((15 + i, 104 + i) for i in range(4)), (19, 7.0)]
    assert "epoch" not in events().Tags()["scalars"]


def test_pictures_are_shown_as_they_are(tmp_path, events):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200
    cv2.imwrite(str(tmp_path / "blue.png"), picture)
    logger = make_loggers(tmp_path, "tensorboard")[1]
    logger.start_stage("first", 10)
    logger.log_image("val/strip", [str(tmp_path / "blue.png")], 1, caption=["river"])
    close_loggers([logger])
    (shown,) = events().Images("val/strip")
    array = np.frombuffer(shown.encoded_image_string, np.uint8)
    assert shown.step == 12
    assert np.array_equal(cv2.imdecode(array, cv2.IMREAD_COLOR), picture)


def test_a_run_logs_to_it_what_is_in_the_csv(two_stages, tmp_path, events):
    options = ("--run=run", "--logger=tensorboard", "--to_stage=first")
    strips = "--tracking.strips_every_n_validations=1"
    assert two_stages(tmp_path, *options, strips) == 0
    run = tmp_path / "run"
    found = events(run)
    assert not (run / "wandb").exists()
    rows = {}
    for step, _, name, value in read_metrics(run / "metrics.csv"):
        rows.setdefault(name, []).append((step, pytest.approx(value, rel=1e-5)))
    assert {n: scalars(found, n) for n in found.Tags()["scalars"]} == rows
    assert {"val/strip_low", "val/strip_high", "val/rd"} <= {*found.Tags()["images"]}
