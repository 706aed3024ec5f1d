"""Commands whose output nobody reads any more, with real pipes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = "for n in range(20000): print('line', n)"
KEPT = "open('kept', 'w').close()"


def run(folder, body, read=b"line 0\n", *, closed="stdout", more=""):
    """Run a command whose reader goes after its first line; return its end."""
    script = (
        "from experiments.cli.command import run_command\nimport sys\n"
        f"def command():\n    {body}\n"
        f"raise SystemExit(run_command(command{more}))"
    )
    process = start(folder, script, closed)
    assert getattr(process, closed).read(len(read)) == read
    getattr(process, closed).close()
    other = {"stdout": process.stderr, "stderr": process.stdout}[closed]
    rest = other.read()
    return process.wait(timeout=60), rest


def start(folder, script, closed):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_command_ends_without_a_word_when_nobody_reads_it(tmp_path):
    assert run(tmp_path, f"{LINES}\n    {KEPT}") == (141, b"")
    assert not (tmp_path / "kept").exists()


def test_a_table_ends_as_other_output_does(tmp_path):
    body = (
        "from experiments.results.drawing.tables import Table, print_table, words\n"
        "    print('line 0', flush=True)\n"
        "    table = Table('', words('a'), [['b']] * 2000)\n"
        "    while True: print_table(table)"
    )
    assert run(tmp_path, body) == (141, b"")


def test_what_a_buffer_still_holds_is_not_complained_of(tmp_path):
    body = "print('line 0', flush=True); sys.stdin.read(); print('more')"
    script = (
        "from experiments.cli.command import run_command\nimport sys\n"
        f"def command():\n    {body}\nraise SystemExit(run_command(command))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    process.stdin.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)


def test_progress_that_nobody_reads_ends_no_work(tmp_path):
    body = f"{LINES[:-1]}, file=sys.stderr)\n    {KEPT}; print('result')"
    assert run(tmp_path, body, closed="stderr") == (0, b"result\n")
    assert (tmp_path / "kept").exists()


def test_a_pipe_to_another_program_that_breaks_is_an_error(tmp_path):
    body = "print('line 0', flush=True); raise BrokenPipeError(32, 'to ffmpeg')"
    script = (
        "from experiments.cli.command import run_command\n"
        f"def command():\n    {body}\nraise SystemExit(run_command(command))"
    )
    process = start(tmp_path, script, "stdout")
    _, error = process.communicate(timeout=60)
    assert (process.returncode, b"error: to ffmpeg" in error) == (2, True)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_training_goes_on_when_nobody_reads_its_log(tmp_path, closed):
    stream = f"sys.{closed}"
    script = (
        "import sys\nfrom experiments.fit import command\n"
        "def fit(arguments):\n"
        f"    {LINES[:-1]}, file={stream}, flush=True)\n    {KEPT}\n    return 0\n"
        "command.fit = fit\nraise SystemExit(command.main([]))"
    )
    process = start(tmp_path, script, closed)
    assert getattr(process, closed).readline() == b"line 0\n"
    getattr(process, closed).close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "kept").exists()
