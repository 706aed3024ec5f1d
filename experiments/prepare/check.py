"""All frames of a store against their checksums."""

from pathlib import Path

from datamodules.prepared.store import Store
from experiments.cli.progress import track


def check_store(folder: Path) -> int:
    """Read a whole store and name the videos that have changed.

    Returns:
        0, or 1 if any has.

    Raises:
        ValueError: It is no finished store, or files are missing.
    """
    store = Store.open(folder)
    faults = [
        f"{store.name(number)}: {fault}"
        for number, fault in track(store.check(), "checking", len(store.videos))
        if fault
    ]
    print(f"{folder}: {store.describe()}")
    if not faults:
        print("every checksum is right")
        return 0
    noun = "video is" if len(faults) == 1 else "videos are"
    print("\n  ".join([f"{len(faults)} {noun} damaged:", *faults]))
    print("remove the folder and make it again, or restore those files")
    return 1
