"""Jobs on a cluster: what is submitted, what waits for what, and going on."""

import os
import shutil
import sys

import pytest

from experiments.paper.command import main
from experiments.paper.job import Records
from experiments.paper.launchers.queued import QueuedJob
from experiments.paper.launchers.sbatch import of_fit, of_one_task, read_parameters
from experiments.paper.launchers.slurm import submit
from experiments.paper.places import Places
from experiments.paper.plan import Plan, make_plan

OWN = """
title: own
rows:
  one: {profile: ui2c rehearsal}
  two: {profile: dhvc rehearsal}
  three: {profile: video_vae rehearsal}
"""

# Makes the file of --output, or else the last of its words.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path

words = sys.argv[1:]
own = [word for word in words if not word.startswith("--trainer")]
out = Path(words[words.index("--output") + 1] if "--output" in words else own[-1])
if words[0] == "experiments.paper":
    out = out / "own/table.md"
if "fail" in words:
    sys.exit(3)
if "wait" in words and not out.with_suffix(".saved").exists():
    def save(*_):
        out.with_suffix(".saved").touch()
        sys.exit(138)
    signal.signal(signal.SIGUSR1, save)
    out.with_suffix(".begun").touch()
    time.sleep(60)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(" ".join(words))
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return sys.executable, "-S", str(tmp_path / "program.py")


@pytest.fixture
def send(records, recipe, tmp_path, program):
    """Submit jobs of a plan of one's own, or of a recipe's three rows."""

    def of(jobs=None, *parameters, **more):
        if jobs is None:
            plan = make_plan(recipe(OWN), tmp_path / "out")
        else:
            places = Places(tmp_path, "own")
            plan = Plan(recipe(OWN), places, None, tuple(jobs), {}, {})
        kept = Records(plan.places.jobs, plan.jobs)
        assert submit(plan, kept, parameters, program=program, **more) == 0
        return plan, kept

    return of


def test_three_rows_of_ones_own(slurm, send, capsys):
    plan, records = send()
    rows = slurm.scripts["101"]
    assert (rows["array"], rows["job-name"]) == ("0-2%3", "own-profile")
    assert slurm.scripts["102"]["dependency"] == "afterany:101_0:101_1:101_2"
    assert "array" not in slurm.scripts["102"]
    said = capsys.readouterr().out
    assert "submitted 101_2" in said and "squeue --me" in said
    # Queued, so nothing is submitted again.
    send()
    assert "0 jobs submitted, 4 were queued or ran, 0 are done" in (
        capsys.readouterr().out
    )
    assert set(slurm.run().values()) == {0}
    assert all(records.is_done(job) for job in plan.jobs[:-1])
    assert (plan.places.table / "table.md").exists()
    log = plan.places.jobs / "slurm/101_1_0_log.out"
    assert "Job completed successfully" in log.read_text()
    # Done, so nothing is.
    send()
    assert len(slurm.scripts) == 2


def test_the_command_submits_with_a_folder_for_what_is_measured(
    slurm, recipe, tmp_path, capsys
):
    path = str(recipe(OWN).path)
    out = tmp_path / "out"
    command = [path, "--output", str(out), "--launcher", "slurm", "--slurm"]
    assert main([*command, "partition=gpu"]) == 0
    assert (out / "results").is_dir()
    assert slurm.scripts["101"]["partition"] == "gpu"
    assert main([*command, "partitoin=gpu"]) == 2
    assert "did you mean partition" in capsys.readouterr().err


def test_three_rows_through_submitits_local_executor(send):
    plan, records = send(cluster="local")
    assert all(records.is_done(job) for job in plan.jobs[:-1])
    assert (plan.places.table / "table.md").exists()


def test_a_failure_holds_what_needs_it_and_is_submitted_again(slurm, send, job, capsys):
    def jobs(*words):
        return [
            job("a", *words),
            job("b", needs=["a"]),
            job("c"),
            job("table", needs=["a", "b", "c"], always=True),
        ]

    send(jobs("fail"))
    assert [each.get("dependency", "") for each in slurm.scripts.values()] == [
        "",
        "afterok:101_0",
        "afterany:101_0:102:101_1",
    ]
    codes = slurm.run()
    assert codes["101_0"] and codes["102"] is None
    assert (codes["101_1"], codes["103"]) == (0, 0)
    # The log of what failed with the same arguments is named.
    capsys.readouterr()
    send(jobs("fail"))
    (said,) = [line for line in capsys.readouterr().out.splitlines() if " a; " in line]
    assert said.startswith("submitted 104 ") and "slurm/101_0_0_log.out" in said
    assert slurm.scripts["105"]["dependency"] == "afterok:104"
    assert slurm.scripts["106"]["dependency"] == "afterany:104:105"


def test_what_is_new_joins_what_is_queued(slurm, send, job):
    first = [job("a"), job("table", needs=["a"], always=True)]
    send(first)
    more = [
        job("a"),
        job("b", needs=["a"]),
        job("table", needs=["a", "b"], always=True),
    ]
    send(more)
    # The table that is queued does not wait for it, so another one does.
    options = list(slurm.scripts.values())
    assert options[2]["dependency"] == "afterok:101"
    assert options[3]["dependency"] == "afterany:101:103:102"


def test_a_job_that_is_queued_otherwise_is_refused(slurm, send, job):
    send([job("a")])
    with pytest.raises(ValueError, match="a is queued or runs as 101 with other"):
        send([job("a", "other")])


def test_a_fit_has_a_task_per_gpu_and_others_one(slurm, send, job):
    jobs = [
        job("a"),
        job("b", needs=["a"], command="evaluate"),
        job("c", command="anchor"),
    ]
    send(jobs, "gpus-per-node=a100:4", "nodes=2", "time=2-12", "partition=gpu")
    fit, anchor, evaluate = (slurm.scripts[number] for number in ("101", "102", "103"))
    assert (fit["nodes"], fit["ntasks-per-node"]) == ("2", "4")
    assert (fit["gpus-per-node"], fit["time"]) == ("a100:4", "3600")
    assert fit["signal"] == "USR1@300" and "requeue" in fit
    assert (evaluate["nodes"], evaluate["ntasks-per-node"]) == ("1", "1")
    assert evaluate["gpus-per-node"] == "a100:1" and evaluate["partition"] == "gpu"
    assert "gpus-per-node" not in anchor
    slurm.run()
    assert "--trainer.num_nodes=2 --trainer.devices=4" in jobs[0].outputs[0].read_text()
    assert "--trainer" not in jobs[1].outputs[0].read_text()


def test_near_its_limit_a_job_saves_and_is_queued_again(slurm, send, job):
    waits = job("a", "wait")
    _, records = send([waits])
    (out,) = waits.outputs
    slurm.tell("101", out.with_suffix(".begun"))
    assert slurm.requeued == ["requeue 101"]
    assert out.with_suffix(".saved").exists() and not records.is_done(waits)
    assert slurm.run() == {"101": 0}
    assert records.is_done(waits) and slurm.requeued == ["requeue 101"]


def test_told_before_its_command_began_it_signals_nobody(job, records, monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *told: killed.append(told))
    again = QueuedJob(job("a"), records([job("a")]), (), ("python",), 5.0).checkpoint()
    assert killed == [] and again.function.seconds == 5.0


def test_what_sbatch_refuses_is_one_line_and_the_rest_is_known(slurm, send, job):
    send([job("a")])
    slurm.refuse()
    with pytest.raises(ValueError, match=r"sbatch refuses b: .*invalid partition"):
        send([job("a"), job("b", needs=["a"])])
    slurm.refuse(False)
    send([job("a"), job("b", needs=["a"])])
    assert list(slurm.scripts) == ["101", "102"]


def test_without_slurm_it_is_one_line(recipe, tmp_path, monkeypatch, capsys):
    path = str(recipe(OWN).path)
    out = tmp_path / "out"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    command = [path, "--output", str(out), "--launcher", "slurm"]
    assert main(command) == 2
    assert "there is no sbatch on the path" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "pip install 'learned-video-codecs[slurm]'" in error
    assert error.count("\n") == 1


KNOWN = ("partition", "time", "nodes", "gpus_per_node", "setup", "dependency", "gres")


def test_parameters_of_sbatch():
    words = ["--time=90:30", "setup=module load cuda", "setup=date", "gres=gpu:2"]
    read = read_parameters(words, KNOWN)
    assert read["time"] == 90
    assert read["setup"] == ["module load cuda", "date"]
    fit, more = of_fit(read)
    assert fit["ntasks_per_node"] == 2 and more[1] == "--trainer.devices=2"
    assert of_one_task(read, gpu=True)["gres"] == "gpu:1"
    assert "gres" not in of_one_task(read, gpu=False)


@pytest.mark.parametrize(
    ("word", "minutes"),
    [("30", 30), ("24:00:00", 1440), ("1-0", 1440), ("1-2:30", 1590), ("1:30:59", 90)],
)
def test_times_of_sbatch(word, minutes):
    assert read_parameters([f"time={word}"], KNOWN)["time"] == minutes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["partitoin=gpu"], "did you mean partition"),
        (["dependency=afterok:1"], "dependency is set by the launcher"),
        (["time=long"], "a time is MINUTES"),
        (["time=0"], "a minute at least"),
        (["nodes=two"], "a whole number from 1"),
        (["gpus-per-node=0"], "a number, or as a100:8"),
        (["partition="], "has no value"),
        (["nodes=1", "nodes=2"], "given twice"),
    ],
)
def test_wrong_parameters_are_one_line(words, message):
    with pytest.raises(ValueError, match=message) as error:
        read_parameters(words, KNOWN)
    assert "\n" not in str(error.value)
