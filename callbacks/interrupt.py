"""Stop a fit on a signal without losing a step."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.checkpoints import validation_follows
from lightning_modules.ranks import Votes

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class SaveOnSignal(Callback):
    """Save and stop after the running optimizer step when a signal arrives.

    SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (what a cluster sends ahead of a job's end)
    only set a flag; all ranks agree on it after each step, so one signal to one
    rank is enough. They agree on their CPUs: no step waits for a GPU. The fit then
    returns normally, without a last validation. A second SIGINT raises
    ``KeyboardInterrupt`` at once. A signal during a validation, or in the step before
    one, waits for its end; a process killed before that goes on from the last
    checkpoint, which loses time but changes no result.

    Args:
        path: Where the checkpoint goes.

    Attributes:
        received: The signal that stopped the fit, or came in its last validation;
            or None. Set on every rank.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.received: int | None = None
        self._told: int | None = None
        self._step = 0
        self._votes: Votes | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace Lightning's handlers as soon as it sets them.

        They would raise instead of saving, and on several ranks tell the others by a
        broadcast that waits for the GPU: each rank looks for it before each batch.
        Lightning itself gives every signal back to its former owner when the fit ends,
        whether well or by an error.
        """
        connector: Any = trainer._signal_connector
        loop: Any = trainer.fit_loop.epoch_loop
        register = connector.register_signal_handlers

        def listen() -> None:
            register()
            # Python allows handlers in the main thread only.
            if threading.current_thread() is threading.main_thread():
                for signum in SIGNALS:
                    signal.signal(signum, self._receive)

        connector.register_signal_handlers = listen
        loop._broadcast_sigterm_tensor = lambda: None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where the stage stands, and meet the other ranks."""
        self._step = trainer.global_step
        self._votes = Votes()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Save and stop if any rank received a signal."""
        if not validation_follows(trainer):
            self._stop_if_told(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop if any rank received a signal."""
        self._stop_if_told(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Agree on a signal that came after the last step; the fit is over anyway."""
        self._agree()

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Leave the other ranks."""
        if self._votes is not None:
            self._votes.close()

    def _agree(self) -> bool:
        assert self._votes is not None, "training has begun"
        if self._votes.any(self._told is not None):
            # A rank without a signal of its own stops for the same reason.
            self.received = self._told or int(signal.SIGTERM)
        return self.received is not None

    def _stop_if_told(self, trainer: Trainer) -> None:
        if trainer.global_step == self._step:
            # Amid accumulated batches, whose gradients a checkpoint does not hold.
            return
        self._step = trainer.global_step
        if not self._agree():
            return
        rank_zero_info(
            f"{signal.Signals(self.received or 0).name}: saving {self.path} at step "
            f"{trainer.global_step} and stopping; the same command goes on from there"
        )
        trainer.save_checkpoint(self.path, weights_only=False)
        trainer.should_stop = True
        # Otherwise Lightning would validate before it stops, or train on.
        trainer.limit_val_batches = 0
        trainer.fit_loop.min_epochs = 0
        trainer.fit_loop.epoch_loop.min_steps = 0

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self._told == signal.SIGINT:
            raise KeyboardInterrupt
        self._told = signum
