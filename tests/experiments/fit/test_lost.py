"""A process of a run that is killed is named, in one line, by those that are left."""

import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from experiments.fit import lost
from lightning_modules.base import CodecModule

GOES_ON = "the same command goes on where the run saved"


def trainer(rank=0, procs=()):
    launcher = SimpleNamespace(procs=procs)
    return SimpleNamespace(
        global_rank=rank, strategy=SimpleNamespace(launcher=launcher)
    )


def start(function, output, *arguments):
    """Run a function in a forked process, what it says to a file."""

    def run():
        with output.open("w") as file:
            os.dup2(file.fileno(), 2)
        sys.stderr = open(2, "w", closefd=False)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def test_a_killed_loader_is_named_and_the_run_goes_on(
    two_stages, tmp_path, monkeypatch, capsys
):
    step, killed = CodecModule.training_step, []

    def kill_then_step(self, *arguments):
        if not killed and self.trainer.global_step == 1:
            (loader,) = multiprocessing.active_children()
            killed.append(loader.pid)
            os.kill(loader.pid, signal.SIGKILL)
            time.sleep(5)  # The handler of SIGCHLD raises in here, or before it.
        return step(self, *arguments)

    monkeypatch.setattr(CodecModule, "training_step", kill_then_step)
    options = ["--run=run", "--data.workers=1", "--to_stage=first"]
    assert two_stages(tmp_path, *options) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    line = said.splitlines()[-1]
    host = re.escape(socket.gethostname())
    # Torch listens for the end of its processes in the first fit of a process alone.
    how = "(is killed by signal: Killed|exited unexpectedly), most likely because"
    who = f"error: loader process {killed[0]} of rank 0 on {host}"
    assert re.search(f"{who} {how}", line)
    assert "(--data.workers)" in line and line.endswith(GOES_ON)
    assert two_stages(tmp_path, *options) == 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible",
            "loader process 7 of rank 0 .* because /dev/shm is full: .*--shm-size",
        ),
        (
            "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
            "loader process 7, 8 of rank 0 on .* exited unexpectedly",
        ),
        (
            "[/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:1\nmore",
            r"^another rank is gone: rank 0 on .* \(.*closed by peer \[::1\]:1\);",
        ),
        ("NCCL error: ncclRemoteError: a call failed", "another rank is gone"),
    ],
)
def test_what_torch_and_gloo_notice_is_named(error, message):
    # Also where it is only what led to another error.
    for raised in (RuntimeError(error), RuntimeError("teardown")):
        if "teardown" in str(raised):
            raised.__context__ = RuntimeError(error)
        with pytest.raises(lost.LostProcessError, match=message) as caught:
            with lost.naming_lost(trainer()):
                raise raised
        assert str(caught.value).endswith(GOES_ON) and "\n" not in str(caught.value)


def test_a_bug_keeps_its_error():
    with pytest.raises(RuntimeError, match=r"^gloo: sizes differ$") as caught:
        with lost.naming_lost(trainer()):
            raise RuntimeError("gloo: sizes differ")
    assert not isinstance(caught.value, lost.LostProcessError)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-9, r"rank 2 \(process 8\) on .* was killed, most likely because"),
        (-15, r"rank 2 \(process 8\) on .* was ended by SIGTERM"),
        (2, r"rank 2 \(process 8\) on .* ended with code 2, its own error"),
    ],
)
def test_who_started_the_ranks_knows_which_is_gone(code, message, capsys):
    procs = [
        SimpleNamespace(pid=7, returncode=None, poll=lambda: None),
        SimpleNamespace(pid=8, returncode=code, poll=lambda: code),
    ]
    with pytest.raises(lost.LostProcessError, match=message):
        with lost.naming_lost(trainer(procs=procs)):
            raise RuntimeError("Connection reset by peer")
    # Lightning's own observer may come first.
    from lightning.fabric.strategies.launchers import subprocess_script
    from lightning.fabric.utilities.rank_zero import rank_prefixed_message

    lost.tell_of_children()
    observer = subprocess_script._ChildProcessObserver(0, procs)
    observer._terminate_all = lambda: None
    observer._run()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^error: {message}", line) and line.endswith(GOES_ON)
    other = logging.LogRecord("x", 20, "", 0, rank_prefixed_message("hi", 1), (), None)
    assert lost._say_instead(other)


def _rank(rank, port, ready):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    with pytest.raises(lost.LostProcessError) as caught:
        with lost.naming_lost(trainer(rank)):
            for _ in range(10**6):
                dist.all_reduce(torch.ones(3))
                ready.set()
    print(caught.value, file=sys.stderr, flush=True)
    os._exit(1)


def test_a_killed_rank_ends_the_others(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ready = multiprocessing.get_context("fork").Event()
    outputs = [tmp_path / f"rank{rank}" for rank in range(2)]
    ranks = [
        start(_rank, output, rank, port, ready) for rank, output in enumerate(outputs)
    ]
    assert ready.wait(60)
    ranks[1].kill()
    ranks[0].join(60)
    assert ranks[0].exitcode == 1
    (line,) = outputs[0].read_text().splitlines()
    assert line.startswith(f"another rank is gone: rank 0 on {socket.gethostname()}")
    assert line.endswith(GOES_ON)


def _rank_zero(output, child):
    lost.tell_of_children()
    os.environ["LOCAL_RANK"] = "1"

    def rank_one():
        with lost.ending_with_rank_zero():
            child.put(os.getpid())
            time.sleep(60)

    start(rank_one, output)
    time.sleep(60)


def test_a_rank_ends_with_the_one_that_started_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lost, "_PERIOD", 0.05)
    child = multiprocessing.get_context("fork").Queue()
    rank_zero = start(_rank_zero, tmp_path / "rank0", tmp_path / "rank1", child)
    pid = child.get(timeout=60)
    rank_zero.kill()
    rank_zero.join()
    deadline = time.monotonic() + 30
    while not (said := (tmp_path / "rank1").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert said.startswith(f"error: rank 0 (process {rank_zero.pid}) on ")
    assert "so rank 1 ends" in said and said.endswith(GOES_ON + "\n")
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
