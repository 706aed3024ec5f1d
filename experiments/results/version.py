"""Which code made a figure."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def versions() -> dict[str, str]:
    """Return versions of the suite, of Python and of torch.

    The suite's has its commit if it runs from a checkout, and ``-dirty`` if that has
    changes.
    """
    found = {"python": platform.python_version()}
    for name, package in (("suite", "learned-video-codecs"), ("torch", "torch")):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    if (ROOT / ".git").exists():
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return {**found, "suite": f"{found['suite']}, commit unknown"}
        found["suite"] += f", commit {done.stdout.strip()}"
    return found
