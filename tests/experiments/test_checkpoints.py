"""``--checkpoint``: a file, or the folder of a stage or a run."""

from pathlib import Path

import pytest
import yaml

from experiments.bitstreams.options import DecodeOptions, EncodeOptions
from experiments.cli.checkpoints import find_checkpoint
from experiments.cli.options import parse
from experiments.evaluate.command import EvaluateOptions
from experiments.propagation.options import PropagationOptions
from experiments.stream.options import StreamOptions


@pytest.fixture
def run(tmp_path):
    """A run of three stages, of which two have begun."""
    path = tmp_path / "runs" / "mine"
    for stage in ("second", "first"):
        (path / stage).mkdir(parents=True)
        (path / stage / "last.ckpt").touch()
        (path / stage / "best.ckpt").touch()
    stages = [{"name": name} for name in ("first", "second", "third")]
    (path / "config.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (path / "wandb").mkdir()
    return path


def test_a_runs_folder_is_its_last_stage_that_has_begun(run):
    assert find_checkpoint(run) == run / "second" / "last.ckpt"
    # By the schedule, not by name or time.
    (run / "third").mkdir()
    (run / "first" / "last.ckpt").touch()
    assert find_checkpoint(run) == run / "second" / "last.ckpt"
    assert find_checkpoint(run / "first") == run / "first" / "last.ckpt"


def test_what_is_no_folder_is_given_back(run):
    for path in (run / "first" / "best.ckpt", run / "nowhere.ckpt"):
        assert find_checkpoint(path) == path


@pytest.mark.parametrize("content", [None, "", "[]", "stages: 3", "{", "stages: [1]"])
def test_without_a_schedule_one_stage_is_clear_and_two_are_not(run, content):
    (run / "config.yaml").unlink()
    if content is not None:
        (run / "config.yaml").write_text(content)
    message = f"which of its stages is the last: name one of {run / 'first'}, "
    with pytest.raises(ValueError, match=message):
        find_checkpoint(run)
    (run / "first" / "last.ckpt").unlink()
    assert find_checkpoint(run) == run / "second" / "last.ckpt"


def test_a_folder_without_a_checkpoint_is_refused(run):
    with pytest.raises(ValueError, match=r"wandb is a folder without a checkpoint: ne"):
        find_checkpoint(run / "wandb")
    for last in run.glob("*/last.ckpt"):
        last.unlink()
    best = run / "first" / "best.ckpt"
    with pytest.raises(ValueError, match=f"; name a file, such as {best}"):
        find_checkpoint(run)


COMMANDS = {
    "encode": (EncodeOptions, ["in", "out", "--rate=1"]),
    "decode": (DecodeOptions, ["in", "out"]),
    "evaluate": (EvaluateOptions, ["--sequences=a", "--output=a.json"]),
    "stream": (StreamOptions, ["in", "--rate=1", "--output=o", "--lose=5:4"]),
    "propagation": (PropagationOptions, ["--sequences=a", "--output=o"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_folder_and_says_which_file_it_is(run, command, capsys):
    kind, arguments = COMMANDS[command]
    given = parse(kind, command, [*arguments, f"--checkpoint={run}"])
    assert given.checkpoint == run / "second" / "last.ckpt"
    assert capsys.readouterr().err == f"checkpoint: {given.checkpoint}\n"
    given = parse(kind, command, [*arguments, f"--checkpoint={given.checkpoint}"])
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as end:
        parse(kind, command, [*arguments, f"--checkpoint={run / 'wandb'}"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: argument --checkpoint: {Path(run, 'wandb')} is a fo"
    )
