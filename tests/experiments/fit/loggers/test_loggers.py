"""Loggers of a run: one axis over all stages, offline W&B, no question asked."""

import http.server
import json
import threading

import pytest
import torch
import wandb
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.fit.loggers import choice, wandb_run
from experiments.fit.loggers.choice import close_loggers, make_loggers
from experiments.fit.loggers.metrics_csv import TidyCSVLogger, read_metrics
from experiments.fit.loggers.wandb_run import StageWandbLogger, answers, sync_hint

NAMES = {"project": "project", "name": "a run", "group": "a group"}


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    wandb.teardown()
    yield
    wandb.teardown()


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.log("train/step_done", float(self.trainer.global_step + 1))
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/step_done", float(self.trainer.global_step))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(loggers, steps, *callbacks, ckpt_path=None):
    trainer = Trainer(
        callbacks=list(callbacks),
        max_steps=steps,
        accelerator="cpu",
        logger=loggers,
        log_every_n_steps=1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(torch.ones(100, 1))
    val_loader = torch.utils.data.DataLoader(torch.ones(1, 1))
    trainer.fit(Module(), loader, val_loader, ckpt_path=ckpt_path, weights_only=True)


def run_stages(loggers):
    for stage, steps, offset in (("first", 4, 0), ("second", 2, 4)):
        for logger in loggers:
            logger.start_stage(stage, offset)
        fit(loggers, steps)
    close_loggers(loggers)


EXPECTED = sorted(
    [(s, "first", "train/step_done", float(s)) for s in (1, 2, 3, 4)]
    + [(s, "first", "val/step_done", float(s)) for s in (2, 4)]
    + [(s, "second", "train/step_done", float(s - 4)) for s in (5, 6)]
    + [(6, "second", "val/step_done", 2.0)]
)


def test_all_stages_share_one_step_axis_in_the_csv(tmp_path):
    run_stages(make_loggers(tmp_path, "csv", **NAMES))
    assert sorted(read_metrics(tmp_path / "metrics.csv")) == EXPECTED


def test_a_resumed_run_drops_the_rows_that_come_again(tmp_path):
    logger = TidyCSVLogger(tmp_path)
    logger.start_stage("first", 0)
    for step in range(6):
        logger.log_metrics({"loss": step / 3}, step)
    with logger.path.open("a") as file:
        file.write("7,first,lo")  # Killed in the middle of a line.
    again = TidyCSVLogger(tmp_path)
    again.start_stage("first", 0, done=4)
    again.log_metrics({"loss": torch.tensor(9.0)}, 4)
    values = [(step, value) for step, _, _, value in read_metrics(again.path)]
    assert values == [*((s + 1, s / 3) for s in range(4)), (5, 9.0)]
    assert not list(tmp_path.glob("*.tmp"))


class Save(Callback):
    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_resumed_stage_goes_on_along_the_axis(tmp_path, killed_after):
    path, steps = tmp_path / "last.ckpt", 6
    whole, first, again = (TidyCSVLogger(tmp_path / n) for n in ("whole", "run", "run"))
    for logger in (whole, first):
        logger.start_stage("only", 10)
        fit([logger], steps, Save(path, killed_after))
    again.start_stage("only", 10, done=killed_after)
    fit([again], steps, ckpt_path=path)
    expected, rows = (set(read_metrics(logger.path)) for logger in (whole, again))
    # Lightning does not repeat a validation that was due at the saved step.
    assert expected - rows <= {(10 + killed_after, "only", "val/step_done", 2.0)}
    assert rows <= expected


def test_offline_wandb_gets_every_row_config_group_and_tags(wandb_rows, tmp_path):
    config = {"model": {"width": 8}, "stages": ["first", "second"]}
    loggers = make_loggers(tmp_path, "auto", **NAMES, tags=["UI2C"], config=config)
    assert [type(logger) for logger in loggers] == [TidyCSVLogger, StageWandbLogger]
    run_stages(loggers)
    (part,) = (tmp_path / "wandb").glob("offline-run-*")
    rows, run, _ = wandb_rows(tmp_path)
    logged = [
        (row["step"], name, value)
        for row in rows
        for name, value in row.items()
        if "/" in name
    ]
    assert sorted(logged) == sorted((s, n, v) for s, _, n, v in EXPECTED)
    stages = {(row["step"], row["stage"]) for row in rows}
    assert stages == {(step, stage) for step, stage, _, _ in EXPECTED}
    assert (run.run_group, run.display_name) == ("a group", "a run")
    assert run.run_id == (tmp_path / "wandb_id.txt").read_text()
    assert set(run.tags) == {"UI2C"}
    stored = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {key: stored[key] for key in config} == config
    assert sync_hint(tmp_path) == f"wandb sync {part}"


def test_a_run_list_shows_the_best_of_each_metric(wandb_rows, tmp_path):
    loggers = make_loggers(tmp_path, "offline", **NAMES)
    for logger in loggers:
        logger.start_stage("first", 0)
    names = ("val/psnr", "val/qp21/psnr", "val/fid", "val/qp63/tlp", "val/loss")
    names += ("val/psnr_drop", "val/qp21/psnr_last8")
    others = ("val/bpp", "val/fid_samples", "train/psnr")
    for step, value in enumerate((2.0, 3.0, 1.0)):
        logged = dict.fromkeys((*names, *others), value)
        loggers[1].log_metrics(logged, step)
    close_loggers(loggers)
    _, _, summary = wandb_rows(tmp_path)
    for name in names:
        best = {"max": 3} if name.endswith(("psnr", "last8")) else {"min": 1}
        assert summary[name] == {**best, "last": 1}
    assert {name: summary[name] for name in others} == dict.fromkeys(others, 1)


def test_a_run_that_goes_on_keeps_its_id(tmp_path):
    for _ in range(2):
        loggers = make_loggers(tmp_path, "offline", **NAMES)
        assert loggers[1].version == (tmp_path / "wandb_id.txt").read_text()


def test_a_part_that_was_sent_is_not_sent_again(tmp_path):
    assert sync_hint(tmp_path) is None
    for name in ("offline-run-1-x", "offline-run-2-x"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
        (tmp_path / "wandb" / name / "run-x.wandb").write_bytes(bytes(8))
    (tmp_path / "wandb" / "offline-run-1-x" / "run-x.wandb.synced").touch()
    assert sync_hint(tmp_path) == f"wandb sync {tmp_path}/wandb/offline-run-2-x"


def test_a_refused_run_is_logged_offline(tmp_path, monkeypatch):
    opened = []
    real = wandb.init

    def init(**arguments):
        opened.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no such project")
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    logger = StageWandbLogger(tmp_path, online=True, project="p", name="n", id="x")
    with pytest.warns(UserWarning, match="no such project"):
        logger.start_stage("first", 0)
    logger.finish()
    assert opened == ["online", "offline"]


@pytest.mark.parametrize(
    ("logger", "mode", "kinds"),
    [
        ("none", "", []),
        ("csv", "", [TidyCSVLogger]),
        ("auto", "disabled", [TidyCSVLogger]),
        ("auto", "offline", [TidyCSVLogger, StageWandbLogger]),
        ("offline", "disabled", [TidyCSVLogger, StageWandbLogger]),
    ],
)
def test_the_choice_and_the_environment_decide(
    tmp_path, monkeypatch, logger, mode, kinds
):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(choice, "why_offline", forbidden)
    loggers = make_loggers(tmp_path, logger, **NAMES)
    assert [type(logger) for logger in loggers] == kinds


def forbidden(*args):
    raise AssertionError("the server was asked")


def test_online_is_refused_where_it_is_impossible(tmp_path):
    with pytest.raises(ValueError, match="cannot log online: nobody is logged in"):
        make_loggers(tmp_path, "online", **NAMES)


def test_other_ranks_log_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(choice.rank_zero_only, "rank", 1)
    monkeypatch.setattr(choice, "why_offline", forbidden)
    assert make_loggers(tmp_path, "auto", **NAMES) == []
    assert not list(tmp_path.iterdir())


def test_a_key_without_a_server_means_offline(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_run.why_offline() == "http://127.0.0.1:9 does not answer"


def test_any_status_is_an_answer_and_silence_is_not():
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(403)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        # Nobody serves yet: the connection opens, but no answer comes.
        assert not answers(url, 0.2)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert answers(url, 5.0)
        server.shutdown()
