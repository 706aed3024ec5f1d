"""House rules on imports, files and names, read from the syntax trees.

A rule is a function from sources, by path, to a list of what breaks it. Each is asked
about the product, and then about a few lines that break it.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lightning_modules

ROOT = Path(__file__).parents[1]
PACKAGES = ("lightning_modules", "datamodules", "callbacks", "experiments")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}

MAY_IMPORT_LIGHTNING = ("callbacks/", "experiments/")
LIGHTNING_FILES = (
    "lightning_modules/base.py",
    "lightning_modules/saved_module.py",
    "datamodules/video.py",
)

CODEC_FOLDERS = {
    path.parent.name for path in (ROOT / "lightning_modules").glob("*/module.py")
}
CODEC_NAME = re.compile(
    "|".join([*CODEC_FOLDERS, *lightning_modules.CODECS]), re.IGNORECASE
)

HELP_ARGUMENTS = {"help", "description", "epilog", "usage"}
"""Of argument parsers: text for readers, whose examples may name a codec."""
HELP_CONSTANTS = {"DESCRIPTION", "EPILOG"}
WITHOUT_ARGUMENTS = ("experiments/fit/command.py", "ui2c.yaml")
"""What ``fit`` rehearses if it is told nothing: it has to be some codec."""


def module_of(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path, source):
    """Return every dotted name that a file imports, anywhere in it."""
    parts = module_of(path).split(".")
    if not path.endswith("/__init__.py"):
        parts.pop()
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = parts[: len(parts) + 1 - node.level] + base
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def circles(sources):
    """Find modules that import each other, in a function or for types only, too.

    A package's ``__init__`` is a module like others: who imports a submodule does not
    import it.
    """
    modules = {module_of(path) for path in sources}
    graph = {
        module_of(path): {
            name if name in modules else name.rpartition(".")[0]
            for name in imported(path, source)
        }
        & modules
        for path, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def wrong_imports(sources):
    """Find imports that lead from one room to another that it should not know."""
    return [
        f"{path} imports {module}"
        for path, source in sources.items()
        for module in sorted(imported(path, source))
        if not may_import(path, module)
    ]


def may_import(path, module):
    first, _, rest = module.partition(".")
    room, _, inner = path.partition("/")
    folder = inner.partition("/")[0]
    if first in ("lightning", "pytorch_lightning"):
        return (
            path.startswith(MAY_IMPORT_LIGHTNING)
            or path in LIGHTNING_FILES
            or (room == "lightning_modules" and path.endswith("/module.py"))
        )
    if first == "experiments":
        return room == "experiments"
    if first == "lightning_modules":
        other = rest.partition(".")[0] in CODEC_FOLDERS - {folder}
        return room != "datamodules" and not (folder in CODEC_FOLDERS and other)
    if first == "av":
        # Machines that only train or benchmark may lack it.
        return path == "datamodules/pyav.py" or folder == "anchor"
    return not (first == "torch" and path == "lightning_modules/bitstream.py")


def codecs_named(sources):
    """Find identifiers and texts of ``experiments`` that are about one codec.

    Docstrings and the help of options are for readers and may have examples.
    """
    found = []
    for path, source in sources.items():
        if path.startswith("experiments/"):
            tree = ast.parse(source)
            for_readers = set(help_texts(tree))
            found += [
                f"{path}:{node.lineno} names {text!r}"
                for node in ast.walk(tree)
                if node not in for_readers
                for text in texts_of(node)
                if CODEC_NAME.search(text)
                if (path, text) != WITHOUT_ARGUMENTS
            ]
    return found


def texts_of(node):
    """Return a node's own identifiers and text."""
    values = [value for _, value in ast.iter_fields(node)]
    values += [each for value in values if isinstance(value, list) for each in value]
    return [value for value in values if isinstance(value, str)]


def help_texts(tree):
    """Give the nodes of docstrings and of what a parser prints."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value
        elif isinstance(node, ast.keyword) and node.arg in HELP_ARGUMENTS:
            yield from ast.walk(node.value)
        elif isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id in HELP_CONSTANTS
            for target in node.targets
        ):
            yield from ast.walk(node.value)


def test_no_modules_import_each_other():
    assert circles(SOURCES) == []


@pytest.mark.parametrize(
    "changed",
    [
        {
            "callbacks/a.py": "import callbacks.b",
            "callbacks/b.py": "import callbacks.a",
        },
        {
            "callbacks/a.py": "from callbacks import b",
            "callbacks/b.py": "def f():\n    from callbacks.a import x",
        },
        {
            "callbacks/a.py": "from callbacks.b import x",
            "callbacks/b.py": "if TYPE_CHECKING:\n    from callbacks.c.d import X",
            "callbacks/c/d.py": "from ..a import y",
        },
        {
            "callbacks/c/__init__.py": "from callbacks.c.d import x",
            "callbacks/c/d.py": "from callbacks.c import y",
        },
    ],
    ids=["plainly", "in a function", "for types, over three files", "of a package"],
)
def test_a_circle_is_seen(changed):
    (circle,) = circles(changed)
    assert circle.count(" imports ") == len(changed)
    # Without its last file there is none.
    assert circles(dict([*changed.items()][:-1])) == []


def test_a_submodule_may_import_its_neighbour_that_the_package_imports():
    package = {
        "callbacks/c/__init__.py": "from callbacks.c import d",
        "callbacks/c/d.py": "from callbacks.c import e",
        "callbacks/c/e.py": "import torch",
    }
    assert circles(package) == []


def test_imports_go_the_right_way():
    assert wrong_imports(SOURCES) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lightning_modules/ui2c/network.py", "from lightning.pytorch import Trainer"),
        ("lightning_modules/ui2c/network.py", "from lightning_modules import dhvc"),
        ("lightning_modules/ui2c/codec.py", "import lightning_modules.dhvc.codec"),
        ("lightning_modules/layers.py", "from experiments import fit"),
        ("callbacks/metrics.py", "import experiments.fit"),
        ("datamodules/folder.py", "from lightning_modules import codec"),
        ("datamodules/prepared/frames.py", "import av"),
        ("lightning_modules/bitstream.py", "def f():\n    import torch"),
    ],
)
def test_a_wrong_import_is_seen(path, source):
    assert len(wrong_imports({path: source})) == 1


def test_experiments_name_no_codec():
    assert codecs_named(SOURCES) == []


@pytest.mark.parametrize(
    "source",
    [
        "from lightning_modules.dhvc.codec import schedule",
        "from lightning_modules import UI2C",
        "if name == 'DHVC': pass",
        "table = {'VideoVAE': 1}",
        "def f(dhvc): pass",
        "codec.ui2c_refresh = 1",
        "def f() -> 'DualDomainCodec': pass",
        "raise ValueError(f'{name}: only DHVC has one')",
        "path = 'experiments/configs/ui2c.yaml'",
        "add('--scales', choices=['dhvc'], help='of DHVC')",
    ],
)
def test_a_codec_that_is_named_is_seen(source):
    assert len(codecs_named({"experiments/encode.py": source})) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Encode, with UI2C for example."""',
        "add('--rate', help='in its own unit (' + 'DHVC: lambda)')",
        "EPILOG = 'example: --checkpoint ui2c.ckpt'",
    ],
)
def test_help_may_have_examples(source):
    assert codecs_named({"experiments/encode.py": source}) == []


def test_the_commands_can_be_read_at_a_glance():
    names = {path.split("/")[1] for path in SOURCES if path.startswith("experiments/")}
    names |= {path.name for path in (ROOT / "experiments").iterdir()} - {"__pycache__"}
    assert len(names) <= 16, sorted(names)


def test_no_file_is_longer_than_500_lines():
    tests = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in (ROOT / "tests").rglob("*.py")
    }
    lengths = {path: text.count("\n") for path, text in {**SOURCES, **tests}.items()}
    assert {path: n for path, n in lengths.items() if n > 500} == {}
