"""``--help`` of every command answers before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent.name for path in ROOT.glob("experiments/*/__main__.py"))
COMMANDS = [
    *(f"{name}.command" for name in FOLDERS),
    *("encode", "decode", "exchange"),
]


@pytest.mark.parametrize("module", COMMANDS)
def test_help_imports_nothing_heavy(module):
    program = (
        f"import sys\nfrom experiments.{module} import main\n"
        "try:\n main(['--help'])\nexcept SystemExit as end:\n assert not end.code\n"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib', 'scipy', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    end = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert end.returncode == 0, end.stderr
    assert "usage: " in end.stdout
    assert "--" in end.stdout


def test_help_of_fit_has_every_option_of_the_data():
    end = subprocess.run(
        [sys.executable, "-m", "experiments.fit", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for option in (
        "data.source",
        "data.val_crop",
        "trainer.devices",
        "model",
        "stages",
    ):
        assert f"--{option} " in end.stdout
    for name in ("DHVC", "UI2C", "DualDomain", "VideoVAE", "vimeo90k"):
        assert name in end.stdout
