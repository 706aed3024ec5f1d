"""The share of training that waits for clips: what counts, on CPUs, GPUs and ranks."""

from types import SimpleNamespace

import pytest
import torch

from callbacks import data_wait
from callbacks.data_wait import KEY, DataWait

FETCH = "[_TrainingEpochLoop].train_dataloader_next"


class Run:
    """A Trainer, module and logger whose clock moves as told."""

    def __init__(self, every=2, device="cpu", world_size=1):
        self.now, self.rows = 0.0, []
        self.callback = DataWait(lambda: self.now)
        logger = SimpleNamespace(
            log_metrics=lambda values, step: self.rows.append((step, values[KEY]))
        )
        self.trainer = SimpleNamespace(
            global_step=0,
            log_every_n_steps=every,
            loggers=[logger],
            world_size=world_size,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        self.module = SimpleNamespace(
            device=torch.device(device), log=lambda *_, **__: None
        )
        self.callback.on_train_start(self.trainer, self.module)

    def step(self, wait, work, action=FETCH, steps=1):
        self.callback.profiler.start(action)
        self.now += wait
        self.callback.profiler.stop(action)
        self.now += work
        self.trainer.global_step += steps
        self.callback.on_train_batch_end(self.trainer, self.module)

    def end(self):
        self.callback.on_train_end(self.trainer, self.module)
        return self.callback.waits


def test_the_share_is_of_the_steps_since_the_last_logged_one():
    run = Run()
    run.step(100, 100)
    for wait, work in ((1, 3), (0, 4), (2, 2), (4, 0)):
        run.step(wait, work)
    # The first step, in which loader processes start, is left out.
    assert run.rows == [(1, 0.25), (3, 0.25)]
    waits = run.end()
    assert (waits.waited, waits.total, waits.share) == (7, 16, 7 / 16)


def test_other_actions_accumulation_and_validation_are_no_wait():
    run = Run(every=1)
    run.step(0, 1)
    run.step(3, 1, "[Strategy]training_step")
    # Two micro-batches of a step.
    run.step(1, 1, steps=0)
    run.step(0, 2)
    run.callback.on_validation_start(run.trainer, run.module)
    run.now += 1000
    run.callback.on_validation_end(run.trainer, run.module)
    run.step(1, 1)
    assert run.rows == [(1, 0.0), (2, 0.25), (3, 0.5)]


def test_a_stage_that_goes_on_adds_up_and_begins_with_a_step_that_does_not_count():
    run = Run(every=1)
    for _ in range(2):
        run.step(1, 1)
    run.end()
    run.trainer.global_step = 70
    run.callback.on_train_start(run.trainer, run.module)
    run.step(500, 1)
    run.step(3, 1)
    waits = run.end()
    assert run.rows == [(1, 0.5), (71, 0.75)]
    assert (waits.waited, waits.total) == (4, 6)


class FakeIdle:
    """A GPU that is idle for ``lost`` seconds of each wait, and says so when told."""

    lost, known = 0.0, True

    def stop(self):
        self.own = self.lost

    def seconds(self, wait=False):
        return self.own if self.known or wait else None


def test_a_gpu_that_still_computes_is_not_waiting(monkeypatch):
    monkeypatch.setattr(data_wait, "DeviceIdle", FakeIdle)
    run = Run(every=1, device="cuda")
    run.step(0, 1)
    FakeIdle.lost = 0.0
    run.step(1, 1)
    FakeIdle.lost = 0.5
    run.step(1, 1)
    # Idle for longer than the host waited: it also was while the host did other things.
    FakeIdle.lost = 9.0
    run.step(1, 1)
    assert [share for _, share in run.rows] == [0.0, 0.25, 0.5]
    # The GPU has not come so far: nobody waits for it, until the stage ends.
    FakeIdle.known = False
    run.step(1, 1)
    assert run.rows[-1][1] == 0.0
    assert run.end().waited == pytest.approx(2.5)


def test_of_several_ranks_the_one_that_waits_most_counts():
    run = Run(every=1, world_size=2)

    def reduce(own, reduce_op):
        assert reduce_op == "max"
        return torch.maximum(own, torch.tensor([3.0, 4.0]))

    run.trainer.strategy.reduce = reduce
    run.step(0, 1)
    run.step(1, 3)
    assert run.rows == [(1, 0.75)]
