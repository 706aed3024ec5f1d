"""A SLURM of small scripts: it takes what is submitted, and runs it when told to."""

import os
import re
import signal
import subprocess
import time

import pytest

SCRIPTS = {
    "sbatch": """
        [ -e $SPOOL/refuses ] && { echo "invalid partition" >&2; exit 1; }
        id=$((101 + $(ls $SPOOL/*.sh 2>/dev/null | wc -l)))
        cp "$1" $SPOOL/$id.sh
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
        for n in $([ -z "$last" ] && echo $id || seq -f ${id}_%g 0 $last); do
            echo $n >> $SPOOL/queue
        done
        echo "Submitted batch job $id"
    """,
    "squeue": "cat $SPOOL/queue 2>/dev/null; true",
    "scontrol": "echo $@ >> $SPOOL/scontrol",
    "srun": """
        while [[ $1 == --* ]]; do
            [[ $1 == --output ]] && { log=$2; shift; }
            shift
        done
        log=${log/\\%A_\\%a/$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID}
        log=${log/\\%j/$SLURM_JOB_ID}
        exec "$@" > ${log/\\%t/0} 2>&1
    """,
}


class FakeSlurm:
    """Programs of SLURM on the path, which keep all in a folder."""

    def __init__(self, folder, monkeypatch):
        self.spool = folder / "spool"
        tools = folder / "bin"
        for each in (self.spool, tools):
            each.mkdir()
        for name, text in SCRIPTS.items():
            (tools / name).write_text(f"#!/bin/bash\nSPOOL={self.spool}\n{text}")
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    @property
    def scripts(self):
        """Options of each script that was submitted, by its id."""
        return {
            path.stem: dict(
                re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", path.read_text(), re.M)
            )
            for path in sorted(self.spool.glob("*.sh"))
        }

    @property
    def queue(self):
        path = self.spool / "queue"
        return path.read_text().split() if path.exists() else []

    @property
    def requeued(self):
        path = self.spool / "scontrol"
        return path.read_text().splitlines() if path.exists() else []

    def refuse(self, refuses=True):
        path = self.spool / "refuses"
        path.touch() if refuses else path.unlink()

    def run(self):
        """Run what is queued as its dependencies say; return exit codes by id."""
        codes = {}
        for number in self.queue:
            condition, *needs = (
                self.scripts[number.partition("_")[0]]
                .get("dependency", "")
                .strip("'")
                .split(":")
            )
            assert all(need in codes for need in needs), "an id that is not queued"
            if condition == "afterok" and any(codes[need] for need in needs):
                # As kill-on-invalid-dep says.
                codes[number] = None
            else:
                codes[number] = self.begin(number).wait()
        (self.spool / "queue").unlink(missing_ok=True)
        return codes

    def begin(self, number):
        script, _, index = number.partition("_")
        array = {"SLURM_ARRAY_JOB_ID": script, "SLURM_ARRAY_TASK_ID": index}
        return subprocess.Popen(
            ["bash", self.spool / f"{script}.sh"],
            env={**os.environ, "SLURM_JOB_ID": script, **(array if index else {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def tell(self, number, begun):
        """Run a job; once a file is there, signal it as SLURM does near the limit."""
        process = self.begin(number)
        while not begun.exists():
            time.sleep(0.02)
        # srun's, not that of the script.
        for pid in _children(process.pid):
            os.kill(pid, signal.SIGUSR1)
        return process.wait()


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        own = [int(child) for child in file.read().split()]
    return own + [each for child in own for each in _children(child)]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path, monkeypatch)
