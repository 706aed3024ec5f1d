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
    options: dict[str, Any],
    data: DataOptions,
    stages: Sequence[Stage],
    begun: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a run's options with the fingerprint of each prepared store.

    Args:
        options: Of the run, as plain values.
        data: Of the whole run.
        stages: The rows that are run; each may read another store.
        begun: The options that the run was begun with, if it was.

    Returns:
        A copy. A store that is not there, and one of a row that is not run, has the
        fingerprint that it had: of a finished row it may have gone, and who opens that
        of another row says so.
    """
    before = begun or {}
    filled = {
        **options,
        "data": _kept(_filled(options["data"], data), before.get("data")),
    }
    changes = {stage.name: stage.data for stage in stages if stage.data}
    former = {row.get("name"): row.get("data") for row in before.get("stages") or []}
    filled["stages"] = []
    for row in options["stages"]:
        own = row["data"]
        if {"source", "root"} & (changes.get(row["name"]) or {}).keys():
            own = _filled(own, data.changed(changes[row["name"]]))
        own = _kept(own, former.get(row["name"]))
        filled["stages"].append({**row, "data": own})
    return filled


def _filled(plain: dict[str, Any], data: DataOptions) -> dict[str, Any]:
    if data.source != "prepared" or data.root is None:
        return plain
    with suppress(StoreError):
        fingerprint = read_fingerprint(Path(expand_root(data.root)))
        return {**plain, "fingerprint": fingerprint}
    return plain


def _kept(plain: Any, before: dict[str, Any] | None) -> Any:
    """Return options of data with the fingerprint that they had, if they have none."""
    fingerprint = (before or {}).get("fingerprint")
    if not fingerprint or not plain or plain.get("fingerprint"):
        return plain
    return {**plain, "fingerprint": fingerprint}
