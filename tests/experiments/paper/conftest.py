"""What tests of tables share: recipes, and jobs that are small scripts."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.paper.job import Job, Records
from experiments.paper.recipe import read_recipe


@pytest.fixture
def recipe(tmp_path):
    """Return a recipe from its text."""

    def of(text, name="own"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return read_recipe(path)

    return of


class Script:
    """A job that appends its arguments to a file, or fails."""

    def __init__(self, job, log):
        program = (
            "import sys, time\n"
            "*words, out = sys.argv[1:]\n"
            "open(out + '.begun', 'a').write('x')\n"
            "time.sleep(float(words[0]))\n"
            "if 'fail' in words: sys.exit('it fails, as it is told')\n"
            "open(out, 'w').write(' '.join(words))\n"
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-c", program, *job.arguments]
        with log.open("a") as file:
            self.process = subprocess.Popen(words, stdout=file, stderr=file)

    def code(self):
        return self.process.poll()

    def stop(self, *, by_force):
        self.process.terminate()


@pytest.fixture
def start():
    return lambda job, log, place, places: Script(job, log)


@pytest.fixture
def job(tmp_path):
    """Return a job that writes a file of its name."""

    def of(name, *words, needs=(), seconds=0, command="fit", **more):
        out = tmp_path / name
        arguments = (str(seconds), *words, str(out))
        return Job(name, command, arguments, (out,), tuple(needs), **more)

    return of


@pytest.fixture
def records(tmp_path):
    return lambda jobs: Records(Path(tmp_path) / "jobs", jobs)
