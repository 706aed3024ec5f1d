"""What a training step costs beside a plain loop: ``--parts step``.

A fit runs as ever, with its loggers, callbacks and averaged weights. Every few steps it
stops, and a loop without any of these takes as many steps with the same network, frames
and optimizer. So both meet the same load of the machine, and no start is counted.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.fit.options import complete, instantiate, plain
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.rows import codec_configs, model_arguments, parsed
from lightning_modules.base import CodecModule

VARIANTS = {
    "fit": ([], "at most 1.05"),
    "fit --trainer.compile true": (["--trainer.compile=true"], "at most 0.8"),
    "fit --trainer.channels_last true": (["--trainer.channels_last=true"], ""),
}
"""What is compared with the loop, with further options and the goal of the ratio."""

QUICK = ("fit",)
"""Variants of the small form: to compile takes minutes."""

WARM_UP = 2
"""Steps of each before any is timed: kernels are chosen, and compiled."""

SHAPES: dict[str, dict[str, Any]] = {
    "small": {"size": "tiny", "frames": 3, "crop": 64, "batch": 2, "turns": 2},
    "full": {"size": "small", "frames": 5, "crop": 128, "batch": 16, "turns": 7},
}
"""By form; a row of a configuration keeps what is less than this."""


class Turns(Callback):
    """Lets a plain loop run between a fit's steps, and times both.

    Args:
        loop: Returns what takes one step of the plain loop, given the fit's trainer.
        turns: How often each runs.
        steps: Steps of a turn.
        clock: Gives seconds.
    """

    def __init__(
        self,
        loop: Callable[[Trainer], Callable[[], object]],
        turns: int,
        steps: int,
        clock: Callable[[], float],
    ) -> None:
        self.loop, self.turns, self.steps, self.clock = loop, turns, steps, clock
        self.own: list[float] = []
        self.plain: list[float] = []
        self._step: Callable[[], object] | None = None
        self._began = 0.0

    @property
    def needed(self) -> int:
        """Steps of a fit in which all turns have room."""
        return WARM_UP + self.turns * self.steps + 1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Stop the fit's clock where a turn ends, and take the loop's turn."""
        done = trainer.global_step - WARM_UP
        if done < 0 or done % self.steps or len(self.plain) > self.turns:
            return
        if done:
            self.own.append((self.clock() - self._began) / self.steps)
        if self._step is None:
            self._step = self.loop(trainer)
            for _ in range(WARM_UP):
                self._step()
        begun = self.clock()
        for _ in range(self.steps):
            self._step()
        self._began = self.clock()
        self.plain.append((self._began - begun) / self.steps)

    @property
    def ratio(self) -> float:
        """Median over turns of the fit's seconds by those of the loop around them."""
        around = zip(self.own, self.plain, self.plain[1:], strict=False)
        return median(2 * own / (before + after) for own, before, after in around)


def plain_loop(module: CodecModule, clip_norm: float) -> Callable[[Trainer], Any]:
    """Return a loop as one writes it by hand, on the data of a fit.

    Args:
        module: Has the network and says the loss; started with the fit's row.
        clip_norm: As the fit has it.
    """

    def start(trainer: Trainer) -> Callable[[], object]:
        device = trainer.strategy.root_device
        module.to(device).train()
        optimizer = torch.optim.AdamW(
            module.weight_groups(), lr=1e-4, fused=device.type == "cuda"
        )
        batches: Iterator[Any] = iter(trainer.train_dataloader)  # type: ignore[arg-type]

        def step() -> None:
            batch = next(batches)
            clip = batch["clip"].to(device, non_blocking=True).float() / 255
            draw = module.draw(clip, batch["index"], training=True).to(device)
            out = module.codec(draw.clip, draw.rate, **draw.conditions)
            loss = module.loss(module.terms(draw, out))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.codec.parameters(), clip_norm)
            optimizer.step()

        return step

    return start


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure each configuration's last row that trains whole clips, capped."""
    chosen = [v for v in VARIANTS if v in QUICK or settings.form == "full"]
    for config in codec_configs():
        for number, variant in enumerate(chosen):
            more, goal = VARIANTS[variant]
            name = f"{config}, {variant} beside a plain loop"
            run = f"{config}{number}"
            try:
                turns, note = _compare(config, more, run, settings)
            except ValueError as error:
                yield Figure(name, None, "ratio", goal, error=str(error))
                continue
            if not number:
                own = f"{config}, step of a plain loop"
                yield Figure(own, median(turns.plain), "s/step", "", note)
            yield Figure(name, turns.ratio, "ratio", goal, note)


def _compare(
    config: str, more: list[str], run: str, settings: Settings
) -> tuple[Turns, str]:
    shape = SHAPES[settings.form]
    accelerator = "gpu" if settings.device == "cuda" else "cpu"
    arguments = [
        *model_arguments(config, shape["size"]),
        *(f"--{option}" for option in ("logger=csv", f"run={run}")),
        f"--runs_dir={settings.scratch / 'runs'}",
        f"--trainer.accelerator={accelerator}",
        *("--trainer.devices=1", "--trainer.threads=1", "--trainer.precision=32-true"),
        "--trainer.log_every_n_steps=5",
        f"--shrink.frames={shape['frames']}",
        f"--shrink.crop={shape['crop']}",
        f"--shrink.batch_size={shape['batch']}",
        *("--shrink.total_steps=1", "--shrink.lr_scale=1"),
    ]
    _, written = parsed(arguments)
    row = [stage for stage in written.stages if stage.unroll == "clip"][-1]
    arguments += [f"--from_stage={row.name}", f"--to_stage={row.name}"]
    clock = _gpu_clock if settings.device == "cuda" else time.process_time
    turns = Turns(lambda trainer: lambda: None, shape["turns"], 2, clock)
    arguments += [f"--shrink.min_steps={turns.needed}"]
    parser, parsed_options = parsed(arguments)
    for each in parsed_options.stages:
        # Not by --stages.NAME.precision: a row may be called as every row is.
        each.precision = None
    torch.manual_seed(parsed_options.seed)
    beside = instantiate(parser, parsed_options).model
    torch.manual_seed(parsed_options.seed)
    mine = instantiate(parser, parsed_options)

    from experiments.fit.run import schedule, train

    stages, first = schedule(mine)
    beside.start_stage(stages[first], first, len(stages), 0)
    turns.loop = plain_loop(beside, stages[first].clip_norm or mine.trainer.clip_norm)
    options = plain(parser, parsed_options)
    threads = torch.get_num_threads()
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            # There is no validation.
            warnings.simplefilter("ignore")
            train(options, mine, partial(complete, parser), [turns])
    finally:
        torch.set_num_threads(threads)
    stage = stages[first]
    return turns, (
        f"{shape['size']}, row {stage.name}: {stage.batch_size} clips of "
        f"{stage.frames} frames, {stage.crop}x{stage.crop}; float32, {settings.device}"
        f"{', 1 thread, CPU seconds' if settings.device == 'cpu' else ''}; "
        f"{turns.turns} turns of {turns.steps} steps"
    )


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
