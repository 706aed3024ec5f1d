"""The files for a cluster: its scripts run, and fit takes the sweep's trials."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from experiments.cli.configs import CONFIGS
from experiments.cli.options import make_parser
from experiments.evaluate.command import EvaluateOptions
from experiments.fit import command as fit_command
from experiments.fit.options import build_parser
from experiments.prepare.command import PrepareOptions

CLUSTER = CONFIGS / "cluster"
ROOT = Path(__file__).parents[3]
UI2C = ["--config", "experiments/configs/ui2c.yaml", "--run", "a b"]
MEASURED = ["--checkpoint", "last.ckpt", "--sequences", "uvg=/data", "--output", "a b"]


def submit(script, arguments, folder, *, code):
    """Run a script as SLURM would; return its exit code and the programs it started."""
    tools = folder / "bin"
    tools.mkdir()
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/activate").touch()
    log = folder / "log"
    for name, ends in (("srun", code), ("scontrol", 0)):
        tool = tools / name
        tool.write_text(
            f'#!/bin/bash\nprintf "%s\\n" {name} "$@" >> {log}\nexit {ends}'
        )
        tool.chmod(0o755)
    job = {"JOB_ID": "7", "JOB_NUM_NODES": "4", "NTASKS_PER_NODE": "8"}
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "VENV": str(folder / "venv"),
        **{f"SLURM_{name}": value for name, value in job.items()},
    }
    done = subprocess.run(["bash", script, *arguments], env=environment, timeout=30)
    return done.returncode, log.read_text().splitlines()


def arguments_of(started, module):
    return started[started.index(module) + 1 :]


@pytest.mark.parametrize(
    ("name", "nodes"), [("one_node.sbatch", 1), ("several_nodes.sbatch", 4)]
)
def test_a_job_that_ends_in_time_is_not_queued_again(
    name, nodes, tmp_path, monkeypatch
):
    code, started = submit(CLUSTER / name, UI2C, tmp_path, code=0)
    assert (code, started.count("scontrol")) == (0, 0)
    monkeypatch.chdir(ROOT)
    parser = build_parser()
    config = parser.parse_args(arguments_of(started, "experiments.fit"))
    assert (config.trainer.num_nodes, config.trainer.devices) == (nodes, 8)
    assert config.run == "a b"


@pytest.mark.parametrize("name", ["one_node.sbatch", "several_nodes.sbatch"])
@pytest.mark.parametrize(("ends", "again"), [(138, True), (1, False)])
def test_only_a_job_that_saved_is_queued_again(name, ends, again, tmp_path):
    code, started = submit(CLUSTER / name, UI2C, tmp_path, code=ends)
    assert code == ends
    assert (started[-3:] == ["scontrol", "requeue", "7"]) == again


def test_ranks_share_what_is_prepared(tmp_path):
    given = ["in", "a b", "--height", "720"]
    code, started = submit(CLUSTER / "prepare.sbatch", given, tmp_path, code=0)
    assert code == 0
    given = arguments_of(started, "experiments.prepare")
    assert str(make_parser(PrepareOptions, "").parse_args(given).output) == "a b"


def test_ranks_share_what_is_measured(tmp_path):
    code, started = submit(CLUSTER / "evaluate.sbatch", MEASURED, tmp_path, code=0)
    assert code == 0
    given = arguments_of(started, "experiments.evaluate")
    assert str(make_parser(EvaluateOptions, "").parse_args(given).output) == "a b"


def test_each_trial_of_a_sweep_is_a_run_of_its_own(monkeypatch, seen):
    sweep = yaml.safe_load((CLUSTER / "sweep.yaml").read_text())
    values = {
        n: {"value": each["values"][-1]} for n, each in sweep["parameters"].items()
    }
    flags = create_sweep_command_args({"args": values})["args"]
    command = sweep["command"]
    arguments = [
        str(part) for part in command[command.index("experiments.fit") + 1 : -1]
    ]
    assert command[-1] == "${args}"
    seen = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        "experiments.fit.run.train", lambda options, *_: seen.append(options)
    )
    for number in ("first", "second"):
        monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
        monkeypatch.setenv("WANDB_RUN_ID", number)
        fit_command.fit([*arguments, *flags])
    assert [options["run"] for options in seen] == ["ui2c-first", "ui2c-second"]
    rows = {row["name"]: row for row in seen[0]["stages"]}
    assert {row["lr"] for row in rows.values()} == {2.0e-4}
    assert rows["pairs_1"]["batch_size"] == 16


def test_outside_a_sweep_the_files_name_the_run(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "experiments.fit.run.train", lambda options, *_: seen.append(options)
    )
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    fit_command.fit([f"--config={CONFIGS / 'ui2c.yaml'}"])
    assert seen[0]["run"] == "ui2c"
