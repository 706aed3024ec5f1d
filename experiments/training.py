"""The stages of a run, one ``Trainer.fit`` each."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datamodules.video import VideoDataModule
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from callbacks.checkpoints import (
    AtomicCheckpointIO,
    FinalValidation,
    StageCheckpoints,
)
from callbacks.clip_logger import ClipLogger
from callbacks.ema import CodecEMA
from callbacks.guards import (
    RankDivergenceGuard,
    RateCollapseGuard,
    RealBitsGuard,
    StepGuard,
)
from callbacks.interrupt import SaveOnSignal
from callbacks.metrics import QualityMetrics
from callbacks.progress import StageProgress
from experiments.options import TrackingOptions, TrainerOptions
from experiments.run_folder import RunFolder
from experiments.summary import summary
from experiments.tracking import close_loggers, make_loggers, sync_hint
from experiments.weights import init_from
from lightning_modules import codec_weights
from lightning_modules.base import CodecModule
from lightning_modules.stages import Stage, check_stages


def train(options: dict[str, Any], config: Namespace) -> int:
    """Run every stage that is not finished.

    Args:
        options: All options as plain values: what is stored and compared.
        config: The same, with classes instantiated.

    Returns:
        0, or 128 + the number of the signal that stopped it.

    Raises:
        ValueError: The options do not fit together, or not with the run's folder.
    """
    stages = schedule(config)
    folder = RunFolder(Path(options["runs_dir"]) / options["run"])
    if _is_rank_zero():
        folder.check(options)
    module: CodecModule = config.model
    for index, stage in enumerate(stages):
        # All rows are checked before the first one has cost a day.
        module.start_stage(stage, index, len(stages), 0)
    done = [folder.steps_done(stage.name) for stage in stages]
    if config.init_from and not any(steps is not None for steps in done):
        report = init_from(module.codec, config.init_from)
        if _is_rank_zero():
            print(report)
    if _is_rank_zero():
        folder.write_config(options)
    run = Run(folder, module, config, options, stages)
    try:
        received = run.go_on(done)
    finally:
        close_loggers(run.loggers)
    if _is_rank_zero():
        print(summary(folder, stages, received, sync_hint(folder.path)))
        if report := config.data.failure_report():
            print(report)
    return 128 + received if received else 0


def _is_rank_zero() -> bool:
    # From the environment, so it holds before any Trainer exists.
    return rank_zero_only.rank == 0  # type: ignore[attr-defined,no-any-return]


def schedule(config: Namespace) -> list[Stage]:
    """Return the rows that this run has, capped if it is a rehearsal.

    Raises:
        ValueError: There are none, two share a name, or ``--from_stage`` names none.
    """
    stages: list[Stage] = list(config.stages or [])
    check_stages(stages)
    if config.from_stage:
        names = [stage.name for stage in stages]
        if config.from_stage not in names:
            raise ValueError(
                f"--from_stage {config.from_stage!r} is no stage: choose from {names}"
            )
        stages = stages[names.index(config.from_stage) :]
    return config.shrink.apply(stages) if config.shrink else stages


class Run:
    """One run: its module, its data and its loggers go through all stages.

    Args:
        folder: Where it lies.
        module: What trains.
        config: Instantiated options.
        options: The same as plain values, for the loggers.
        stages: The rows, in order.
    """

    def __init__(
        self,
        folder: RunFolder,
        module: CodecModule,
        config: Namespace,
        options: dict[str, Any],
        stages: list[Stage],
    ) -> None:
        self.folder = folder
        self.module = module
        self.data: VideoDataModule = config.data
        self.trainer_options: TrainerOptions = config.trainer
        self.tracking: TrackingOptions = config.tracking
        self.seed: int = config.seed
        self.stages = stages
        if self.trainer_options.threads:
            torch.set_num_threads(self.trainer_options.threads)
        self.loggers = make_loggers(
            folder.path,
            self.tracking.logger,
            project=self.tracking.project,
            name=options["run"],
            group=self.tracking.group,
            tags=[type(module).__name__, *self.tracking.tags],
            config=options,
        )

    def go_on(self, done: Sequence[int | None]) -> int | None:
        """Run what is not finished; return the signal that stopped it, if any."""
        first = 0
        for index, (stage, steps) in enumerate(zip(self.stages, done, strict=True)):
            if steps is not None and steps >= stage.steps:
                first = index + 1
        if first and first < len(self.stages):
            self._load_weights(self.folder.last(self.stages[first - 1].name))
        offset = sum(stage.steps for stage in self.stages[:first])
        for index in range(first, len(self.stages)):
            received = self._fit(index, offset, done[index])
            if received:
                return received
            offset += self.stages[index].steps
        return None

    def _load_weights(self, path: Path) -> None:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint.pop("ema", None)
        self.module.codec.load_state_dict(codec_weights(checkpoint))

    def _fit(self, index: int, offset: int, done: int | None) -> int | None:
        stage = self.stages[index]
        seed_everything(self.seed, workers=True, verbose=False)
        self.module.start_stage(stage, index, len(self.stages), offset)
        self.data.start_stage(
            index, stage.frames, stage.crop, stage.batch_size, **stage.data
        )
        for logger in self.loggers:
            logger.start_stage(stage.name, offset, done or 0)
        last = self.folder.last(stage.name)
        interrupt = SaveOnSignal(last)
        trainer = self._trainer(stage, [*self._callbacks(stage), interrupt])
        trainer.fit(
            self.module,
            datamodule=self.data,
            ckpt_path=None if done is None else str(last),
            weights_only=True,
        )
        return interrupt.received

    def _val_interval(self, stage: Stage) -> int:
        return min(self.trainer_options.val_every_n_steps, stage.steps)

    def _callbacks(self, stage: Stage) -> list[Callback]:
        options, tracking = self.trainer_options, self.tracking
        callbacks: list[Callback] = [
            StepGuard(options.clip_norm, options.max_bad_steps),
            RankDivergenceGuard(options.check_ranks_every_n_steps),
            RateCollapseGuard(),
            QualityMetrics(tracking.metrics, tracking.lpips_net),
        ]
        if options.ema_decay is not None:
            # First, so that every other callback sees the averaged weights.
            callbacks.insert(0, CodecEMA(options.ema_decay))
        if tracking.real_bits_every_n_validations:
            callbacks.append(RealBitsGuard(tracking.real_bits_every_n_validations))
        if tracking.strips_every_n_validations and tracking.logger != "none":
            callbacks.append(
                ClipLogger(self.folder.path, tracking.strips_every_n_validations)
            )
        directory = self.folder.path / stage.name
        checkpoints = StageCheckpoints(directory, options.save_every_n_steps)
        return [*callbacks, checkpoints, FinalValidation(), StageProgress()]

    def _trainer(self, stage: Stage, callbacks: list[Callback]) -> Trainer:
        options = self.trainer_options
        plugins: list[Any] = [AtomicCheckpointIO()]
        if SLURMEnvironment.detect():
            # Requeuing is the job script's; Lightning's own can die in mid-save.
            plugins.append(SLURMEnvironment(auto_requeue=False))
        return Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            precision=stage.precision or options.precision,  # type: ignore[arg-type]
            deterministic=options.deterministic,
            max_steps=stage.steps,
            max_epochs=-1,
            accumulate_grad_batches=options.accumulate_grad_batches,
            log_every_n_steps=options.log_every_n_steps,
            val_check_interval=(
                self._val_interval(stage) * options.accumulate_grad_batches
            ),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=self.loggers or False,
            callbacks=callbacks,
            plugins=plugins,
            default_root_dir=os.fspath(self.folder.path),
        )
