"""Checkpoints, signals and several ranks: how a run stops and goes on."""

import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.checkpoints import (
    AtomicCheckpointIO,
    FinalValidation,
    StageCheckpoints,
)
from callbacks.guards import RankDivergenceGuard, StepGuard
from callbacks.interrupt import SaveOnSignal
from callbacks.quality_metrics import QualityMetrics
from lightning_modules.base import ValidationResult
from lightning_modules.ranks import Votes


class Module(LightningModule):
    """Its weights follow from the steps done, its validation losses from a list."""

    def __init__(self, losses=(), pause=0.0):
        super().__init__()
        self.codec = torch.nn.Linear(2, 2)
        torch.nn.init.ones_(self.codec.weight)
        torch.nn.init.zeros_(self.codec.bias)
        self.losses, self.pause = losses, pause
        self.validated = []

    def training_step(self, batch, batch_idx):
        time.sleep(self.pause)
        step = self.trainer.global_step + 1
        return self.codec(batch / step).square().mean()

    def validation_step(self, clip, batch_idx):
        x_hat = clip * 0.5
        return [ValidationResult("a", "qp0", 0, clip, x_hat, clip[:, :, 0, 0, 0])]

    def on_validation_epoch_end(self):
        step = self.trainer.global_step
        self.validated.append(step)
        loss = self.losses[step] if step < len(self.losses) else 1.0
        self.log("val/loss", loss, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def make_trainer(*callbacks, steps=6, **options):
    return Trainer(
        **{
            "max_steps": steps,
            "max_epochs": -1,
            "accelerator": "cpu",
            "logger": False,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "plugins": [AtomicCheckpointIO()],
            "callbacks": list(callbacks),
            **options,
        }
    )


def fit(module, *callbacks, ckpt_path=None, clips=None, skip=0, **options):
    trainer = make_trainer(*callbacks, **options)
    batches = torch.linspace(0, 1, 2000).reshape(1000, 2)[skip:]
    clips = [torch.ones(1, 1, 3, 4, 4)] if clips is None else clips
    loaders = [
        torch.utils.data.DataLoader(d, batch_size=None) for d in (batches, clips)
    ]
    trainer.fit(module, *loaders, ckpt_path=ckpt_path, weights_only=True)
    return trainer


# AtomicCheckpointIO


def test_a_crash_while_saving_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "stage" / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"weights": torch.ones(3)}, path)

    def crash(checkpoint, file):
        file.write(b"half a check")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="no space left"):
        io.save_checkpoint({"weights": torch.zeros(3)}, path)
    assert torch.equal(io.load_checkpoint(path)["weights"], torch.ones(3))
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_named_with_the_checkpoint(tmp_path):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"weights": torch.ones(3)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a disk that fills up in the middle of a tensor.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{path}'"):
            io.save_checkpoint({"weights": torch.ones(1 << 20)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(io.load_checkpoint(path)["weights"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_never_runs_code(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"weights": Module()}, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)


# StageCheckpoints


def global_step(path):
    return torch.load(path, weights_only=True)["global_step"]


class Saved(AtomicCheckpointIO):
    """Remember what was saved."""

    def __init__(self):
        self.names = []

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        super().save_checkpoint(checkpoint, path)
        self.names.append((Path(path).stem, checkpoint["global_step"]))


def test_last_is_saved_every_few_steps_and_at_the_end(tmp_path):
    saved, module = Saved(), Module(losses=[1, 1, 3.0, 1, 2.0, 1, float("nan")])
    fit(module, StageCheckpoints(tmp_path, 3), steps=7, plugins=[saved])
    assert saved.names == [
        ("best", 2),
        ("last", 3),
        ("best", 4),
        ("last", 6),
        ("last", 7),
    ]
    assert global_step(tmp_path / "last.ckpt") == 7
    assert global_step(tmp_path / "best.ckpt") == 4


def test_sanity_checks_are_no_best(tmp_path):
    checkpoints = StageCheckpoints(tmp_path, 100)
    fit(Module(losses=[-9.0, 1, 5.0]), checkpoints, steps=2, num_sanity_val_steps=1)
    assert checkpoints.best_loss == 5.0
    assert global_step(checkpoints.best) == 2


def test_a_loss_of_nothing_is_no_best_which_is_said_once(tmp_path):
    checkpoints = StageCheckpoints(tmp_path, 100)
    losses = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]
    with pytest.warns(UserWarning, match=r"val/loss is 0 at step 2.*weights") as said:
        fit(Module(losses), checkpoints)
    assert len([w for w in said if "val/loss" in str(w.message)]) == 1
    assert checkpoints.best_loss == 3.0 and global_step(checkpoints.best) == 6
    checkpoints.load_state_dict({"best_loss": 0.0})
    assert checkpoints.best_loss == float("inf")


def test_a_resumed_stage_keeps_its_better_best(tmp_path):
    losses = [0, 0, 1.0, 0, 5.0, 0, 4.0]
    fit(Module(losses), StageCheckpoints(tmp_path, 3), steps=4)
    # Killed after step 4: only the file of step 4 and the best of step 2 are left.
    resumed = StageCheckpoints(tmp_path, 3)
    fit(Module(losses), resumed, ckpt_path=resumed.last)
    assert resumed.best_loss == 1.0
    assert global_step(resumed.best) == 2
    assert global_step(resumed.last) == 6


def test_checkpoints_follow_optimizer_steps_not_batches(tmp_path):
    saved = Saved()
    checkpoints = StageCheckpoints(tmp_path, 2)
    fit(Module(), checkpoints, steps=4, accumulate_grad_batches=3, plugins=[saved])
    assert [n for n in saved.names if n[0] == "last"] == [
        ("last", 2),
        ("last", 4),
        ("last", 4),
    ]


def test_the_last_step_is_always_validated_and_only_once():
    for steps, expected in ((5, [2, 4, 5]), (4, [2, 4])):
        module = Module()
        fit(module, FinalValidation(), steps=steps)
        assert module.validated == expected


# SaveOnSignal


class SendAt(Callback):
    """Send a signal to this process in the middle of a step."""

    def __init__(self, signum, step=2, times=1):
        self.signum, self.step, self.times = signum, step, times
        self.sent = False

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step and not self.sent:
            self.sent = True
            for _ in range(self.times):
                os.kill(os.getpid(), self.signum)
                time.sleep(0.01)


@pytest.mark.parametrize("done", [3, 4])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_stops_and_the_run_goes_on_exactly(tmp_path, signum, done):
    # It comes in the step after; step 4 ends with a validation, which is not left out.
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    path, module = tmp_path / "last.ckpt", Module()
    interrupt, saved = SaveOnSignal(path), Saved()
    checkpoints = StageCheckpoints(tmp_path, 100)
    callbacks = [interrupt, checkpoints, SendAt(signum, step=done)]
    # `min_steps` must not keep it from stopping.
    trainer = fit(module, *callbacks, steps=9, min_steps=8, plugins=[saved])
    # The end of a stopped fit must not replace the checkpoint of the batch.
    assert saved.names == [("best", 2), ("last", done + 1)]
    assert interrupt.received == signum
    assert trainer.global_step == global_step(path) == done + 1
    assert module.validated == [2, 4]
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers

    whole, resumed = Module(), Module()
    fit(whole, steps=9)
    seen = SaveOnSignal(path)
    # Like a real run's sampler, which begins at the checkpoint's step.
    fit(resumed, seen, checkpoints, steps=9, ckpt_path=path, skip=done + 1)
    assert torch.equal(whole.codec.weight, resumed.codec.weight)
    assert seen.received is None
    assert resumed.validated == [6, 8]


def test_accumulated_batches_are_finished_first(tmp_path):
    interrupt, module = SaveOnSignal(tmp_path / "last.ckpt"), Module()
    send = SendAt(signal.SIGTERM, step=2)
    fit(module, interrupt, send, steps=9, accumulate_grad_batches=3)
    checkpoint = torch.load(interrupt.path, weights_only=True)
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert (checkpoint["global_step"], batches["ready"]) == (3, 9)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    interrupt = SaveOnSignal(tmp_path / "last.ckpt")
    ctrl_c = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            fit(Module(), interrupt, SendAt(signal.SIGINT, times=2))
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert not interrupt.path.exists()


def start_child(function, output, *arguments, **environment):
    """Run a function in a forked process, which needs to import nothing again."""

    def run():
        os.environ.update(environment)
        with output.open("w") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")
        # Lightning's own handler writes to where this process's output is captured.
        logging.getLogger("lightning.pytorch").propagate = True
        logging.basicConfig(level="INFO", force=True)
        function(*arguments)

    child = get_context("fork").Process(target=run)
    child.start()
    return child


def test_a_process_that_is_told_to_end_saves_and_exits_cleanly(tmp_path):
    child = start_child(child_slow, tmp_path / "output", tmp_path)
    while not (tmp_path / "step3").exists():
        assert child.is_alive(), (tmp_path / "output").read_text()
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGTERM)
    child.join(timeout=60)
    output = (tmp_path / "output").read_text()
    assert child.exitcode == 0, output
    assert "SIGTERM: saving" in output
    assert "received 15" in output
    assert 4 <= global_step(tmp_path / "last.ckpt") < 1000


# Two ranks


def test_two_ranks_measure_stop_and_diverge_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    outputs = [tmp_path / f"output{rank}" for rank in range(2)]
    ranks = [
        start_child(
            child_ranks,
            output,
            tmp_path,
            rank,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            NODE_RANK="0",
            LOCAL_RANK=str(rank),
        )
        for rank, output in enumerate(outputs)
    ]
    for rank in ranks:
        rank.join(timeout=120)
    said = [output.read_text() for output in outputs]
    assert [rank.exitcode for rank in ranks] == [0, 0], "\n".join(said)
    results = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2)]
    assert results[0] == results[1]
    alone = fit(Module(), QualityMetrics(["psnr", "bpp"]), steps=2, clips=CLIPS)
    expected = {k: float(v) for k, v in alone.callback_metrics.items()}
    assert results[0]["metrics"] == pytest.approx(expected, rel=1e-6)
    assert results[0]["stopped"] == [3, signal.SIGTERM]
    # Nor would they wait for their GPUs: all was asked on their CPUs, apart.
    assert results[0]["asked"] == [0, 1]
    assert results[0]["stopped_early"] == [1, signal.SIGTERM]
    assert "differ at step 2, in 1 of 2 parameters" in results[0]["diverged"]


CLIPS = [torch.full((1, t, 3, 4, 4), t / 4) for t in (1, 2, 3)]


class Diverge(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            pl_module.codec.bias.data[0] += 1e-7


def child_slow(folder):
    class Tell(Callback):
        def on_train_batch_end(self, trainer, *args):
            (folder / f"step{trainer.global_step}").touch()

    interrupt = SaveOnSignal(folder / "last.ckpt")
    fit(Module(pause=0.02), interrupt, Tell(), steps=1000)
    print("received", interrupt.received)


class SendAtStart(Callback):
    """Send a signal before there is a step, after Lightning has set its handlers."""

    def on_train_start(self, trainer, *args):
        os.kill(os.getpid(), signal.SIGTERM)


def votes_of_gpus():
    """Return the votes of ranks that talk by their GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "get_backend", lambda: "nccl")
        return Votes()


def count_calls(patch, name):
    calls, original = [], getattr(torch.distributed, name)

    def counted(*args, **options):
        calls.append(1)
        return original(*args, **options)

    patch.setattr(torch.distributed, name, counted)
    return calls


def child_ranks(folder, rank):
    ddp = {"strategy": "ddp", "devices": 2}
    # One clip more on rank 1: the mean over frames must not notice.
    share = CLIPS[:1] if rank == 0 else CLIPS[1:]
    metrics = QualityMetrics(["psnr", "bpp"])
    trainer = fit(Module(), metrics, StepGuard(9.0), steps=2, clips=share, **ddp)
    measured = {k: float(v) for k, v in trainer.callback_metrics.items()}
    measured = {k: v for k, v in measured.items() if k.startswith("val")}

    interrupt = SaveOnSignal(folder / "last.ckpt")
    callbacks = [interrupt, RankDivergenceGuard(1)]
    if rank == 1:
        callbacks.append(SendAt(signal.SIGTERM))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("callbacks.interrupt.Votes", votes_of_gpus)
        asked = [count_calls(patch, name) for name in ("broadcast", "new_group")]
        trainer = fit(Module(), *callbacks, steps=8, **ddp)
    stopped = [trainer.global_step, interrupt.received]
    early = SaveOnSignal(folder / "early.ckpt")
    trainer = fit(Module(), *[SendAtStart()] * rank, early, steps=8, **ddp)
    stopped_early = [trainer.global_step, early.received]

    diverged = ""
    try:
        fit(Module(), Diverge(), RankDivergenceGuard(1), **ddp)
    except RuntimeError as error:
        diverged = str(error)
    result = {
        "metrics": measured,
        "stopped": stopped,
        "asked": [sum(calls) for calls in asked],
        "stopped_early": stopped_early,
        "diverged": diverged,
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(result))
