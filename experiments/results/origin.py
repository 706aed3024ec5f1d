"""Which code and which codec made a figure."""

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_modules import decoding_options
from lightning_modules.execution import Execution

if TYPE_CHECKING:
    from lightning_modules.codec import VideoCodec

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


def free_options() -> set[str]:
    """Return the names of coding options that change no bit, of all codecs."""
    free = (*decoding_options(), Execution)
    return {each.name for options in free for each in fields(options)}


def describe(
    codec: "VideoCodec", coding: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what defines a codec, as every file of figures says it.

    Args:
        codec: Any.
        coding: What it was told on the command line. What changes bits becomes
            ``options``; what decoders may be told too, such as how many frames to work
            on at once, changes none.
    """
    description = {
        "name": codec.shown_name,
        "fingerprint": codec.fingerprint().hex(),
        "architecture": codec.architecture,
        "rate_unit": codec.rate_knob.name,
        "frames_per_unit": codec.frames_per_unit,
    }
    # Checkpoints that were written before say nothing about their training.
    if codec.trained_with:
        description["training"] = codec.trained_with
    free = free_options()
    if options := {k: v for k, v in (coding or {}).items() if k not in free}:
        description["options"] = options
    # As a file gives it back: tuples are lists.
    return dict(json.loads(json.dumps(description)))
