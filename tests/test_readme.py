"""What README says is what the project does."""

import re
import shlex
from pathlib import Path

import pytest

from experiments.cli.options import make_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    path.read_text()
    for folder in ("lightning_modules", "experiments")
    for path in ROOT.glob(f"{folder}/**/README.md")
]


def blocks_of(page):
    return re.findall(r"```bash\n(.*?)```", page, re.DOTALL)


BLOCKS = blocks_of(README)
COMMANDS = [
    line.strip()
    for block in [*BLOCKS, *(block for page in PAGES for block in blocks_of(page))]
    for line in block.replace("\\\n", " ").split("\n")
    if line.startswith("python -m experiments.")
]


def test_ci_runs_the_readmes_test_command():
    command = next(block.strip() for block in BLOCKS if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_first_command_stands_before_line_30():
    lines = README.splitlines()
    first = next(i for i, line in enumerate(lines) if "experiments.fit" in line)
    assert first < 30
    assert len(lines) < 250


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command, monkeypatch):
    monkeypatch.setenv("VIMEO90K", "/nowhere")
    monkeypatch.setenv("LONG_CLIPS", "/nowhere")
    monkeypatch.chdir(ROOT)
    _, _, module, *arguments = shlex.split(command)
    if module == "experiments.fit":
        from experiments.fit.options import build_parser

        build_parser().parse_args(arguments)
        return
    from importlib import import_module

    if (ROOT / module.replace(".", "/")).is_dir():
        module = f"{module}.command"
    command = import_module(module)
    name = module.removesuffix(".command").rpartition(".")[2]
    options = getattr(command, f"{name.capitalize()}Options")
    make_parser(options, name).parse_args(arguments)


def test_every_file_that_is_named_exists():
    for name in re.findall(
        r"experiments/configs/[\w/.]+\.yaml", README + "".join(PAGES)
    ):
        assert (ROOT / name).is_file(), name
