"""Quality of reconstructions on validation and test clips, averaged over all ranks."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from callbacks.quality import (
    Lpips,
    UnavailableMetricError,
    lpips_file,
    ms_ssim,
    psnr,
    psnr_yuv,
)
from lightning_modules.base import ValidationResult, bits_to_bpp

METRICS = ("psnr", "psnr_yuv", "ms_ssim", "bpp", "lpips")


class FrameMean(Metric):
    """Mean of a value over all frames of all clips and ranks."""

    full_state_update = False
    total: Tensor
    frames: Tensor

    def __init__(self) -> None:
        super().__init__()
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("total", zero, dist_reduce_fx="sum")
        self.add_state("frames", zero.clone(), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add one value per frame, of any shape, also none."""
        self.total += values.double().sum()
        self.frames += values.numel()

    def compute(self) -> Tensor:
        """Return the mean over frames."""
        return self.total / self.frames


class QualityMetrics(Callback):
    """Measure reconstructions on validation and test clips, and log their means.

    Logs ``<split>/<point>/<name>`` for each rate point and ``<split>/<name>``, the
    mean over the points. Values do not depend on how clips are spread over ranks.

    Args:
        names: Which of ``psnr``, ``psnr_yuv``, ``ms_ssim``, ``bpp`` and ``lpips``.
            What cannot be measured here is reported once and left out, never 0.
        lpips_net: Backbone of ``lpips``.

    Raises:
        ValueError: A name or the backbone is unknown.
    """

    def __init__(
        self,
        names: Sequence[str] = METRICS,
        lpips_net: Literal["alex", "vgg", "squeeze"] = "alex",
    ) -> None:
        unknown = sorted(set(names) - set(METRICS))
        if unknown:
            raise ValueError(f"no metrics {unknown}, choose from {list(METRICS)}")
        lpips_file(lpips_net)
        self.names = list(names)
        self.lpips_net = lpips_net
        self.unavailable: dict[str, str] = {}
        self._means: dict[str, FrameMean] = {}
        self._lpips: Lpips | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the perceptual network, or report what it lacks."""
        if "lpips" in self.names and self._lpips is None:
            try:
                self._lpips = Lpips(self.lpips_net)
            except UnavailableMetricError as error:
                self._report("lpips", str(error))

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Forget the previous clips."""
        self._means = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the clips of one batch."""
        for result in outputs:
            for name in self.names:
                if name != "lpips" or self._lpips is not None:
                    self._add(name, result, pl_module.device)

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Log the means over all ranks."""
        split = "test" if trainer.testing else "val"
        by_name: dict[str, list[Tensor]] = {}
        for key in self._keys_of_all_ranks():
            mean = self._means.get(key)
            if mean is None:
                mean = FrameMean().to(pl_module.device)
                mean.update(torch.empty(0, device=pl_module.device))
            value = mean.compute()
            by_name.setdefault(key.split("/")[-1], []).append(value)
            # The ranks hold equal values; syncing them only silences Lightning.
            pl_module.log(f"{split}/{key}", value.float(), sync_dist=True)
        for name, values in by_name.items():
            mean_of_points = torch.stack(values).mean().float()
            pl_module.log(f"{split}/{name}", mean_of_points, sync_dist=True)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _add(self, name: str, result: ValidationResult, device: torch.device) -> None:
        try:
            values = self._measure(name, result)
        except UnavailableMetricError as error:
            self._report(name, f"{error}; clips like {result.name} are left out")
            return
        key = f"{result.point}/{name}"
        if key not in self._means:
            self._means[key] = FrameMean().to(device)
        self._means[key].update(values)

    def _measure(self, name: str, result: ValidationResult) -> Tensor:
        if name == "bpp":
            return bits_to_bpp(result.bits.float(), result.clip)
        if name == "lpips":
            assert self._lpips is not None
            return self._lpips(result.x_hat, result.clip)
        function = {"psnr": psnr, "psnr_yuv": psnr_yuv, "ms_ssim": ms_ssim}[name]
        return function(result.x_hat, result.clip)

    def _report(self, name: str, reason: str) -> None:
        if name not in self.unavailable:
            self.unavailable[name] = reason
            rank_zero_warn(f"metric unavailable: {reason}", category=UserWarning)

    def _keys_of_all_ranks(self) -> list[str]:
        """Return one list of keys for all ranks: each key is a collective."""
        keys = set(self._means)
        if dist.is_available() and dist.is_initialized():
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, keys)
            keys = set().union(*gathered)
        return sorted(keys)
