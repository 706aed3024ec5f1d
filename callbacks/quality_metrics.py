"""Quality of reconstructions on validation and test clips, averaged over all ranks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MeanMetric

from callbacks.metrics.pools import Pools
from callbacks.metrics.table import DEFAULT_METRICS, validation_metrics
from callbacks.metrics.temporal import OfChange
from lightning_modules.base import ValidationResult, bits_to_bpp
from lightning_modules.perceptual import UnavailableMetricError
from lightning_modules.ranks import gather, gather_reasons


class QualityMetrics(Callback):
    """Measure reconstructions on validation and test clips, and log their means.

    Logs ``<split>/<point>/<name>`` for each rate point and ``<split>/<name>``, the
    mean over the points; of a pooled metric also ``<split>/<name>_samples``, of how
    many pictures it is. Values do not depend on how clips are spread over ranks.

    Args:
        names: Which metrics of the table that have a function, by their names in
            validation, or ``bpp``. ``fid`` and ``kid`` are of whole frames, their
            namesakes with 256 of squares, of all clips of a point together. What
            cannot be measured on the machine of some rank is reported once and left
            out on all of them, never 0.
        lpips_net: Backbone of ``lpips`` and ``tlp``.
        pooled_every_n_validations: Validations between those that measure the pooled
            metrics. The last of a stage always does, and those outside of a fit; 0 for
            no others.

    Raises:
        ValueError: There is no metric of one of the names.
    """

    def __init__(
        self,
        names: Sequence[str] = DEFAULT_METRICS,
        lpips_net: Literal["alex", "vgg", "squeeze"] = "alex",
        pooled_every_n_validations: int = 1,
    ) -> None:
        self.names = list(names)
        self.pooled_every_n_validations = pooled_every_n_validations
        self.unavailable: dict[str, str] = {}
        known = validation_metrics(lpips_net)
        if unknown := sorted(set(names) - {*known, "bpp"}):
            raise ValueError(f"no metrics {unknown}, choose from {[*known, 'bpp']}")
        self._rows = {name: known[name] for name in names if name != "bpp"}
        self._ready = False
        self._functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
        self._pools: Pools | None = None
        self._cautioned: set[str] = set()
        self._validations = 0
        # Of the running validation.
        self._pooling = False
        self._metrics: dict[str, MeanMetric] = {}
        self._left_out: dict[str, str] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load what is needed, once, or report what any rank lacks of it."""
        self._validations = 0
        if self._ready:
            return
        reasons = {name: row.lacks() for name, row in self._rows.items()}
        lacking = gather_reasons({n: why for n, why in reasons.items() if why})
        self._report(lacking)
        rows = {n: row for n, row in self._rows.items() if n not in lacking}
        self._functions = {n: row.load() for n, row in rows.items() if not row.pooled}
        if pooled := {n: row for n, row in rows.items() if row.pooled}:
            self._pools = Pools(pooled)
        self._ready = True

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Forget the previous clips, and what was logged of them."""
        self._metrics, self._left_out = {}, {}
        # Lightning keeps a figure until it is logged again: a reader would take an old
        # FID for a new one.
        split = "test/" if trainer.testing else "val/"
        for key in [key for key in trainer.callback_metrics if key.startswith(split)]:
            del trainer.callback_metrics[key]
        self._pooling = self._pools is not None and self._is_due(trainer)
        if self._pools is not None:
            self._pools.clear()

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
        # What is found of a source serves all points and all metrics of one kind.
        changes: dict[tuple[int, str], Any] = {}
        results = [result for result in outputs if result.decoded]
        for result in results:
            if "bpp" in self.names:
                bpp = bits_to_bpp(result.bits.float(), result.clip)
                self._metric(f"{result.point}/bpp", pl_module.device).update(bpp)
            for name in self._functions:
                try:
                    values = self._values(name, result, changes)
                except UnavailableMetricError as error:
                    reason = f"{error}; clips like {result.name} are left out"
                    self._left_out.setdefault(name, reason)
                    continue
                self._metric(f"{result.point}/{name}", pl_module.device).update(values)
        if self._pools is not None and self._pooling:
            self._left_out = self._pools.add(results) | self._left_out

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Log the means over all ranks."""
        split = "test" if trainer.testing else "val"
        self._report(gather_reasons(self._left_out))
        by_name: dict[str, list[Tensor]] = {}
        logged: dict[str, Tensor] = {}
        # The same on all ranks: each key is a collective.
        for key in sorted(set[str]().union(*gather(set(self._metrics)))):
            metric = self._metric(key, pl_module.device)
            if not metric.update_called:
                metric.update(torch.empty(0, device=pl_module.device))
            logged[key] = metric.compute()
            by_name.setdefault(key.split("/")[-1], []).append(logged[key])
        if self._pools is not None and self._pooling:
            for point, name, value, reason, samples in self._pools.compute(
                pl_module.device
            ):
                if value is None:
                    self._report({name: f"{point}/{name}: {reason}"})
                    continue
                self._caution(name, samples)
                number = torch.tensor(value, device=pl_module.device)
                logged[f"{point}/{name}"] = number
                logged[f"{name}_samples"] = torch.full_like(number, samples)
                by_name.setdefault(name, []).append(number)
        for name, values in by_name.items():
            logged[name] = torch.stack(values).mean()
        for key, number in logged.items():
            # The ranks hold equal values; syncing them only silences Lightning.
            pl_module.log(f"{split}/{key}", number.float(), sync_dist=True)
        self._validations += 1

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the stage's validations so far."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def _is_due(self, trainer: Trainer) -> bool:
        """Return whether this validation measures the pooled metrics."""
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        every = self.pooled_every_n_validations
        last = trainer.global_step == trainer.max_steps
        return last or (every > 0 and self._validations % every == 0)

    def _values(
        self, name: str, result: ValidationResult, changes: dict[tuple[int, str], Any]
    ) -> Tensor:
        """Return a clip's values.

        ``changes`` keeps how the batch's clips change, by clip and of what.
        """
        if self._rows[name].pairs and result.clip.shape[1] < 2:
            raise UnavailableMetricError(f"{name} needs clips of at least two frames")
        function = self._functions[name]
        if not isinstance(function, OfChange):
            return function(result.x_hat, result.clip)
        both = []
        for clip in (result.x_hat, result.clip):
            key = (id(clip), function.looks_at)
            if key not in changes:
                changes[key] = function.of_clip(clip)
            both.append(changes[key])
        return function.compare(*both)

    def _metric(self, key: str, device: torch.device) -> MeanMetric:
        """Return the mean with this key, a new one if it has none yet."""
        if key not in self._metrics:
            metric = MeanMetric(nan_strategy="disable").to(device)
            # Last: moving a metric would round what it is given to float32.
            metric.set_dtype(torch.float64)
            self._metrics[key] = metric
        return self._metrics[key]

    def _report(self, reasons: Mapping[str, str]) -> None:
        """Say once of each metric why it is not measured; same reasons together."""
        new: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            if name not in self.unavailable:
                self.unavailable[name] = reason
                new.setdefault(reason, []).append(name)
        for reason, names in new.items():
            rank_zero_warn(f"metric unavailable: {', '.join(names)}: {reason}")

    def _caution(self, name: str, samples: int) -> None:
        """Say once if a metric is of so few samples that it is biased."""
        fewest = self._rows[name].fewest_samples
        if samples < fewest and name not in self._cautioned:
            self._cautioned.add(name)
            rank_zero_warn(
                f"{name} is of {samples} samples, below {fewest} biased upwards"
            )
