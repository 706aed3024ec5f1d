"""Checkpoints of finished stages in W&B: each once, named and found again."""

import json

import pytest
import wandb

from experiments.fit.loggers.artifacts import (
    RECORD,
    CheckpointArtifacts,
    check_artifacts,
)
from experiments.fit.loggers.choice import close_loggers, make_loggers
from experiments.fit.loggers.metrics_csv import TidyCSVLogger
from experiments.fit.run_folder import RunFolder
from lightning_modules.stages import Stage

STAGES = [Stage("first", 2, 1), Stage("second", 3, 1)]


@pytest.fixture
def run(tmp_path):
    """The folder of a run whose stages have ended, the second without a best."""
    for place in ("first/last", "first/best", "second/last"):
        path = tmp_path / "run" / f"{place}.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(place.encode() * 1000)
    return RunFolder(tmp_path / "run")


@pytest.fixture
def found(wandb_records):
    """Return the model artifacts that a run's offline parts hold."""

    def read(folder):
        # Its service writes the last records after the run is finished.
        wandb.teardown()
        return [
            record.artifact
            for path in sorted(folder.path.glob("wandb/offline-run-*/*.wandb"))
            for record in wandb_records(path)
            if record.artifact.type == "model"
        ]

    return read


def give(folder, choice, stages, killed=False):
    loggers = make_loggers(folder.path, "offline", project="p", name="n")
    artifacts = CheckpointArtifacts(folder, choice, loggers)
    for stage in stages:
        artifacts.give(stage)
    close_loggers(loggers)
    if not killed:
        artifacts.close()


def aliases(artifacts):
    return [sorted({*each.aliases} - {"latest"}) for each in artifacts]


FIRST = [["first-last", "last"], ["best", "first-best"]]
SECOND = [["last", "second-last"]]


def test_each_checkpoint_is_given_once(run, found):
    give(run, "all", STAGES[:1])
    for _ in range(2):
        give(run, "all", STAGES)
    artifacts = found(run)
    assert aliases(artifacts) == FIRST + SECOND
    assert {each.name for each in artifacts} == {"run"}
    assert json.loads(artifacts[2].metadata) == {
        "stage": "second",
        "steps": 3,
        "kind": "last",
    }
    (entry,) = artifacts[2].manifest.contents
    # Where the file is, from wherever it is sent; no copy of it.
    path = run.path / "second" / "last.ckpt"
    assert (entry.path, entry.local_path) == ("last.ckpt", str(path))
    assert entry.size == path.stat().st_size
    lines = (run.path / RECORD).read_text().split()
    assert lines == ["first/last.ckpt", "first/best.ckpt", "second/last.ckpt"]


def test_what_a_killed_process_gave_is_given_again(run, found):
    give(run, "best", STAGES, killed=True)
    give(run, "best", STAGES)
    one, other = found(run)
    assert aliases([one, other]) == FIRST[1:] * 2
    # W&B takes it for the same version.
    assert one.digest == other.digest


def test_without_a_choice_or_wandb_nothing_is_given(run):
    give(run, "none", STAGES)
    CheckpointArtifacts(run, "all", [TidyCSVLogger(run.path)]).give(STAGES[0])
    assert not (run.path / "wandb").exists() and not (run.path / RECORD).exists()


def test_a_run_gives_its_stages_as_they_end_and_those_before(
    two_stages, found, tmp_path, caplog
):
    options = ("--logger=offline", "--run=run")
    assert two_stages(tmp_path, *options, "--to_stage=first") == 0
    assert two_stages(tmp_path, *options, "--tracking.log_checkpoints=last") == 0
    assert "W&B artifact run:second-last: " in caplog.text
    run = RunFolder(tmp_path / "run")
    assert aliases(found(run)) == FIRST[:1] + SECOND
    assert len((run.path / RECORD).read_text().split()) == 2


def test_checkpoints_for_wandb_without_wandb_are_refused(
    two_stages, tmp_path, capsys, monkeypatch
):
    options = ("--logger=csv", "--run=run", "--tracking.log_checkpoints=last")
    assert two_stages(tmp_path, *options) == 2
    line = capsys.readouterr().err
    assert "log_checkpoints last is for W&B, which --logger csv leaves out" in line
    assert not (tmp_path / "run").exists()
    check_artifacts("none", "csv")
    check_artifacts("all", "auto")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    check_artifacts("all", "offline")
    with pytest.raises(ValueError, match="which WANDB_MODE=disabled leaves out"):
        check_artifacts("all", "auto")
