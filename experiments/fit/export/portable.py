"""What a run was trained with, without what is only of the machine that it ran on."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml

from experiments.fit.run_folder import read_config

OF_A_MACHINE = (
    "run",
    "runs_dir",
    "init_from",
    "from_stage",
    "to_stage",
    "logger",
    "tracking",
    "data.fingerprint",
    "data.list_file",
    "data.root",
    "data.val_list_file",
    "data.val_root",
    "data.workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.threads",
)
"""Options that change no weight, or name paths and runs."""


def portable_config(checkpoint: Path, data: str, licence: str) -> str:
    """Return the configuration of the run that a checkpoint lies in, as a file's text.

    Args:
        checkpoint: Of a stage, ``runs/NAME/STAGE/last.ckpt``; of anything else there
            is no configuration, and the text is empty.
        data: What it was trained on, for the comment that the text begins with.
        licence: Of that data.

    Raises:
        ValueError: The run's configuration is damaged.
    """
    path = checkpoint.absolute().parent.parent / "config.yaml"
    if checkpoint.suffix != ".ckpt" or not path.is_file():
        return ""
    elsewhere = "or export a copy of the checkpoint that lies elsewhere"
    config = read_config(path, "what was trained", elsewhere)
    stage = checkpoint.absolute().parent.name
    told = [
        f"Trained on: {data or 'not said'}.",
        f"Licence of that data: {licence or 'not said'}.",
        f"These are the weights of stage {stage}, {checkpoint.stem}.",
    ]
    lines = [f"# {line}" for text in told for line in wrap(text, 86)]
    body = yaml.safe_dump(_portable(config), sort_keys=False)
    return "\n".join(lines) + f"\n\n{body}"


def _portable(value: Any, key: str = "") -> Any:
    """Return a value without entries that name paths, runs or devices."""
    if isinstance(value, Mapping):
        named = {name: f"{key}.{name}" if key else str(name) for name in value}
        return {
            name: _portable(entry, named[name])
            for name, entry in value.items()
            if named[name].removeprefix("stages.") not in OF_A_MACHINE
            if not (isinstance(entry, str) and entry.startswith(("/", "~")))
        }
    if isinstance(value, list):
        return [_portable(entry, key) for entry in value]
    return value
