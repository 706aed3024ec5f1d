"""Quality of reconstructions on validation and test clips, averaged over all ranks."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.utilities import dim_zero_cat

from callbacks.metrics.distribution import SAMPLES, Inception, Samples, to_8_bit
from callbacks.metrics.table import FAST_METRICS, validation_metrics
from lightning_modules.base import ValidationResult, bits_to_bpp
from lightning_modules.perceptual import UnavailableMetricError


class QualityMetrics(Callback):
    """Measure reconstructions on validation and test clips, and log their means.

    Logs ``<split>/<point>/<name>`` for each rate point and ``<split>/<name>``, the
    mean over the points. Values do not depend on how clips are spread over ranks.

    Args:
        names: Which metrics of the table that have a function, by their names in
            validation, or ``bpp``. ``fid`` and ``kid`` are of whole frames, their
            namesakes with 256 of squares, of all clips of a point together. What
            cannot be measured here is reported once and left out, never 0.
        lpips_net: Backbone of ``lpips`` and ``tlp``.
    """

    def __init__(
        self,
        names: Sequence[str] = FAST_METRICS,
        lpips_net: Literal["alex", "vgg", "squeeze"] = "alex",
    ) -> None:
        self.names = list(names)
        self.unavailable: dict[str, str] = {}
        self._cautioned: set[str] = set()
        known = validation_metrics(lpips_net)
        self._rows = {name: known[name] for name in names if name != "bpp"}
        self._metrics: dict[str, Metric] = {}
        self._inception: Inception | None = None
        self._functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load what is needed, or report what it lacks."""
        self._functions = {}
        for name, row in self._rows.items():
            if reason := row.lacks():
                self._report(name, reason)
                continue
            self._functions[name] = row.load()
            if row.pooled:
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
        # Shared by the metrics, and the sources' by all points of a clip.
        features: dict[tuple[int, str], Tensor] = {}
        for result in outputs:
            if not result.decoded:
                continue
            if "bpp" in self.names:
                bpp = bits_to_bpp(result.bits.float(), result.clip)
                self._metric(f"{result.point}/bpp", pl_module.device).update(bpp)
            for name in self._functions:
                try:
                    values = self._values(name, result, features)
                except UnavailableMetricError as error:
                    reason = f"{error}; clips like {result.name} are left out"
                    self._report(name, reason)
                    continue
                self._metric(f"{result.point}/{name}", pl_module.device).update(*values)

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
                metric.update(*self._nothing(metric, pl_module.device))
            try:
                value = metric.compute()
            except UnavailableMetricError as error:
                # On all ranks alike: they have gathered the same samples.
                self._report(name, f"{key}: {error}")
                continue
            if isinstance(metric, Pooled):
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

    def _values(
        self,
        name: str,
        result: ValidationResult,
        features: dict[tuple[int, str], Tensor],
    ) -> list[Tensor]:
        """Return what a clip adds to a metric: its values, or features of both sides.

        ``features`` keeps those of the batch, by clip and kind of sample.
        """
        row = self._rows[name]
        if row.per_frame:
            if row.pairs and result.clip.shape[1] < 2:
                raise UnavailableMetricError(
                    f"{name} needs clips of at least two frames"
                )
            return [self._functions[name](result.x_hat, result.clip)]
        assert self._inception is not None
        found = []
        for clip in (result.x_hat, result.clip):
            key = (id(clip), row.pooled)
            if key not in features:
                features[key] = self._inception(SAMPLES[row.pooled](to_8_bit(clip)))
            found.append(features[key])
        return found

    def _metric(self, key: str, device: torch.device) -> Metric:
        """Return the metric with this key, a new one if it has none yet."""
        if key not in self._metrics:
            row = self._rows.get(key.split("/")[-1])
            if row and row.pooled:
                assert self._inception is not None
                metric: Metric = Pooled(row.load(), self._inception.size).to(device)
            else:
                metric = MeanMetric(nan_strategy="disable").to(device)
                # Last: moving a metric would round what it is given to float32.
                metric.set_dtype(torch.float64)
            self._metrics[key] = metric
        return self._metrics[key]

    def _nothing(self, metric: Metric, device: torch.device) -> list[Tensor]:
        """Return what a metric is updated with on a rank that has no clip."""
        if isinstance(metric, Pooled):
            return [torch.empty(0, metric.size, device=device)] * 2
        return [torch.empty(0, device=device)]

    def _report(self, name: str, reason: str) -> None:
        if name not in self.unavailable:
            self.unavailable[name] = reason
            rank_zero_warn(f"metric unavailable: {reason}")

    def _caution(self, name: str, samples: int) -> None:
        """Say once if a metric is of so few samples that it is biased."""
        fewest = self._rows[name].fewest_samples
        if samples < fewest and name not in self._cautioned:
            self._cautioned.add(name)
            rank_zero_warn(
                f"{name} is of {samples} samples, below {fewest} biased upwards"
            )

    def _keys_of_all_ranks(self) -> list[str]:
        """Return one list of keys for all ranks: each key is a collective."""
        keys = set(self._metrics)
        if dist.is_available() and dist.is_initialized():
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, keys)
            keys = set().union(*gathered)
        return sorted(keys)


class Pooled(Metric):
    """A distance of all samples of all ranks; :meth:`update` takes features.

    Args:
        distance: Of the source's samples and the decoded ones.
        size: Features of a sample.

    Attributes:
        samples: Samples of one kind, of all ranks; known once it is computed.
    """

    full_state_update = False
    source: list[Tensor]
    decoded: list[Tensor]

    def __init__(
        self, distance: Callable[[Samples, Samples], float], size: int = 2048
    ) -> None:
        super().__init__()
        self.distance = distance
        self.size = size
        self.samples = 0
        self.add_state("source", [], dist_reduce_fx="cat")
        self.add_state("decoded", [], dist_reduce_fx="cat")

    def update(self, decoded: Tensor, source: Tensor) -> None:
        """Add features (N, D) of both kinds, also none."""
        self.source.append(source.float())
        self.decoded.append(decoded.float())

    def compute(self) -> Tensor:
        """Return the distance, float64.

        Raises:
            UnavailableMetricError: There are too few samples.
        """
        kinds = [
            dim_zero_cat(own).reshape(-1, self.size)
            for own in (self.source, self.decoded)
        ]
        self.samples = min(map(len, kinds))
        distance = self.distance(*(Samples([v.cpu().numpy()]) for v in kinds))
        return torch.tensor(distance, dtype=torch.float64, device=kinds[0].device)
