"""What an offline run has told W&B."""

import json

import pytest


@pytest.fixture
def wandb_rows():
    """Read a run's only offline part; return its rows, its run and its summary."""
    return read


def read(run_dir):
    """Read a ``run-*.wandb`` file: LevelDB log blocks of protobuf records."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    # Its service writes the last records after the run is finished.
    wandb.teardown()
    (path,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    data, rows, position, record = path.read_bytes(), [], 7, b""
    run, summary = None, {}
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            message = wandb_internal_pb2.Record.FromString(record)
            record = b""
            if message.history.item:
                rows.append(values(message.history.item))
            summary |= values(message.summary.update)
            if message.HasField("run"):
                run = message.run
    return rows, run, summary


def values(items):
    """Return what stands in a record, by name."""
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for item in items
    }
