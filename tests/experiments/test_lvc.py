"""``lvc``: every command by its name, from any folder, whatever lies there."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import experiments
from experiments.cli import neighbours
from experiments.cli.command import called_as
from experiments.cli.lvc import COMMANDS, main

ROOT = Path(experiments.__path__[0]).parent


@pytest.fixture
def lvc(tmp_path):
    """Run the installed command in a folder, as a process."""
    script = tmp_path / "bin" / "lvc"
    script.parent.mkdir()
    script.write_text("from experiments.cli.lvc import main\nraise SystemExit(main())")
    return lambda folder, *arguments: run(folder, script, *arguments)


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_every_command_is_listed_with_its_purpose(capsys):
    folders = {path.parent.name for path in (ROOT / "experiments").rglob("__main__.py")}
    files = {
        path.stem
        for path in (ROOT / "experiments").rglob("*.py")
        if "raise SystemExit(main())" in path.read_text()
    }
    assert folders | files - {"__main__", "lvc"} == COMMANDS.keys()
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        for name, (_, purpose) in COMMANDS.items():
            (line,) = [line for line in lines if line.split()[:1] == [name]]
            assert line.endswith(f"  {purpose}") and len(line) <= 80
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lvc ")


def test_a_list_of_commands_imports_nothing_heavy():
    program = (
        "import sys\nfrom experiments.cli.lvc import main\nmain([])\n"
        "heavy = {'torch', 'lightning', 'numpy', 'yaml', 'jsonargparse'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = run(ROOT, "-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "meant"), [("fti", "fit"), ("compaer", "compare"), ("deocde", "decode")]
)
def test_a_misspelt_command_is_one_line_with_the_nearest(given, meant, only_error):
    assert main([given, "--help"]) == 2
    line = only_error()
    assert line.startswith(
        f"error: there is no command {given!r} (did you mean {meant}"
    )
    assert "; choose from fit, encode, decode" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_way_it_was_called(command, monkeypatch, capsys):
    module = COMMANDS[command][0].removesuffix(".command")
    assert find_spec(module)
    for first, shown in (
        ("/some/venv/bin/lvc", f"lvc {command}"),
        ("/x/experiments/fit/__main__.py", f"python -m {module}"),
    ):
        monkeypatch.setattr(sys, "argv", [first])
        assert called_as(module.removeprefix("experiments.")) == shown
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: {shown} [")


@pytest.mark.parametrize("name", neighbours.NEIGHBOURS)
def test_a_folder_that_hides_a_package_is_one_line(lvc, tmp_path, name):
    folder = tmp_path / "mine"
    (folder / name).mkdir(parents=True)
    # Without it, Python prefers the suite's.
    assert run(folder, "-m", "experiments.compare", "--help").returncode == 0
    (folder / name / "__init__.py").touch()
    for command in ("fit", "encode"):
        done = run(folder, "-m", f"experiments.{command}", "--help")
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {folder / name} hides the suite's ")
        assert "rename it" in line and "lvc" in line
    done = lvc(folder, "compare", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: lvc compare")


def test_a_file_that_hides_a_package_is_an_import_error_in_python(tmp_path):
    (tmp_path / "callbacks.py").touch()
    done = run(tmp_path, "-c", "import experiments.evaluate")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / 'callbacks.py'} hides")
