"""House rules on imports and files, read from the syntax trees."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lightning_modules", "datamodules", "callbacks", "experiments")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MAY_IMPORT_LIGHTNING = ("callbacks/", "experiments/")
LIGHTNING_FILES = ("lightning_modules/base.py", "datamodules/video.py")


def imported(source):
    """Return every module that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(name, source):
    modules = imported(source)
    found = []
    lightning = {
        m for m in modules if m.split(".")[0] in ("lightning", "pytorch_lightning")
    }
    allowed = (
        name.startswith(MAY_IMPORT_LIGHTNING)
        or name in LIGHTNING_FILES
        or (name.startswith("lightning_modules/") and name.endswith("/module.py"))
    )
    if lightning and not allowed:
        found.append(f"{name} imports {sorted(lightning)}")
    if not name.startswith("experiments/"):
        found += [f"{name} imports {m}" for m in modules if m.startswith("experiments")]
    if name.startswith("datamodules/"):
        found += [
            f"{name} imports {m}" for m in modules if m.startswith("lightning_mod")
        ]
    parts = name.split("/")
    if parts[0] == "lightning_modules" and len(parts) == 3:
        codecs = {p.parent.name for p in (ROOT / parts[0]).glob("*/codec.py")}
        codecs -= {parts[1]}
        found += [
            f"{name} imports {m}"
            for m in modules
            if m.startswith("lightning_modules.") and m.split(".")[1] in codecs
        ]
    if name == "lightning_modules/bitstream.py":
        found += [f"{name} imports {m}" for m in modules if m.startswith("torch")]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_the_right_way(path):
    name = path.relative_to(ROOT).as_posix()
    assert violations(name, path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("lightning_modules/ui2c/network.py", "from lightning.pytorch import Trainer"),
        ("lightning_modules/entropy/priors.py", "import lightning_modules.ui2c.codec"),
        ("callbacks/quality_metrics.py", "import experiments.fit"),
        ("datamodules/sources/folder.py", "from lightning_modules import codec"),
        ("lightning_modules/bitstream.py", "def f():\n    import torch"),
    ],
)
def test_a_wrong_import_is_seen(name, source):
    assert violations(name, source) != []


def test_no_file_is_longer_than_500_lines():
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    lengths = {p.relative_to(ROOT): p.read_text().count("\n") for p in files}
    assert {p: n for p, n in lengths.items() if n > 500} == {}
