"""How far a run is: a bar on a terminal, a line now and then in a log file."""

import time
from datetime import timedelta
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from callbacks.data_wait import KEY, LARGE
from lightning_modules.base import CodecModule

REFRESH_SECONDS = 0.25
FIGURES = {
    "loss": "loss {:.4g}",
    "bpp": "{:.4f} bpp",
    "psnr": "{:.2f} dB",
    "frames_per_second": "{:.1f} frames/s",
}
VALIDATION_FIGURES = {
    "loss": "loss {:.4g}",
    "bpp": "{:.4f} bpp",
    "real_bpp": "{:.4f} real bpp",
    "psnr": "{:.2f} dB",
    "psnr_yuv": "{:.2f} dB YUV",
    "ms_ssim": "MS-SSIM {:.4f}",
    "lpips": "LPIPS {:.4f}",
    "fid": "FID {:.2f}",
    "tof": "tOF {:.3f} px",
    "tlp": "tLP {:.4f}",
}


class StageProgress(ProgressBar):
    """Show stage, step, loss, bpp, PSNR, throughput, and the time left.

    That is the stage's, then that of all stages. Later ones are reckoned from the pace
    of this one, so it is a guess until the last stage runs.

    Takes the place of Lightning's bar. Speaks on rank 0 only.

    Args:
        seconds: Time between two lines where the output is no terminal.
        console: Where to write; standard output by default.
        later: The work of the stages after this one, in steps of this one.
    """

    def __init__(
        self,
        seconds: float = 10.0,
        console: Console | None = None,
        later: float = 0.0,
    ) -> None:
        super().__init__()
        self.seconds = seconds
        self.later = later
        # A log file has no width at which a line should break.
        self.console = console or Console(highlight=False)
        self._enabled = True
        self._bar: Progress | None = None
        self._began = (0.0, 0)
        self._shown = 0.0
        self._logged = -1
        self._texts: list[str] = []

    def enable(self) -> None:
        """Speak."""
        self._enabled = True

    def disable(self) -> None:
        """Be silent, as on every rank but 0."""
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            self.console.print(*args, soft_wrap=True, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show where the stage begins or goes on."""
        step = trainer.global_step
        self._began = (time.monotonic(), step)
        self._shown, self._logged, self._texts = 0.0, -1, []
        if not self._enabled:
            return
        if not self.console.is_terminal:
            going_on = f", going on at step {step}" if step else ""
            self.print(f"{_title(pl_module)}: {trainer.max_steps} steps{going_on}")
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,}/{task.total:,}"),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            refresh_per_second=1 / REFRESH_SECONDS,
        )
        self._bar.add_task(
            _title(pl_module), total=trainer.max_steps, completed=step, figures=""
        )
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Show the step, where it is time to."""
        now = time.monotonic()
        pause = self.seconds if self._bar is None else REFRESH_SECONDS
        last = trainer.global_step == trainer.max_steps
        if not self._enabled or (now - self._shown < pause and not last):
            return
        self._shown = now
        step = trainer.global_step
        # Reading figures waits for the device: only once for each logged step.
        if (logged := step // trainer.log_every_n_steps) != self._logged:  # type: ignore[attr-defined]
            self._logged = logged
            self._texts = _figures(trainer, "train", FIGURES)
            if (wait := float(trainer.callback_metrics.get(KEY, 0.0))) >= LARGE:
                self._texts.append(f"{wait:.0%} waiting for data")
        text = "  ".join([*self._texts, self._time_left(trainer)])
        if self._bar is None:
            self.print(f"{_title(pl_module)}  {step}/{trainer.max_steps}  {text}")
        else:
            self._bar.update(self._bar.task_ids[0], completed=step, figures=text)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last validation's figures: some are not measured each time."""
        for name in [n for n in trainer.callback_metrics if n.startswith("val/")]:
            del trainer.callback_metrics[name]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the validation's means."""
        figures = _figures(trainer, "val", VALIDATION_FIGURES)
        if figures:
            step = trainer.global_step
            title = f"{_title(pl_module)}  validation at step {step}"
            self.print(f"{title}  {'  '.join(figures)}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self.on_train_end(trainer, pl_module)

    def _time_left(self, trainer: Trainer) -> str:
        """Return the remaining time, validations counted in."""
        began, first = self._began
        done = max(1, trainer.global_step - first)
        per_step = (time.monotonic() - began) / done
        left = max(0, trainer.max_steps - trainer.global_step)
        text = f"{timedelta(seconds=round(per_step * left))} left"
        if self.later:
            whole = timedelta(seconds=round(per_step * (left + self.later)))
            text += f", {whole} in all stages"
        return text


def _title(pl_module: LightningModule) -> str:
    module = cast(CodecModule, pl_module)
    stage = f"{module.stage_index + 1}/{module.stage_count} {module.stage.name}"
    return f"stage {stage}"


def _figures(trainer: Trainer, split: str, formats: dict[str, str]) -> list[str]:
    """Format those of the named figures that have been logged."""
    logged = trainer.callback_metrics
    return [
        form.format(float(logged[f"{split}/{name}"]))
        for name, form in formats.items()
        if f"{split}/{name}" in logged
    ]
