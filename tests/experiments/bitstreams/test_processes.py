"""Another process that works only when it is asked to."""

import os
import subprocess
import sys

import pytest

from experiments.bitstreams.processes import WorkerProcess, prepare_process
from experiments.evaluate.learned import decode_stream


@pytest.fixture(scope="module")
def process():
    with WorkerProcess(prepare_process, 1, 0, daemon=True) as process:
        yield process


def test_a_call_returns_and_raises_what_the_function_does(process):
    assert process.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError) as caught:
        process.call(divmod, 7, 0)
    assert "_serve" in "".join(caught.value.__notes__)
    assert process.alive


def test_a_generator_works_only_while_it_is_asked(process, tmp_path):
    (tmp_path / "a").mkdir()
    folders = process.generate(os.walk, str(tmp_path))
    assert next(folders) == (str(tmp_path), ["a"], [])
    (tmp_path / "a" / "late").touch()
    assert next(folders) == (str(tmp_path / "a"), [], ["late"])
    with pytest.raises(StopIteration):
        next(folders)


def test_a_generator_that_is_left_does_not_disturb_the_next(process, tmp_path):
    (tmp_path / "a").mkdir()
    next(process.generate(os.walk, tmp_path))
    assert process.call(len, "abc") == 3
    folders = process.generate(os.walk, str(tmp_path / "a"))
    assert list(folders) == [(str(tmp_path / "a"), [], [])]


def test_what_a_generator_raises_is_raised_here(process, tmp_path):
    nothing = tmp_path / "nothing.lvc"
    arguments = (nothing, tmp_path / "c.ckpt", "cpu", "rgb", None, {})
    with pytest.raises(FileNotFoundError, match=r"nothing\.lvc"):
        next(process.generate(decode_stream, *arguments))


def test_a_process_that_has_ended_is_an_error():
    with WorkerProcess(prepare_process, 1, 0, daemon=True) as process:
        with pytest.raises(OSError, match="ended with exit code 3"):
            process.call(os._exit, 3)


def test_a_worker_may_end_with_its_parent_amid_a_call():
    # It has the parent's output, which is at its end when both are.
    parent = subprocess.Popen(
        [sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "begun\n"
    parent.kill()
    assert parent.communicate(timeout=60) == ("", None)


SLEEP = """
import os
import time
from experiments.bitstreams.processes import WorkerProcess, end_with_parent
worker = WorkerProcess(end_with_parent, daemon=True)
worker.call(os.write, 1, b"begun\\n")
worker.call(time.sleep, 90)
"""
