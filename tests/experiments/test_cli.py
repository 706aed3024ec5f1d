"""A command line from a dataclass: names, kinds, defaults, groups and refusals."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

import experiments
import lightning_modules
from experiments.cli.command import run_command
from experiments.cli.options import option, parse
from experiments.fit.command import main as fit


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Shared by several.

    Attributes:
        threads: Of each process.
    """

    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Options(Shared):
    """Do something, at 100 %.

    Attributes:
        input: Read this.
        rate: Values of the knob.
        target: Or this instead.
        kinds: Which.
        fast: In a hurry.
        size: Of the picture.
        layer: A file, and another one on top of it.
        list: Print all names and end.
    """

    input: Path = option(positional=True)
    rate: tuple[float, ...] = option((), metavar="R", one_of="rate", needed=True)
    target: float | None = option(None, one_of="rate")
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    fast: bool = False
    size: tuple[int, ...] | None = option(
        None, read=lambda text: tuple(map(int, text.split("x"))), nargs="?"
    )
    layer: tuple[str, ...] | None = option(None, repeated=True)
    list: bool = option(False, shows=lambda: "all names")

    def __post_init__(self):
        if self.threads < 1:
            raise ValueError(f"--threads is {self.threads}, it must be at least 1")


def read(*argv):
    return parse(Options, "thing", argv, "the end")


def test_values_have_the_types_of_their_fields():
    options = read("in", "--rate", "1", "2.5", "--kinds", "b", "a", "--size", "3x4")
    assert options == Options(
        input=Path("in"), rate=(1.0, 2.5), kinds=("b", "a"), size=(3, 4)
    )


def test_what_can_be_repeated_takes_one_value_each_time():
    options = read("in", "--target", "1", "--layer", "a", "--layer", "b")
    assert options.layer == ("a", "b")


def test_what_is_not_given_has_its_default():
    options = read("in", "--target", "3", "--fast")
    assert options == Options(input=Path("in"), target=3.0, fast=True)


def test_help_is_in_the_docstrings_of_the_class_and_its_bases(capsys):
    with pytest.raises(SystemExit) as exit:
        read("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert exit.value.code == 0
    assert "python -m experiments.thing [-h] (--rate R [R ...] | --target" in shown
    for text in (
        "Do something, at 100 %.",
        "--threads THREADS Of each process (default: 1).",
        "--kinds {a,b} [{a,b} ...] Which (default: a).",
        "the end",
    ):
        assert text in shown
    assert shown.index("--kinds") < shown.index("--threads")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["in"], "one of the arguments --rate --target is required"),
        (["in", "--rate", "1", "--target", "2"], "not allowed with argument --rate"),
        (["in", "--rate", "one"], "argument --rate: invalid float value: 'one'"),
        (["in", "--rate", "1", "--kinds", "c"], "choice: 'c'; choose from a, b"),
        (["in", "--rate", "1", "--kinds", "A"], "'A' (did you mean a?); choose from"),
        (["--rate", "1"], "the following arguments are required: input"),
        (["in", "--rate=1", "--thread=1", "--targt", "1"], "--targt 1 (did you mean"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(argv, message, only_error):
    with pytest.raises(SystemExit) as exit:
        read(*argv)
    assert exit.value.code == 2
    assert message in only_error()


def test_what_the_dataclass_refuses_is_an_error_of_the_command():
    with pytest.raises(ValueError, match="--threads is 0, it must be at least 1"):
        read("in", "--target", "1", "--threads", "0")


def test_an_option_that_shows_a_text_needs_no_other(capsys):
    with pytest.raises(SystemExit) as exit:
        read("--list")
    assert (exit.value.code, capsys.readouterr().out) == (0, "all names\n")


ROOT = Path(experiments.__path__[0])
COMMANDS = [
    ".".join([*path.parent.relative_to(ROOT).parts, "command"])
    for path in sorted(ROOT.rglob("__main__.py"))
]
COMMANDS += [p.stem for p in sorted(ROOT.glob("*.py")) if "def main(" in p.read_text()]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    program = (
        f"import sys\nfrom experiments.{command} import main\n"
        "try:\n main(['--help'])\nexcept SystemExit as end:\n assert not end.code\n"
        "heavy = {'torch', 'lightning', 'numpy', 'scipy', 'matplotlib', 'av', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m experiments." in done.stdout


def test_help_of_fit_has_every_kind_of_option():
    run = [sys.executable, "-m", "experiments.fit", "--help"]
    shown = subprocess.run(run, cwd=ROOT.parent, capture_output=True, text=True).stdout
    for name in ("run", "data.source", "trainer.devices", "model", "stages", "shrink"):
        assert f"--{name} " in shown
    for name in (*lightning_modules.CODECS, "vimeo90k"):
        assert name in shown
    assert "(type: int, default: 0)" in " ".join(shown.split())
    assert "<function" not in shown


def test_help_of_rows_shows_what_is_taken(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/venv/bin/lvc"])
    with pytest.raises(SystemExit) as end:
        fit(["--stages.help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert "--stages.NAME.lr\n" in shown and "--stages.all.FIELD VALUE" in shown
    assert "--stages.lr" not in shown
    assert "(type: float, default: 0.0001)" in " ".join(shown.split())
    with pytest.raises(SystemExit) as end:
        fit(["--shrink.help"])
    assert capsys.readouterr().out.startswith("usage: lvc fit [--shrink.total_steps")


@dataclass(frozen=True)
class Own:
    """How one of them works.

    Attributes:
        side: Of it (default: as built).
        twice: Whether to do it twice (default: no).
    """

    side: int = 4
    twice: bool = False


@dataclass(frozen=True)
class Other:
    """How another one works.

    Attributes:
        side: Of it.
        way: The way.
    """

    side: int = 5
    way: Literal["up", "down"] = "up"


@dataclass(frozen=True, kw_only=True)
class WithOwn(Shared):
    """Do something with one of several.

    Attributes:
        own: What was given of their own options.
    """

    own: dict = option(also=lambda: [Own, Other])


def test_options_of_other_classes_are_a_dict_of_those_that_were_given(capsys):
    assert parse(WithOwn, "thing", []).own == {}
    given = parse(WithOwn, "thing", ["--side=7", "--way", "down", "--twice", "on"])
    assert given.own == {"side": 7, "way": "down", "twice": True}
    assert parse(WithOwn, "thing", ["--twice=off"]).own == {"twice": False}
    for wrong in ("--twice=yes", "--way=left", "--side=x", "--own=3"):
        with pytest.raises(SystemExit):
            parse(WithOwn, "thing", [wrong])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        parse(WithOwn, "thing", ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Of it (default: as built)." in text and "{up,down}" in text


def test_memory_that_ran_out_is_one_line(capsys):
    assert run_command(lambda: torch.empty(1 << 50) and None) == 2
    (line,) = capsys.readouterr().err.splitlines()
    start = "error: memory ran out (tried to allocate 4503599627370496 bytes): choose"
    assert line.startswith(start)

    def on_a_gpu():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert run_command(on_a_gpu) == 2
    assert "(Tried to allocate 2.00 GiB)" in capsys.readouterr().err


def test_another_error_of_torch_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shape"):
        run_command(lambda: torch.ones(2).reshape(3) and None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file", "/a/b"), "error: /a/b: No such file"),
        (OSError("the reason"), "error: the reason"),
        (ValueError("two\nlines"), "error: two lines"),
    ],
)
def test_an_error_is_one_line_without_a_number(capsys, error, said):
    def fails():
        raise error

    assert run_command(fails) == 2
    assert capsys.readouterr().err == f"{said}\n"
