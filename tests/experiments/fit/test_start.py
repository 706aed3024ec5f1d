"""A start: who started the processes, what a refusal leaves, where a run goes on."""

import shutil

import cv2
import numpy as np
import pytest

from datamodules.sources.source import ClipError
from experiments.cli.launcher import is_first_process, rank_and_world
from experiments.fit.processes import is_one_of_several, started_by
from experiments.fit.run import Run
from experiments.fit.run_folder import RunFolder
from experiments.fit.summary import summary
from lightning_modules.stages import Stage

JOB = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "fit",
    "SLURM_NODELIST": "localhost",
    "SLURM_NNODES": "1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
"""The variables of a job's script, or of an interactive allocation's shell."""

STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
"""What each of two tasks of srun has besides."""

TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
    "TORCHELASTIC_RUN_ID": "x",
}


@pytest.fixture
def environment(monkeypatch):
    """Set variables; those of launchers that are not named are not there."""

    def be(variables):
        others = {**JOB, **STEP, **TORCHRUN, "NODE_RANK": ""}
        for name in others.keys() - variables.keys():
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return be


# Who started it


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        ({}, ""),
        (JOB, ""),
        ({**JOB, "SLURM_JOB_NAME": "interactive"}, ""),
        ({**JOB, **STEP, "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, ""),
        ({**JOB, **STEP}, "srun"),
        ({**JOB, **STEP, "SLURM_JOB_NAME": "interactive"}, "srun"),
        (TORCHRUN, "torchrun"),
        ({**JOB, **TORCHRUN}, "torchrun"),
    ],
)
def test_only_a_launcher_starts_several(environment, variables, launcher):
    environment(variables)
    assert started_by() == launcher
    assert is_one_of_several() == bool(launcher)
    assert rank_and_world() == (0, 2 if launcher else 1)


@pytest.mark.parametrize(
    ("variables", "speaks"),
    [
        ({}, True),
        (JOB, True),
        ({**JOB, **STEP, "SLURM_PROCID": "1"}, False),
        ({**TORCHRUN, "RANK": "2"}, False),
        # Of two nodes that torchrun numbers otherwise than SLURM.
        ({**JOB, **TORCHRUN, "SLURM_PROCID": "1"}, True),
        ({**JOB, **TORCHRUN, "RANK": "2"}, False),
        # Started by Lightning.
        ({**JOB, "NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_one_process_speaks(environment, variables, speaks):
    environment(variables)
    assert is_first_process() == speaks


@pytest.mark.parametrize("name", ["fit", "bash", "interactive"])
def test_a_plain_process_trains_in_a_job_of_many_tasks(
    environment, two_stages, tmp_path, name
):
    environment({**JOB, "SLURM_JOB_NAME": name})
    assert two_stages(tmp_path, "--run=run", "--to_stage=first") == 0


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        (
            {**JOB, **STEP},
            [],
            "srun started 2 processes, and --trainer.devices 1 --trainer.num_nodes 1 "
            "are 1: start it with srun --nodes 1 --ntasks-per-node 1, or give "
            "--trainer.devices 2",
        ),
        (
            {**JOB, **STEP, "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "1"},
            [],
            "srun started 2 processes, and --trainer.devices 1",
        ),
        (
            {**JOB, **STEP, "SLURM_STEP_NUM_NODES": "2"},
            ["--trainer.devices=2"],
            "srun started 2 processes on 2 nodes, and --trainer.devices 2 "
            "--trainer.num_nodes 1 are 2: start it with srun --nodes 1 "
            "--ntasks-per-node 2, or give --trainer.devices 1 --trainer.num_nodes 2",
        ),
        (
            {**JOB, **STEP, "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2"},
            ["--trainer.num_nodes=2"],
            "are 2: start it with srun --nodes 2 --ntasks-per-node 1",
        ),
        (TORCHRUN, [], "start it with torchrun --nnodes 1 --nproc_per_node 1, or give"),
    ],
)
def test_other_processes_than_devices_are_one_line(
    environment, only_error, two_stages, tmp_path, variables, options, message
):
    environment(variables)
    assert two_stages(tmp_path / "runs", "--run=run", *options) == 2
    assert message in only_error()
    assert not (tmp_path / "runs" / "run").exists()


# What a refusal leaves


REFUSALS = {
    "devices": ["--trainer.devices=3"],
    "accelerator": ["--trainer.accelerator=gpu"],
    "metric": ["--tracking.metrics=[psnr,abacus]"],
    "strategy": ["--trainer.strategy=abacus"],
    "missing strategy": ["--trainer.strategy=deepspeed"],
    "empty folder": ["--data.source=folder", "--data.root=EMPTY"],
    "small videos": ["--data.source=folder", "--data.root=SMALL"],
    "unreachable W&B": ["--logger=online"],
    "accumulated": ["--trainer.accumulate_grad_batches=3"],
}


@pytest.fixture
def refused(two_stages, tmp_path, monkeypatch):
    """Run ``fit`` offline with one of the refusals; return its exit code."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("experiments.fit.loggers.choice.why_offline", lambda: "no key")
    for name in ("EMPTY", "SMALL"):
        (tmp_path / name).mkdir()
    for number in range(9):
        picture = np.full((16, 16, 3), 9 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "SMALL" / f"{number}.png"), picture)

    def run(name, *more):
        folders = {each: str(tmp_path / each) for each in ("EMPTY", "SMALL")}
        options = REFUSALS[name]
        for each, path in folders.items():
            options = [option.replace(each, path) for option in options]
        try:
            return two_stages(tmp_path, "--logger=offline", *options, *more)
        except SystemExit as end:
            return end.code

    return run


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_start_leaves_no_run(refused, tmp_path, name, capsys):
    runs = tmp_path / "new" / "runs"
    assert refused(name, f"--runs_dir={runs}", "--run=run") == 2
    # Before it, the data may say what validates.
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def finished(two_stages, tmp_path_factory):
    """A run of the first stage, which tests copy to go on with it."""
    folder = tmp_path_factory.mktemp("finished")
    assert two_stages(folder, "--run=run", "--to_stage=first") == 0
    return folder / "run"


@pytest.mark.parametrize("name", ["devices", "strategy", "small videos"])
def test_a_refused_start_leaves_a_run_as_it_was(refused, finished, tmp_path, name):
    run = shutil.copytree(finished, tmp_path / "run")
    before = contents(run)
    assert refused(name, "--run=run") == 2
    assert contents(run) == before


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("error", [ClipError, OSError, RuntimeError])
def test_what_is_refused_late_is_removed_unless_it_has_trained(
    two_stages, tmp_path, monkeypatch, error
):
    def fail(run, *_):
        if trained:
            (run.folder.path / "metrics.csv").write_text("1,first,train/loss,1.0\n")
        raise error("no clip")

    monkeypatch.setattr(Run, "go_on", fail)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    arguments = tmp_path, "--logger=offline", f"--runs_dir={tmp_path / 'runs'}"
    for trained in (False, True):
        if error is RuntimeError:
            # A bug, whose traces are worth keeping.
            with pytest.raises(RuntimeError):
                two_stages(*arguments)
        else:
            assert two_stages(*arguments) == 2
        kept = trained or error is RuntimeError
        assert (tmp_path / "runs").exists() == kept
    # It was there before.
    assert (tmp_path / "runs" / "schedule" / "metrics.csv").exists()
    trained = False
    (tmp_path / "runs" / "schedule" / "metrics.csv").unlink()
    if error is not RuntimeError:
        assert two_stages(*arguments) == 2
    assert (tmp_path / "runs" / "schedule").exists()


# Where it goes on


def test_a_run_says_where_it_goes_on(two_stages, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    assert two_stages(tmp_path, "--run=run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run run goes on with stage second, as first is finished"


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ([None, None], None),
        ([3, None], "run x goes on in stage a, after step 3 of 10"),
        ([10, None], "run x goes on with stage b, as a is finished"),
        ([10, 4], "run x goes on in stage b, after step 4 of 20"),
        ([10, 20], None),
    ],
)
def test_where_it_goes_on_follows_from_the_steps_done(tmp_path, done, said):
    stages = [Stage("a", 10, 1), Stage("b", 20, 1)]
    assert RunFolder(tmp_path / "x").resumption(stages, done) == said


def test_after_to_stage_the_summary_names_the_next_one(
    two_stages, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sys.argv", ["/usr/bin/lvc"])
    assert two_stages(tmp_path, "--run=run", "--to_stage=first") == 0
    said = capsys.readouterr().out
    line = "the same command without --to_stage goes on with stage second"
    assert f"next:\n  {line}\n  lvc encode VIDEO out.lvc --checkpoint " in said
    assert two_stages(tmp_path, "--run=run") == 0
    assert "--to_stage" not in capsys.readouterr().out


@pytest.mark.parametrize("newer", [False, True])
def test_the_summary_has_the_bd_rate_of_the_last_validation(tmp_path, newer):
    rows = ["step,stage,name,value", "1,a,val/bpp,0.1", "1,a,val/bd_rate_psnr,-12.34"]
    rows += ["1,a,val/bd_rate_psnr_overlap,23.4", *["2,a,val/bpp,0.1"] * newer]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    said = summary(RunFolder(tmp_path), [Stage("a", 10, 1)], None, None, 0.0)
    assert ("BD-rate of PSNR -12.3 %, its overlap 23 %" in said) != newer
