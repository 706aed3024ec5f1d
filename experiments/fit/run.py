"""The stages of a run, one ``Trainer.fit`` each."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoints import AtomicCheckpointIO, FinalValidation, StageCheckpoints
from callbacks.data_wait import DataWait
from callbacks.ema import CodecEMA
from callbacks.error_accumulation import ErrorAccumulation
from callbacks.guards import (
    DivergedError,
    RankDivergenceGuard,
    RateCollapseGuard,
    RealBitsGuard,
    StepGuard,
    UnusedWeightsGuard,
    ValidationGuard,
)
from callbacks.interrupt import SaveOnSignal
from callbacks.pictures import ClipLogger, MapLogger
from callbacks.progress import StageProgress
from callbacks.quality_metrics import QualityMetrics
from datamodules.video import VideoDataModule
from experiments.cli.command import nearest
from experiments.cli.launcher import is_first_process
from experiments.fit.arithmetic import (
    OneArithmetic,
    comparable,
    computing,
    settle,
    with_former,
)
from experiments.fit.curves.rate_distortion import RateDistortion, reference_for
from experiments.fit.curves.validations import last_validations
from experiments.fit.data_advice import cpus_of_a_device, data_advice
from experiments.fit.loggers.artifacts import CheckpointArtifacts, check_artifacts
from experiments.fit.loggers.choice import close_loggers, make_loggers, uses_wandb
from experiments.fit.loggers.metrics_csv import read_metrics
from experiments.fit.loggers.offline_parts import cut_torn_tails
from experiments.fit.loggers.tensorboard import check_tensorboard
from experiments.fit.loggers.wandb_identity import identity
from experiments.fit.loggers.wandb_run import sync_hint
from experiments.fit.lost import ending_with_rank_zero, naming_lost, tell_of_children
from experiments.fit.options import TrackingOptions, TrainerOptions
from experiments.fit.processes import check_nodes, is_one_of_several, make_trainer
from experiments.fit.quiet import (
    end_loaders,
    loader_errors,
    quieten_lightning,
    show_notes_on_data,
)
from experiments.fit.run_folder import RunFolder, foreign
from experiments.fit.stores import with_fingerprints
from experiments.fit.summary import summary
from experiments.fit.weights import init_from
from experiments.profile.complexity import kmacs_per_pixel
from lightning_modules import codec_weights
from lightning_modules.allocator import keep_freed_memory
from lightning_modules.base import CodecModule
from lightning_modules.compiled import (
    blocks_to_compile,
    check_compiler,
    compile_blocks,
    put_channels_last,
)
from lightning_modules.ranks import part
from lightning_modules.stages import Stage, check_stages


def train(
    options: dict[str, Any],
    config: Namespace,
    complete: Callable[[dict[str, Any]], dict[str, Any]],
    watching: Sequence[Callback] = (),
) -> int:
    """Run every stage that is not finished.

    Args:
        options: All options as plain values: what is stored and compared.
        config: The same, with classes instantiated.
        complete: As :meth:`RunFolder.check` takes it.
        watching: Callbacks of the caller's, which come after the suite's own.

    Returns:
        0, or 128 + the number of the signal that stopped it.

    Raises:
        ValueError: The options do not fit together, or not with the run's folder.
    """
    check_nodes(config.trainer.num_nodes)
    folder = RunFolder.named(options["runs_dir"], options["run"])
    arithmetic = settle(options, config, folder.begun())
    with computing(config.trainer):
        return _train(folder, options, config, complete, arithmetic, watching)


def _train(
    folder: RunFolder,
    options: dict[str, Any],
    config: Namespace,
    complete: Callable[[dict[str, Any]], dict[str, Any]],
    arithmetic: str,
    watching: Sequence[Callback],
) -> int:
    quieten_lightning()
    if is_first_process():
        show_notes_on_data()
        tell_of_children()
    stages, first = schedule(config)
    module: CodecModule = config.model
    done = folder.steps_done(stages)
    numbered = list(zip(stages, done, strict=True))[first:]
    left = [stage for stage, steps in numbered if (steps or 0) < stage.steps]
    check_devices(config.trainer, stages, left)
    if config.trainer.compile:
        blocks_to_compile(module.codec)
    data = VideoDataModule(config.data)
    pixels = []
    for index, stage in enumerate(stages):
        # All rows are checked before the first one has cost a day.
        module.start_stage(stage, index, len(stages), 0)
        batch = stage.batch_size * stage.frames * stage.crop**2
        pixels.append(stage.steps * batch / module.steps_per_batch)
        # Those that still run: the data of finished ones may have gone.
        if index >= first and (done[index] or 0) < stage.steps:
            start_data(data, module, index)
    if not is_one_of_several():
        data.check_stages()
    if module.lacking and not is_one_of_several():
        raise ValueError("; ".join(module.lacking.values()))
    check_artifacts(config.tracking.log_checkpoints, config.logger)
    if config.logger == "tensorboard":
        check_tensorboard()
    clips = {s.name: asdict(config.data.changed(s.data)) for s in stages}
    reference = reference_for(config.tracking, config.logger, module, clips)
    report = ""
    if config.init_from and not any(steps is not None for steps in done):
        report = init_from(module.codec, config.init_from, config.init_from_min_share)
    with folder.lock() if is_first_process() else nullcontext():
        if is_first_process():
            folder.remove_leftovers()
            former = module.codec.former
            options = with_fingerprints(
                options, config.data, stages[first:], folder.begun()
            )
            folder.check(
                comparable(options),
                lambda old: comparable(
                    complete(with_former(without_former(old, former)))
                ),
            )
        # Again, for what another process has done before it gave up the lock.
        done = folder.steps_done(stages)
        if is_first_process():
            if report:
                print(report)
            if goes_on := folder.resumption(stages[first:], done[first:]):
                # At once, also into a file: the first step may take minutes.
                print(goes_on, flush=True)
            counts = zip(stages[first:], done[first:], strict=True)
            if any((steps or 0) < stage.steps for stage, steps in counts):
                print(arithmetic, flush=True)
            folder.write_config(options)
            # Before this process adds a part, while nobody else writes to one.
            cut_torn_tails(folder.path)
        curves = RateDistortion(
            config.tracking,
            folder.path,
            reference,
            clips,
            last_validations(read_metrics(folder.path / "metrics.csv")),
        )
        run = Run(folder, module, data, config, options, stages, pixels, curves)
        run.watching = watching
        try:
            with loader_errors(), ending_with_rank_zero():
                received = run.go_on(first, done)
        finally:
            end_loaders()
            close_loggers(run.loggers)
            run.artifacts.close()
    # All ranks take part in it, one of them prints it.
    skipped = data.failure_report()
    part()
    if is_first_process():
        points = module.codec.rate_knob.points
        rate = points[(len(points) - 1) // 2]
        later = [stage.name for stage in config.stages[len(stages) :]]
        sync = sync_hint(folder.path)
        print(summary(folder, stages[first:], received, sync, rate, later))
        if skipped:
            print(skipped)
        cpus = cpus_of_a_device(run.devices)
        if advice := data_advice(run.data_wait.waits.share, config.data, cpus):
            print(advice)
    return 128 + received if received else 0


def schedule(config: Namespace) -> tuple[list[Stage], int]:
    """Return the rows, capped in a rehearsal, and the number of the first that runs.

    Rows keep their numbers, which their samples follow from: a run that forks from
    another one's stage goes on as that one did.

    Raises:
        ValueError: There are none, two share a name, or ``--from_stage`` and
            ``--to_stage`` name none.
    """
    stages: list[Stage] = list(config.stages or [])
    check_stages(stages)
    if config.shrink:
        stages = config.shrink.apply(stages)
    names = [stage.name for stage in stages]
    ends = {"from_stage": config.from_stage, "to_stage": config.to_stage}
    for option, name in ends.items():
        if name and name not in names:
            raise ValueError(
                f"--{option} {name!r} is no stage{nearest(name, names)}: choose from "
                f"{', '.join(names)}"
            )
    first = names.index(config.from_stage) if config.from_stage else 0
    stop = names.index(config.to_stage) + 1 if config.to_stage else len(names)
    if stop <= first:
        raise ValueError(
            f"--to_stage {config.to_stage!r} comes before --from_stage "
            f"{config.from_stage!r}: the order is {names}"
        )
    return stages[:stop], first


def without_former(
    options: dict[str, Any], former: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an earlier version's options without arguments that are no more.

    Args:
        options: Plain values, as its ``config.yaml`` has them.
        former: Such arguments of the codec. Those with another value than this stay:
            the run trained as this version does not.
    """
    model = options.get("model")
    given = model.get("init_args") if isinstance(model, dict) else None
    if not isinstance(given, dict):
        return options
    kept = {k: v for k, v in given.items() if k not in former or v != former[k]}
    return {**options, "model": {**options["model"], "init_args": kept}}


def check_devices(
    options: TrainerOptions, stages: Sequence[Stage], left: Sequence[Stage]
) -> None:
    """Raise ``ValueError`` if what the rows ask for cannot be trained on this machine.

    Before anything of the run is written, and before other processes are started.

    Args:
        options: Say where it trains.
        stages: All rows.
        left: Those that are not finished.
    """
    for precision in sorted({stage.precision or options.precision for stage in stages}):
        trainer = make_trainer(
            options,
            precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        rows = [s.name for s in left if (s.precision or options.precision) == precision]
        if rows and trainer.precision != precision:
            raise ValueError(
                f"stage {rows[0]!r} trains in {precision}, which there is on GPUs "
                f"only: here it would be {trainer.precision}; choose that or 32-true, "
                "or train where there is a GPU"
            )
    if options.compile:
        check_compiler(trainer.strategy.root_device)
    parts = options.accumulate_grad_batches
    shares = trainer.world_size * parts
    for stage in stages:
        if stage.batch_size % shares:
            raise ValueError(
                f"stage {stage.name!r}: batch_size {stage.batch_size} (over all "
                f"devices) cannot be shared out to {trainer.world_size} devices x "
                f"{parts} accumulated micro-batches: make it a multiple of {shares}"
            )


def start_data(data: VideoDataModule, module: CodecModule, index: int) -> None:
    """Make the data ready for row ``index``, which the module has started.

    Raises:
        ValueError: The data cannot be as the row wants it.
    """
    stage = module.stage
    shape = (stage.frames, stage.crop, stage.batch_size, module.steps_per_batch)
    try:
        data.start_stage(index, *shape, name=stage.name, **stage.data)
    except ValueError as error:
        raise ValueError(f"stage {stage.name!r}: {error}") from error


class Run:
    """One run: its module, its data and its loggers go through all stages.

    Its options are instantiated (``config``) and, for the loggers, as plain values.
    ``pixels`` is the work of each stage, and ``curves`` watches all of them.
    """

    def __init__(
        self,
        folder: RunFolder,
        module: CodecModule,
        data: VideoDataModule,
        config: Namespace,
        options: dict[str, Any],
        stages: list[Stage],
        pixels: list[float],
        curves: RateDistortion,
    ) -> None:
        self.folder = folder
        self.module = module
        self.module.micro_batches = config.trainer.accumulate_grad_batches
        self.data = data
        self.trainer_options: TrainerOptions = config.trainer
        self.tracking: TrackingOptions = config.tracking
        self.seed: int = config.seed
        self.stages = stages
        self.pixels = pixels
        self.curves = curves
        # One for all stages: it loads networks, and says once what is not measured.
        self.metrics = QualityMetrics(
            self.tracking.metrics,
            self.tracking.lpips_net,
            self.tracking.pooled_every_n_validations,
        )
        # One for all stages too: the run's end says how much of it was a wait.
        self.data_wait = DataWait()
        self.devices = 1
        self.watching: Sequence[Callback] = ()
        self.keeps_files = config.logger != "none"
        if self.trainer_options.threads:
            torch.set_num_threads(self.trainer_options.threads)
        keep_freed_memory()
        shown = is_first_process() and uses_wandb(config.logger)
        kmacs = kmacs_per_pixel(module.codec) if shown else {}
        parameters = sum(p.numel() for p in module.codec.parameters())
        self.loggers = make_loggers(
            folder.path,
            config.logger,
            **identity(options, parameters=parameters, **kmacs),
        )
        if self.trainer_options.channels_last:
            put_channels_last(module.codec)
        if self.trainer_options.compile:
            compile_blocks(module.codec)
        choice = self.tracking.log_checkpoints
        self.artifacts = CheckpointArtifacts(folder, choice, self.loggers)

    def go_on(self, begin: int, done: Sequence[int | None]) -> int | None:
        """Run what is not finished; return the signal that stopped it, if any.

        Args:
            begin: Number of the first row that belongs to the run.
            done: Steps that each row's checkpoint holds, ``None`` without one.
        """
        first = begin
        newest: Path | None = None
        for index, (stage, steps) in enumerate(zip(self.stages, done, strict=True)):
            if steps is None or index < begin:
                continue
            newest = self.folder.last(stage.name)
            if steps >= stage.steps:
                first = index + 1
        if newest and first < len(self.stages):
            # Those of a stage that goes on come again with its optimizer's state.
            self._load_weights(newest)
        offset = sum(stage.steps for stage in self.stages[begin:first])
        for stage in self.stages[begin:first]:
            # W&B may lack them: a kill came between, or nobody had asked for them.
            self.artifacts.give(stage)
        for index in range(first, len(self.stages)):
            received = self._fit(index, offset, done[index])
            if received:
                return received
            self.artifacts.give(self.stages[index])
            offset += self.stages[index].steps
        return None

    def _load_weights(self, path: Path) -> None:
        checkpoint = self.folder.load(path)
        checkpoint.pop("ema", None)
        try:
            self.module.codec.load_state_dict(codec_weights(checkpoint))
        except RuntimeError as error:
            raise foreign(path, error) from error

    def _fit(self, index: int, offset: int, done: int | None) -> int | None:
        stage = self.stages[index]
        seed_everything(self.seed, workers=True, verbose=False)
        self.module.start_stage(stage, index, len(self.stages), offset)
        start_data(self.data, self.module, index)
        for logger in self.loggers:
            logger.start_stage(stage.name, offset, done or 0)
        last = self.folder.last(stage.name)
        interrupt = SaveOnSignal(last)
        trainer = self._trainer(stage, [*self._callbacks(stage), interrupt])
        self.devices = trainer.num_devices
        try:
            with naming_lost(trainer):
                trainer.fit(
                    self.module,
                    datamodule=self.data,
                    ckpt_path=None if done is None else str(last),
                    weights_only=True,
                )
        except DivergedError as error:
            kept = self.folder.kept([each.name for each in self.stages[: index + 1]])
            raise DivergedError(f"stage {stage.name!r}: {error}; {kept}") from error
        except SIGTERMException:
            # It came before the first step, when Lightning was listening.
            return int(signal.SIGTERM)
        except SystemExit as end:
            # Lightning ends a fit with code 1 on Ctrl-C.
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from end
            raise
        return interrupt.received

    def _callbacks(self, stage: Stage) -> list[Callback]:
        options, tracking = self.trainer_options, self.tracking
        callbacks: list[Callback] = [
            OneArithmetic(options, stage.precision or options.precision),
            StepGuard(
                stage.clip_norm or options.clip_norm,
                options.max_bad_steps,
                options.skip_factor,
            ),
            UnusedWeightsGuard(),
            ValidationGuard(),
            RankDivergenceGuard(options.check_ranks_every_n_steps),
            RateCollapseGuard(),
            self.metrics,
            ErrorAccumulation(),
            self.data_wait,
            self.curves,
        ]
        if options.ema_decay is not None:
            # First, so that every other callback sees the averaged weights.
            callbacks.insert(0, CodecEMA(options.ema_decay))
        if tracking.real_bits_every_n_validations:
            callbacks.append(RealBitsGuard(tracking.real_bits_every_n_validations))
        if tracking.strips_every_n_validations and self.keeps_files:
            every = tracking.strips_every_n_validations
            callbacks.append(ClipLogger(self.folder.path, every))
            callbacks.append(MapLogger(self.folder.path, every))
        directory = self.folder.path / stage.name
        checkpoints = StageCheckpoints(directory, options.save_every_n_steps)
        index = self.module.stage_index
        step = self.pixels[index] / stage.steps
        progress = StageProgress(later=sum(self.pixels[index + 1 :]) / step)
        own = [*callbacks, checkpoints, FinalValidation(), progress]
        return [*own, *self.watching]

    def _trainer(self, stage: Stage, callbacks: list[Callback]) -> Trainer:
        options = self.trainer_options
        val_interval = min(options.val_every_n_steps, stage.steps)
        # Where units are steps, a batch is several, and the module cuts it itself.
        parts = options.accumulate_grad_batches if stage.unroll == "clip" else 1
        batches = -(-val_interval // self.module.steps_per_batch) * parts
        return make_trainer(
            options,
            stage.precision or options.precision,
            plugins=[AtomicCheckpointIO()],
            profiler=self.data_wait.profiler,
            max_steps=stage.steps,
            max_epochs=-1,
            accumulate_grad_batches=parts,
            log_every_n_steps=options.log_every_n_steps,
            val_check_interval=batches,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=self.loggers or False,
            callbacks=callbacks,
            default_root_dir=os.fspath(self.folder.path),
        )
