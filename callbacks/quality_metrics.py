"""Quality of reconstructions on validation and test clips, averaged over all ranks."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from callbacks.metrics.brisque import brisque, check_brisque
from callbacks.metrics.distribution import (
    FEWEST_SAMPLES,
    FID,
    KID,
    POOLED_NAMES,
    SAMPLES,
    Inception,
    to_8_bit,
)
from callbacks.metrics.quality import (
    Lpips,
    UnavailableMetricError,
    lpips_file,
    ms_ssim,
    psnr,
    psnr_yuv,
)
from callbacks.metrics.temporal import tlp, tof
from lightning_modules.base import ValidationResult, bits_to_bpp

FAST_METRICS = ("psnr", "psnr_yuv", "ms_ssim", "bpp", "lpips")

POOLED_METRICS = tuple(name for names in POOLED_NAMES.values() for name in names)

METRICS = (*FAST_METRICS, "tof", "tof_teco", "tlp", "brisque", *POOLED_METRICS)

PERCEPTUAL = ("lpips", "tlp")


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
        names: Which of ``METRICS``. ``fid`` and ``kid`` are of whole frames, their
            namesakes with 256 of squares, of all clips of a point together. What
            cannot be measured here is reported once and left out, never 0.
        lpips_net: Backbone of ``lpips`` and ``tlp``.

    Raises:
        ValueError: A name or the backbone is unknown.
    """

    def __init__(
        self,
        names: Sequence[str] = FAST_METRICS,
        lpips_net: Literal["alex", "vgg", "squeeze"] = "alex",
    ) -> None:
        unknown = sorted(set(names) - set(METRICS))
        if unknown:
            raise ValueError(f"no metrics {unknown}, choose from {list(METRICS)}")
        lpips_file(lpips_net)
        self.names = list(names)
        self.lpips_net = lpips_net
        self.unavailable: dict[str, str] = {}
        self.cautions: dict[str, str] = {}
        self._metrics: dict[str, Metric] = {}
        self._missing: set[str] = set()
        self._lpips: Lpips | None = None
        self._inception: Inception | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the networks that are needed, or report what they lack."""
        for names, load in (
            (PERCEPTUAL, self._load_lpips),
            (("brisque",), check_brisque),
            (POOLED_METRICS, self._load_inception),
        ):
            wanted = [name for name in self.names if name in names]
            if not wanted:
                continue
            try:
                load()
            except UnavailableMetricError as error:
                self._missing.update(wanted)
                for name in wanted:
                    self._report(name, str(error))

    def _load_lpips(self) -> None:
        self._lpips = self._lpips or Lpips(self.lpips_net)

    def _load_inception(self) -> None:
        self._inception = self._inception or Inception()

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Forget the previous clips."""
        self._metrics = {}

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
        # All points of a clip are compared with the same source.
        of_sources: dict[tuple[int, str], Tensor] = {}
        for result in outputs:
            for name in self.names:
                if name not in (*self._missing, *POOLED_METRICS):
                    self._add(name, result, pl_module.device)
            for kind, names in POOLED_NAMES.items():
                wanted = set(names) & set(self.names) - self._missing
                if wanted:
                    self._pool(kind, wanted, result, of_sources)

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Log the means over all ranks."""
        split = "test" if trainer.testing else "val"
        by_name: dict[str, list[Tensor]] = {}
        for key in self._keys_of_all_ranks():
            name = key.split("/")[-1]
            metric = self._metric(key, pl_module.device)
            if not metric.update_called:
                metric.update(*self._nothing(name, pl_module.device))
            try:
                value = metric.compute()
            except UnavailableMetricError as error:
                # On all ranks alike: they have gathered the same samples.
                self._report(name, f"{key}: {error}")
                continue
            if isinstance(metric, FID) and metric.samples < FEWEST_SAMPLES:
                self._caution(name, metric.samples)
            by_name.setdefault(name, []).append(value)
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
        self._metric(f"{result.point}/{name}", device).update(values)

    def _pool(
        self,
        kind: str,
        names: set[str],
        result: ValidationResult,
        of_sources: dict[tuple[int, str], Tensor],
    ) -> None:
        """Add a clip to metrics that compare features of the same samples."""
        assert self._inception is not None
        source = (id(result.clip), kind)
        try:
            decoded = self._inception(SAMPLES[kind](to_8_bit(result.x_hat)))
            if source not in of_sources:
                samples = SAMPLES[kind](to_8_bit(result.clip))
                of_sources[source] = self._inception(samples)
        except UnavailableMetricError as error:
            for name in names:
                self._report(name, f"{error}; clips like {result.name} are left out")
            return
        for name in names:
            metric = self._metric(f"{result.point}/{name}", decoded.device)
            metric.update(decoded, of_sources[source])

    def _metric(self, key: str, device: torch.device) -> Metric:
        """Return the metric with this key, a new one if it has none yet."""
        if key not in self._metrics:
            name = key.split("/")[-1]
            if name not in POOLED_METRICS:
                metric: Metric = FrameMean()
            else:
                assert self._inception is not None
                kind = FID if name.startswith("fid") else KID
                metric = kind(self._inception.size)
            self._metrics[key] = metric.to(device)
        return self._metrics[key]

    def _nothing(self, name: str, device: torch.device) -> list[Tensor]:
        """Return what a metric is updated with on a rank that has no clip."""
        if name not in POOLED_METRICS:
            return [torch.empty(0, device=device)]
        assert self._inception is not None
        return [torch.empty(0, self._inception.size, device=device)] * 2

    def _measure(self, name: str, result: ValidationResult) -> Tensor:
        if name == "bpp":
            return bits_to_bpp(result.bits.float(), result.clip)
        if name == "brisque":
            return brisque(result.x_hat)
        if name in ("tof", "tof_teco", "tlp") and result.clip.shape[1] < 2:
            raise UnavailableMetricError(f"{name} needs clips of at least two frames")
        if name in PERCEPTUAL:
            assert self._lpips is not None
            if name == "tlp":
                return tlp(result.x_hat, result.clip, self._lpips)
            return self._lpips(result.x_hat, result.clip)
        if name.startswith("tof"):
            return tof(result.x_hat, result.clip, "dis" if name == "tof" else "teco")
        function = {"psnr": psnr, "psnr_yuv": psnr_yuv, "ms_ssim": ms_ssim}[name]
        return function(result.x_hat, result.clip)

    def _report(self, name: str, reason: str) -> None:
        if name not in self.unavailable:
            self.unavailable[name] = reason
            rank_zero_warn(f"metric unavailable: {reason}", category=UserWarning)

    def _caution(self, name: str, samples: int) -> None:
        if name not in self.cautions:
            self.cautions[name] = (
                f"{name} is of {samples} samples, below {FEWEST_SAMPLES} biased upwards"
            )
            rank_zero_warn(self.cautions[name], category=UserWarning)

    def _keys_of_all_ranks(self) -> list[str]:
        """Return one list of keys for all ranks: each key is a collective."""
        keys = set(self._metrics)
        if dist.is_available() and dist.is_initialized():
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, keys)
            keys = set().union(*gathered)
        return sorted(keys)
