"""The tests that need a GPU, where the checkout has its tests."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from xml.etree import ElementTree

from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.part import ROOT, environment

MARK = "pytest.mark.gpu"

COUNTED = ("failures", "errors", "skipped")


def measure(settings: Settings) -> Iterator[Figure]:
    """Run ``pytest -m gpu`` and count.

    Raises:
        ValueError: One failed; the message names it.
    """
    tests = ROOT / "tests"
    # By name: to collect all others would take a minute, and packages that they need.
    files = [
        path
        for path in sorted(tests.rglob("test_*.py"))
        if MARK in path.read_text(errors="replace")
    ]
    lacks = "" if find_spec("pytest") else "it needs the package pytest"
    if not files or lacks:
        note = lacks or f"there is no test with {MARK} below {tests}"
        yield Figure("GPU tests", None, "", note=f"left out: {note}")
        return
    report = settings.scratch / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q"]
    command += ["-p", "no:cacheprovider", f"--junit-xml={report}", *map(str, files)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    if not report.exists():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
        raise ValueError(f"pytest did not run: {lines[-1] if lines else 'no message'}")
    suite = next(ElementTree.parse(report).iter("testsuite"))
    number = {name: int(suite.get(name, "0")) for name in ("tests", *COUNTED)}
    passed = number["tests"] - sum(number[name] for name in COUNTED)
    bad = number["failures"] + number["errors"]
    skipped = f"{number['skipped']} skipped" * bool(number["skipped"])
    yield Figure("GPU tests that passed", passed, "tests", note=skipped)
    yield Figure("GPU tests that failed", bad, "tests", "0", error=_first(suite))


def _first(suite: ElementTree.Element) -> str:
    """Return which test failed first, and why; empty if none did."""
    for case in suite.iter("testcase"):
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                why = " ".join(found.get("message", "").split())[:200]
                return f"{case.get('classname')}::{case.get('name')}: {why}"
    return ""
