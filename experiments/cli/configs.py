"""Configuration files: the user's own by their paths, the suite's by their names."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from experiments.cli.command import near_names
from experiments.cli.launcher import is_first_process

CONFIGS = Path(__file__).parents[1] / "configs"

ALWAYS_READ = "base"
"""Not one to choose."""


def shipped_configs() -> dict[str, Path]:
    """Return the suite's own files by name, as ``ablations/CODEC/CLAIM``."""
    # Those of codecs, of their ablations, of models that ship; others are none.
    paths = sorted(CONFIGS.glob("*.yaml"))
    for folder in ("ablations", "shipped"):
        paths += sorted((CONFIGS / folder).rglob("*.yaml"))
    return {p.relative_to(CONFIGS).with_suffix("").as_posix(): p for p in paths}


def find_config(text: str) -> str:
    """Return the file that ``--config`` means.

    Args:
        text: A path, or the name of one of the suite's own, with or without
            ``experiments/configs/`` and ``.yaml``. Where both are there, the user's
            file counts, and a note says so. Text that is YAML is given back.

    Raises:
        ValueError: There is no such file; it names those with a similar name.
    """
    if any(mark in text for mark in "{\n") and not os.path.exists(text):
        return text
    shipped = shipped_configs()
    name = text.removeprefix("experiments/configs/").removesuffix(".yaml")
    own = next((p for p in (text, f"{text}.yaml") if Path(p).is_file()), None)
    if own is None:
        if name in shipped:
            return str(shipped[name])
        raise ValueError(_missing(text, shipped))
    if name in shipped and not shipped[name].samefile(own) and is_first_process():
        print(
            f"note: --config {text} is the file {Path(own).absolute()}; the suite's "
            f"own of that name is {shipped[name]}",
            file=sys.stderr,
        )
    return own


def describe_configs() -> str:
    """Return the names of the suite's own files, each with how its comment begins."""
    lines = ["--config takes these by name, from any folder, and paths of one's own:"]
    for name, path in shipped_configs().items():
        if name != ALWAYS_READ:
            comment = path.read_text().split("\n\n")[0].partition("\nmodel:")[0]
            words = " ".join(comment.replace("#", "").split())
            lines += [f"  {name}", f"      {shorten(words, 80, placeholder=' ...')}"]
    return "\n".join(lines)


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; where both hold a mapping, merged likewise, else the latter's."""
    both = dict(base)
    for key, value in own.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if nested else value
    return both


def _missing(text: str, shipped: dict[str, Path]) -> str:
    if Path(text).is_dir():
        return f"--config {text}: that is a folder; name a file in it"
    stem = Path(text).stem
    stems = {name.rpartition("/")[2]: name for name in shipped if name != ALWAYS_READ}
    near = [stems[each] for each in near_names(stem, stems, 3)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return (
        f"--config {text}: there is neither such a file nor a configuration of the "
        f"suite of that name{hint}; --list_configs shows those there are"
    )
