"""What an offline run has told W&B."""

import json

import pytest


@pytest.fixture
def wandb_rows():
    """Read a run's only offline part; return its rows, its run and its summary."""
    return read


@pytest.fixture
def wandb_records():
    """Give the records of a ``run-*.wandb`` file."""
    return records


def read(run_dir):
    import wandb

    # Its service writes the last records after the run is finished.
    wandb.teardown()
    (path,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    rows, run, summary = [], None, {}
    for message in records(path):
        if message.history.item:
            rows.append(values(message.history.item))
        summary |= values(message.summary.update)
        if message.HasField("run"):
            run = message.run
    return rows, run, summary


def records(path):
    """Read a file: LevelDB log blocks of protobuf records."""
    from wandb.proto import wandb_internal_pb2

    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def values(items):
    """Return what stands in a record, by name."""
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for item in items
    }
