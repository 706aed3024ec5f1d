"""How much of the training time is spent waiting for clips."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

KEY = "train/data_wait"

LARGE = 0.1
"""A share of the training time from which more loaders, or prepared clips, pay."""

FETCHING = "train_dataloader_next"
"""End of the name under which Lightning's loop profiles taking the next batch."""


class DeviceIdle:
    """How long a GPU had nothing to do between two moments, without waiting for it.

    While the host waits for a batch, the GPU still computes what was queued: only the
    time after that is lost. An event at the queue's end and one behind it tell the
    time between them, once the GPU has passed both.
    """

    def __init__(self) -> None:
        self._end = torch.cuda.Event(enable_timing=True)
        self._next = torch.cuda.Event(enable_timing=True)
        self._end.record()

    def stop(self) -> None:
        """Mark the moment at which the host goes on."""
        self._next.record()

    def seconds(self, wait: bool = False) -> float | None:
        """Return the idle time; ``None`` if it is not known yet and not waited for."""
        if wait:
            self._next.synchronize()
        if not self._next.query():
            return None
        return self._end.elapsed_time(self._next) / 1000


@dataclass
class Waits:
    """Seconds of training, and those of them that it waited for a batch."""

    waited: float = 0.0
    total: float = 0.0

    @property
    def share(self) -> float:
        """Return the share of the waits, 0 to 1; 0 where nothing was measured."""
        return min(1.0, self.waited / self.total) if self.total > 0 else 0.0

    def __iadd__(self, other: "Waits") -> "Waits":
        self.waited += other.waited
        self.total += other.total
        return self


class FetchClock(Profiler):
    """Times the fetching of training batches, which Lightning tells a profiler of.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._on_cuda = False
        self._idle: DeviceIdle | None = None
        self._began = 0.0
        self._waited = 0.0
        # Waits of which the GPU has not told yet how long it was idle.
        self._pending: list[tuple[float, DeviceIdle]] = []

    def restart(self, on_cuda: bool) -> None:
        """Forget what was; from now on, batches are for a GPU or for this CPU."""
        self._on_cuda = on_cuda
        self._waited, self._pending = 0.0, []

    def start(self, action_name: str) -> None:
        """Note the begin of an action, if it fetches."""
        if action_name.endswith(FETCHING):
            self._idle = DeviceIdle() if self._on_cuda else None
            self._began = self._clock()

    def stop(self, action_name: str) -> None:
        """Note its end."""
        if not action_name.endswith(FETCHING):
            return
        waited = self._clock() - self._began
        if self._idle is None:
            self._waited += waited
        else:
            self._idle.stop()
            self._pending.append((waited, self._idle))

    def take(self, wait: bool = False) -> float:
        """Return the seconds waited since the last call.

        Waits that the GPU has not come to yet are left for the next call, unless this
        one may ``wait`` for it.
        """
        while self._pending:
            waited, idle = self._pending[0]
            lost = idle.seconds(wait)
            if lost is None:
                break
            self._waited += min(waited, lost)
            self._pending.pop(0)
        taken, self._waited = self._waited, 0.0
        return taken


class DataWait(Callback):
    """Log ``train/data_wait``, the share of the training time that waits for clips.

    It is the mean since the last logged step, 0 to 1: seconds in which the next batch
    was not there yet, over all seconds but those of validations. A stage's first step
    does not count: loader processes start in it, after a resume too, and kernels are
    chosen or compiled. On a GPU a wait counts only from when it has nothing to do.
    Of several ranks the one that waits most is logged, because the others wait for it.

    One for all stages of a run: :attr:`waits` adds them up.

    Args:
        clock: Gives seconds.

    Attributes:
        profiler: For the Trainer of each stage, which tells it of fetching.
        waits: Of all stages that this process has trained.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.profiler = FetchClock(clock)
        self.waits = Waits()
        self._interval = Waits()
        # Since when training runs; None before its first step's end and in validations.
        self._since: float | None = None
        self._first = self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the first step's end."""
        self._since, self._interval = None, Waits()
        self._first = self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Log the interval's mean, where it is time to."""
        if trainer.global_step == self._step:
            # Amid accumulated batches.
            return
        before, self._step = self._step, trainer.global_step
        if before == self._first:
            self.profiler.restart(pl_module.device.type == "cuda")
            self._since = self._clock()
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self._step // every == before // every:
            return
        self._note()
        share = self._take(trainer).share
        pl_module.log(KEY, share, logger=False)
        # Not by Lightning, which does it after the step's checkpoint, and the row of
        # the step's other figures, which are logged within it.
        for logger in trainer.loggers:
            logger.log_metrics({KEY: share}, self._step - 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._note()
        self._since = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let it go on."""
        self._since = self._clock()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up what was not logged any more."""
        self._note(wait=True)
        self._take(trainer)
        self._since = None

    def _note(self, wait: bool = False) -> None:
        """Add the seconds since the clock began to the interval."""
        if self._since is None:
            return
        now = self._clock()
        self._interval += Waits(self.profiler.take(wait), now - self._since)
        self._since = now

    def _take(self, trainer: Trainer) -> Waits:
        """Return the interval of the rank that waited most, and begin another."""
        taken, self._interval = self._interval, Waits()
        if trainer.world_size > 1:
            seconds = torch.tensor(
                [taken.waited, taken.total],
                dtype=torch.float64,
                device=trainer.strategy.root_device,
            )
            taken = Waits(*trainer.strategy.reduce(seconds, reduce_op="max").tolist())
        self.waits += taken
        return taken
