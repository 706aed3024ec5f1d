"""Processes of a run that are gone, as those that a system out of memory kills.

Each process that notices ends with one line, which names what is gone as far as it
knows, and says that the same command goes on.
"""

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer

GOES_ON = "the same command goes on where the run saved"
MEMORY = (
    "most likely because the machine's memory ran out: give the job more, or choose "
    "fewer loader processes (--data.workers) or a smaller batch_size"
)
SHARED = (
    "because /dev/shm is full: make it larger (docker run --shm-size), or choose "
    "fewer loader processes (--data.workers)"
)
PARENT = "FIT_RANK_ZERO_PID"
"""Environment variable that says who started the other ranks of a machine."""

_LOADER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]*)")
# What gloo and NCCL say when a peer is gone; any other error of theirs is a bug.
_GONE = re.compile(
    r"Connection (?:closed|reset|refused)|Broken pipe|ncclRemoteError|remote process"
)
_CHILD = re.compile(r"rank: (\d+)\] Child process with PID (\d+) .* code (-?\d+)")
_PERIOD = 1.0  # Seconds.


class LostProcessError(RuntimeError):
    """A loader process or another rank is gone; the text is for the user."""


@contextmanager
def naming_lost(trainer: Trainer) -> Iterator[None]:
    """Say which process is gone where Lightning, torch or gloo only notice that one is.

    Raises:
        LostProcessError: The block raised an error of such a kind.
    """
    try:
        yield
    except RuntimeError as error:
        if lost := _lost(trainer, error):
            raise LostProcessError(lost) from error
        raise


def _lost(trainer: Trainer, error: RuntimeError) -> str:
    """Return what is gone, by an error and what led to it; nothing if nothing is."""
    here = f"of rank {trainer.global_rank} on {socket.gethostname()}"
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if found := _LOADER.search(text):
            pids, how = found.groups()
            why = SHARED if "Bus error" in how else MEMORY
            return f"loader process {pids} {here} {how}, {why}; {GOES_ON}"
        if isinstance(cause, dist.DistNetworkError) or _GONE.search(text):
            launcher: Any = trainer.strategy.launcher
            for rank, process in enumerate(getattr(launcher, "procs", []), start=1):
                if process.poll():
                    return _ended(rank, process.pid, process.returncode)
            return (
                f"another rank is gone: rank {trainer.global_rank} on "
                f"{socket.gethostname()} has lost its connection to it ("
                f"{text.strip().splitlines()[0][:200]}); {GOES_ON}"
            )
        cause = cause.__cause__ or cause.__context__
    return ""


def _ended(rank: int, pid: int, code: int) -> str:
    """Say how a rank that this process has started ended."""
    who = f"rank {rank} (process {pid}) on {socket.gethostname()}"
    if code == -signal.SIGKILL:
        return f"{who} was killed, {MEMORY}; {GOES_ON}"
    if code < 0:
        return f"{who} was ended by {signal.Signals(-code).name}; {GOES_ON}"
    return f"{who} ended with code {code}, its own error says why; {GOES_ON}"


def tell_of_children() -> None:
    """Say in the suite's words why Lightning kills all ranks when one has ended.

    It asks after the others every few seconds; often an error comes first.
    """
    os.environ[PARENT] = str(os.getpid())
    launcher = "lightning.fabric.strategies.launchers.subprocess_script"
    logging.getLogger(launcher).addFilter(_say_instead)


def _say_instead(record: logging.LogRecord) -> bool:
    found = _CHILD.search(record.getMessage())
    if found is None:
        return True
    # In one write: this process is killed right after it.
    sys.stderr.write(f"error: {_ended(*map(int, found.groups()))}\n")
    sys.stderr.flush()
    return False


@contextmanager
def ending_with_rank_zero() -> Iterator[None]:
    """End this process when the one that started it is gone, in a rank of Lightning's.

    Nothing else would end it: a killed process takes none with it, and one that waits
    for a rank 0 that never answers does so for half an hour.
    """
    parent = os.getppid()
    if "LOCAL_RANK" not in os.environ or os.environ.get(PARENT) != str(parent):
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_PERIOD):
            if os.getppid() != parent:
                rank = os.environ["LOCAL_RANK"]
                sys.stderr.write(
                    f"error: rank 0 (process {parent}) on {socket.gethostname()} is "
                    f"gone, so rank {rank} ends: it was killed, or its own error says "
                    f"why; {GOES_ON}\n"
                )
                sys.stderr.flush()
                os._exit(1)

    threading.Thread(target=watch, name="rank 0 observer", daemon=True).start()
    try:
        yield
    finally:
        done.set()
