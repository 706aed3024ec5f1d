"""Jobs on this machine: order, failures, and going on after any end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.paper.launchers.local import own_gpus, run_locally

DRIVER = """
import sys
from pathlib import Path
from experiments.paper.job import Job, Records
from experiments.paper.launchers import local

local.with_variables = lambda word: word
folder = Path(sys.argv[1])
Job.words = property(lambda job: (f"own_{job.name}", *job.arguments))
jobs = [Job(name, "fit", (str(folder / name),), (folder / name,), needs)
        for name, needs in (("a", ()), ("b", ("a",)), ("c", ("a",)), ("d", ("b", "c")))]
outcome = local.run_locally(
    jobs, Records(folder / "jobs", jobs), print, at_once=2, start=local.start_process)
sys.exit(len(outcome.failed))
"""

WORK = """
import sys, time
from pathlib import Path
out = Path(sys.argv[1])
# Goes on where it was killed, as a fit does.
part = out.with_suffix(".part")
count = len(part.read_text()) if part.exists() else 0
for _ in range(count, 5):
    time.sleep(0.05)
    with part.open("a") as file:
        file.write("x")
out.write_text(part.read_text())
"""


def run(jobs, records, start, **more):
    lines = []
    outcome = run_locally(jobs, records(jobs), lines.append, start=start, **more)
    return outcome, lines


def test_jobs_run_after_those_they_need_and_only_once(job, records, start, tmp_path):
    jobs = [job("a"), job("b", needs=["a"]), job("c", needs=["b"])]
    outcome, lines = run(jobs, records, start, at_once=2)
    assert outcome.done == {"a", "b", "c"} and not outcome.failed
    assert [line.split()[1] for line in lines] == ["a", "a", "b", "b", "c", "c"]
    again, lines = run(jobs, records, start)
    assert again.done == outcome.done and lines == []


def test_other_arguments_are_done_anew_and_all_that_follows(job, records, start):
    jobs = [job("a"), job("b", needs=["a"]), job("c")]
    run(jobs, records, start)
    jobs[0] = job("a", "other")
    _, lines = run(jobs, records, start)
    assert [line.split()[1] for line in lines] == ["a", "a", "b", "b"]


def test_free_arguments_change_nothing(job, records, start):
    run([job("a")], records, start)
    assert run([job("a", free=("--wandb",))], records, start)[1] == []


def test_a_lost_file_is_made_again(job, records, start, tmp_path):
    run([job("a")], records, start)
    (tmp_path / "a").unlink()
    assert run([job("a")], records, start)[0].done == {"a"}
    assert (tmp_path / "a").exists()


def test_a_failed_job_is_named_and_holds_only_what_needs_it(job, records, start):
    jobs = [
        job("a", "fail"),
        job("b", needs=["a"]),
        job("c", needs=["b"]),
        job("d"),
        job("table", needs=["c", "d"], always=True),
    ]
    outcome, lines = run(jobs, records, start)
    assert outcome.failed == {"a": 1} and set(outcome.held) == {"b", "c"}
    kept = records(jobs)
    assert kept.has_failed(jobs[0]) and not kept.is_done(jobs[0])
    assert outcome.done == {"d", "table"}
    (failed,) = [line for line in lines if line.startswith("FAILED")]
    assert "it fails, as it is told" in failed and "a.log" in failed
    jobs[0] = job("a")
    assert not run(jobs, records, start)[0].failed


def test_a_job_that_makes_nothing_failed(job, records, start, tmp_path):
    lost = job("a")
    object.__setattr__(lost, "outputs", (tmp_path / "other",))
    outcome, _ = run([lost], records, start)
    assert outcome.failed == {"a": 0}


def test_who_looks_on_hears_of_each_end_and_of_what_runs(job, records, start):
    heard = []
    jobs = [job("a"), job("b", "fail"), job("c", seconds=0.5)]
    run(
        jobs,
        records,
        start,
        at_once=3,
        ended=lambda job, running: heard.append((job.name, "c" in running)),
    )
    assert sorted(heard) == [("a", True), ("b", True), ("c", False)]


def test_no_more_jobs_than_asked_run_at_a_time(job, records, start):
    jobs = [job(name, seconds=0.2) for name in "abc"]
    _, lines = run(jobs, records, start, at_once=2)
    assert [line.split()[0] for line in lines[:3]] == ["begins", "begins", "done"]


def test_ended_at_any_moment_it_goes_on_to_the_same(tmp_path):
    """By SIGKILL: what it started ends too, so no run is held by a lost job."""
    for name in "abcd":
        (tmp_path / f"own_{name}.py").write_text(WORK)
    folder = tmp_path / "out"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{tmp_path}"}
    command = [sys.executable, "-c", DRIVER, str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "env": environment}
    for number in range(3):
        killed = subprocess.Popen(command, **quiet)
        time.sleep(0.5 + 0.25 * number)
        killed.kill()
        killed.wait()
        sizes = {path: path.stat().st_size for path in folder.glob("*.part")}
        time.sleep(0.15)
        assert sizes == {path: path.stat().st_size for path in sizes}
    assert subprocess.run(command, check=True, **quiet).returncode == 0
    assert [(folder / name).read_text() for name in "abcd"] == ["x" * 5] * 4


def test_ctrl_c_ends_what_runs(job, records, start, tmp_path):
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(KeyboardInterrupt):
        run([job("a", seconds=30)], records, start)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("visible", "places", "shares"),
    [
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("4,7", 3, ["4", "7", "4"]),
        ("0,1", 1, [None]),
        ("", 2, [None, None]),
    ],
)
def test_jobs_share_gpus(monkeypatch, visible, places, shares):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = [own_gpus(place, places) for place in range(places)]
    assert [each.get("CUDA_VISIBLE_DEVICES") for each in found] == shares
