"""What an offline run has told W&B."""

import pytest


@pytest.fixture
def wandb_rows(wandb_part):
    """Read a run's only offline part; return its rows, its run and its summary."""

    def read(run_dir):
        (path,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
        return wandb_part(path)

    return read
