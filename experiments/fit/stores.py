"""What prepared stores hold, among the options that define a run."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from datamodules.options import DataOptions
from datamodules.paths import expand_root
from datamodules.prepared.store import StoreError, read_fingerprint
from lightning_modules.stages import Stage


def with_fingerprints(
    options: dict[str, Any], data: DataOptions, stages: Sequence[Stage]
) -> dict[str, Any]:
    """Return a run's options with the fingerprint of each prepared store.

    Args:
        options: Of the run, as plain values.
        data: Of the whole run.
        stages: The rows that are run; each may read another store.

    Returns:
        A copy. A store that is not there has none: of a finished row it may have gone,
        and who opens that of another row says so.
    """
    filled = {**options, "data": _filled(options["data"], data)}
    changes = {stage.name: stage.data for stage in stages if stage.data}
    filled["stages"] = [
        {**row, "data": _filled(row["data"], data.changed(changes[row["name"]]))}
        if {"source", "root"} & (changes.get(row["name"]) or {}).keys()
        else row
        for row in options["stages"]
    ]
    return filled


def _filled(plain: dict[str, Any], data: DataOptions) -> dict[str, Any]:
    if data.source != "prepared" or data.root is None:
        return plain
    with suppress(StoreError):
        fingerprint = read_fingerprint(Path(expand_root(data.root)))
        return {**plain, "fingerprint": fingerprint}
    return plain
