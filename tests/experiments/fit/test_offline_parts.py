"""Parts of a W&B run that a kill left torn: cut, so that all of them can be sent."""

import pytest
import wandb

from experiments.fit.offline_parts import (
    BLOCK,
    HEADER,
    cut_torn_tails,
    unsent_parts,
    whole_records,
)
from experiments.fit.tracking import sync_hint


@pytest.fixture(scope="module")
def torn(tmp_path_factory):
    """A part as a kill leaves it: W&B writes whole blocks, and the last at its end."""
    folder = tmp_path_factory.mktemp("torn")
    run = wandb.init(project="p", id="x", mode="offline", dir=folder)
    for step in range(400):
        run.log({"step": step, **{f"train/{i}": step + i for i in range(20)}})
    run.finish()
    wandb.teardown()
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data = path.read_bytes()
    return data[: len(data) // BLOCK * BLOCK]


def part(folder, data, name="offline-run-1-x"):
    path = folder / "wandb" / name / "run-x.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def record(kind, content):
    return bytes(4) + len(content).to_bytes(2, "little") + bytes([kind]) + content


def test_a_part_is_cut_after_its_last_whole_record(torn, tmp_path, wandb_rows):
    path = part(tmp_path, torn)
    assert cut_torn_tails(tmp_path) == [path]
    left = path.read_bytes()
    assert torn.startswith(left) and 0 < len(torn) - len(left) < BLOCK
    rows, run, _ = wandb_rows(tmp_path)
    assert run.run_id == "x"
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert cut_torn_tails(tmp_path) == []


HEAD = b":W&B\xbe\xfe\x00"
ONE = HEAD + record(1, b"abc")


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (ONE, len(ONE)),
        (ONE + record(1, b"defg")[:-1], len(ONE)),
        (ONE + record(1, b"defg")[:5], len(ONE)),
        (ONE + record(2, b"de") + record(3, b"fg"), len(ONE)),
        (ONE + record(2, b"de") + record(4, b"f"), len(ONE) + 17),
        (ONE + bytes(100), len(ONE)),
        (HEAD, HEADER),
        (HEAD[:3], 3),
        (b"", 0),
        # Damaged, not torn: what follows may be readable.
        (ONE + record(9, b"de") + ONE[HEADER:], 2 * len(ONE) + 2),
        (ONE + record(4, b"de"), len(ONE) + 9),
    ],
)
def test_where_the_last_whole_record_ends(data, end):
    assert whole_records(data) == end


def test_a_part_without_a_record_is_not_sent(tmp_path):
    for number, data in enumerate((b"", HEAD, HEAD + record(1, b"abc")[:-1], ONE)):
        whole = part(tmp_path, data, f"offline-run-{number}-x")
    cut_torn_tails(tmp_path)
    assert unsent_parts(tmp_path) == [whole.parent]
    assert sync_hint(tmp_path) == f"wandb sync {whole.parent}"


def test_a_run_that_goes_on_cuts_its_torn_part(two_stages, torn, tmp_path):
    assert two_stages(tmp_path, "--run=run", "--to_stage=first") == 0
    path = part(tmp_path / "run", torn)
    assert two_stages(tmp_path, "--run=run") == 0
    assert path.stat().st_size == whole_records(torn) < len(torn)
    wandb.teardown()
