"""Parts of a W&B run that a kill left torn: cut, so that all of them can be sent."""

import json
from types import SimpleNamespace

import pytest
import wandb

from experiments.fit.loggers import wandb_run
from experiments.fit.loggers.offline_parts import (
    BLOCK,
    HEADER,
    cut_torn_tails,
    logged_from,
    unsent_parts,
    wait_for_records,
    whole_records,
)
from experiments.fit.loggers.wandb_run import StageWandbLogger, sync_hint

W_AND_BS = ("_runtime", "_step", "_timestamp")


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


def test_a_short_part_is_waited_for(tmp_path, monkeypatch):
    path, waits = part(tmp_path, HEAD), []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            path.write_bytes(ONE)

    monkeypatch.setattr("time.sleep", sleep)
    wait_for_records(path)
    assert len(waits) == 3
    path.write_bytes(HEAD)
    wait_for_records(path, 0.0)


def test_a_run_that_goes_on_cuts_its_torn_part(two_stages, torn, tmp_path):
    assert two_stages(tmp_path, "--run=run", "--to_stage=first") == 0
    path = part(tmp_path / "run", torn)
    assert two_stages(tmp_path, "--run=run") == 0
    assert path.stat().st_size == whole_records(torn) < len(torn)
    wandb.teardown()


def test_a_step_that_comes_again_is_not_logged_twice(tmp_path, wandb_records):
    def log(done, steps, value, **more):
        logger = StageWandbLogger(tmp_path, False, id="x", project="p", name="n")
        logger.start_stage("first", 10, done)
        for step in steps:
            logger.log_metrics({"train/loss": value, **more}, step)
        logger.finish()
        wandb.teardown()

    log(0, range(6), 1.0)
    # Killed, and once more before it was as far.
    log(2, range(2, 4), 2.0)
    log(3, range(3, 8), 3.0, **{"val/psnr": 4.0})
    rows = [
        {
            item.nested_key[0]: json.loads(item.value_json)
            for item in record.history.item
        }
        for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
        for record in wandb_records(path)
        if record.history.item
    ]
    losses = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert losses == [*((s, 1.0) for s in range(11, 17)), (17, 3.0), (18, 3.0)]
    # What had not been logged of these steps is.
    assert [row["step"] for row in rows if "val/psnr" in row] == [14, 15, 16, 17, 18]
    found = logged_from(tmp_path, 16)
    assert found == {
        16: {"val/psnr", "stage", "step", *W_AND_BS},
        17: {"train/loss", "val/psnr", "stage", "step", *W_AND_BS},
        18: {"train/loss", "val/psnr", "stage", "step", *W_AND_BS},
    }


def test_what_a_torn_part_lost_is_taken_from_the_csv(
    torn, tmp_path, monkeypatch, wandb_rows
):
    path = part(tmp_path, torn)
    cut_torn_tails(tmp_path)
    last = wandb_rows(tmp_path)[0][-1]["step"]
    lines = ["step,stage,name,value"]
    lines += [f"{s},one,train/{i},7.0" for s in range(last + 9) for i in (1, 99)]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    logged = []
    run = SimpleNamespace(log=logged.append, define_metric=lambda *_, **__: None)
    logger = StageWandbLogger(tmp_path, False, id="x", project="p", name="n")
    monkeypatch.setattr(logger, "_open", lambda: run)
    # It may be open for what else there is to tell, checkpoints say.
    assert logger.experiment is run
    logger.start_stage("two", last, 4)
    logger.start_stage("three", last, 4)
    lost = {"train/1": 7.0, "train/99": 7.0, "stage": "one"}
    assert logged == [
        # It has the first of them.
        {"train/99": 7.0, "stage": "one", "step": last},
        *({**lost, "step": step} for step in range(last + 1, last + 5)),
    ]
    # All of it, where a part has no whole block, and nothing where there is no part.
    for data, count in ((HEAD, last + 5), (None, 0)):
        path.unlink()
        if data:
            path.write_bytes(data)
        other = StageWandbLogger(tmp_path, False, id="x", project="p", name="n")
        monkeypatch.setattr(other, "_open", lambda: run)
        logged.clear()
        other.start_stage("two", last, 4)
        assert len(logged) == count


def test_what_cannot_be_read_comes_again(tmp_path):
    part(tmp_path, HEAD + record(1, b"no protobuf") + record(9, b"damaged"))
    part(tmp_path, HEAD, "offline-run-2-x")
    assert logged_from(tmp_path, 0) == {}


def test_an_online_run_repeats_what_the_server_lacks(tmp_path, monkeypatch):
    earlier = {step: {"train/loss"} for step in (3, 4, 5)}
    monkeypatch.setattr(wandb_run, "logged_from", lambda *_: dict(earlier))
    part(tmp_path, HEAD, "run-1-x")
    logged = []
    run = SimpleNamespace(
        summary={"step": 4}, log=logged.append, define_metric=lambda *_, **__: None
    )
    logger = StageWandbLogger(tmp_path, True, id="x", project="p", name="n")
    monkeypatch.setattr(logger, "_open", lambda: run)
    logger.start_stage("first", 0, 2)
    for step in range(2, 6):
        logger.log_metrics({"train/loss": 1.0}, step)
    assert [row["step"] for row in logged] == [5, 6]
