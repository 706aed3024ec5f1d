"""The one training, validation and test step, for every codec.

A codec's module says what its training draws (:meth:`CodecModule.draw`); everything
else, from the loss to the log keys, is here once.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lightning_modules.codec import CodecOutput, VideoCodec
from lightning_modules.draw import Draw as Draw
from lightning_modules.float32 import uncast
from lightning_modules.interval_means import IntervalMeans
from lightning_modules.losses import TERMS, Losses, find_term
from lightning_modules.optimizer import adamw
from lightning_modules.perceptual import LpipsNet, UnavailableMetricError
from lightning_modules.psnr import psnr
from lightning_modules.ranks import gather_reasons
from lightning_modules.rate_parts import loss_of_frames, nearest_points
from lightning_modules.saved_module import SavedModule
from lightning_modules.stages import UNTRAINED, Stage
from lightning_modules.validation_result import ValidationResult as ValidationResult

Batch = dict[str, Any]


def bits_to_bpp(bits: Tensor, clip: Tensor) -> Tensor:
    """Divide bits by the pixels of a frame of ``clip`` (not of the padded one)."""
    return bits / (clip.shape[-2] * clip.shape[-1])


class CodecModule(SavedModule, ABC):
    """Trains a :class:`VideoCodec`; subclasses say what their training draws.

    The loss is the sum of named terms, each with its weight. ``rate``, ``distortion``
    and the codec's own terms have weight 1 unless the stage says otherwise; a row of
    ``losses.TERMS`` counts where a stage names it, and is scaled as the distortion is.

    Args:
        codec: The network.
        distortion: Name of a row of ``losses.TERMS``: the term ``distortion``.
        weight_decay: Of AdamW.
        lpips: Backbone of LPIPS, where it is weighed: ``alex``, ``vgg`` or ``squeeze``,
            whose weights must be on this machine, or the stand-in ``random``.
        factors: What the paper multiplies a row, or ``distortion``, with. A row that
            has a factor counts in every stage.

    Attributes:
        stage_options: Names of the ``options`` that a stage may set.
        term_weights: Of this stage, by name; 0 for a term that does not count.
        lacking: What terms of the stages begun so far need that is not on this machine,
            by the row's name. :meth:`setup` refuses to train without it.
        steps_per_batch: Optimizer steps of a batch: one, or one for each unit.
        micro_batches: Parts in which a stage that steps after each unit codes a batch;
            in other stages, Lightning accumulates.

    Raises:
        ValueError: There is no such distortion.
    """

    stage_options: tuple[str, ...] = ()

    def __init__(
        self,
        codec: VideoCodec,
        distortion: str,
        weight_decay: float,
        lpips: LpipsNet = "alex",
        factors: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        # Of the subclass's own constructor too, which stands above this one's frame.
        self.save_hyperparameters(ignore=("codec", "factors"), logger=False)
        self.hparams.update(codec.architecture)
        find_term(distortion)
        self.codec = codec
        self.distortion = distortion
        self.losses = Losses(lpips)
        self.factors = factors
        self.weight_decay = weight_decay
        self.lacking: dict[str, str] = {}
        self.micro_batches = 1
        self.start_stage(UNTRAINED, 0, 1, 0)
        self._clock = time.perf_counter()
        self._frames_done = 0
        self._loss_sum = [0.0, 0.0]
        self._figures = IntervalMeans()
        # For figures: the rate points, where batches are, and terms of the last one.
        self._rates = torch.empty(0)
        self._frame_terms: dict[str, Tensor] = {}

    @abstractmethod
    def draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        """Decide what to code of a batch and at which rate.

        Everything random follows from the samples' seeds, so that a sample means the
        same in any batch, on any rank and after any resume. Outside training nothing
        is random and :attr:`Draw.rate` is replaced by each rate point.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1].
            seeds: int64 (B,), on the CPU where the suite's data module gives them,
                wherever the clip is: to read them must not wait for a GPU. What
                follows from them may stay there, too.
            training: Whether to draw references, rates and noise.
        """

    @abstractmethod
    def lmbda(self, rate: Tensor) -> Tensor:
        """Return the Lagrangian (B,) of each rate (B,)."""

    def check_options(self, options: dict[str, Any]) -> None:
        """Raise ``ValueError`` if a stage sets an option that this codec lacks."""
        if unknown := sorted(options.keys() - set(self.stage_options)):
            raise ValueError(
                f"options {unknown} are unknown: {type(self).__name__} has "
                f"{', '.join(map(repr, self.stage_options)) or 'none'}"
            )

    # What a stage sets.

    def start_stage(
        self, stage: Stage, index: int, count: int, finished_steps: int
    ) -> None:
        """Make ready for one row of the schedule, before the Trainer wraps anything.

        Args:
            stage: The row.
            index: Its number, from 0.
            count: Number of rows.
            finished_steps: Steps of the rows before it.

        Raises:
            ValueError: It names a sub-module, an option or a loss term that does not
                exist, or leaves nothing to train.
        """
        self.stage, self.stage_index, self.stage_count = stage, index, count
        self.finished_steps = finished_steps
        try:
            self.check_options(stage.options)
        except ValueError as error:
            raise ValueError(f"stage {stage.name!r}: {error}") from error
        children = dict(self.codec.named_children())
        parts = {**children, **dict(self.codec.named_modules())}
        wrong = [n for n in (*stage.trainable, *stage.frozen) if n not in parts]
        if wrong:
            inner = [n for n in parts if n and n.count(".") <= 1]
            raise ValueError(
                f"stage {stage.name!r} names sub-modules {wrong} that the codec does "
                f"not have: it has {inner}"
            )
        self.term_weights = self._term_weights(stage)
        self.codec.weighed_terms = frozenset(
            name for name in self.codec.loss_terms if self.term_weights[name]
        )
        if stage is not UNTRAINED:
            for name in self._weighed_rows().values():
                if reason := self.losses.lacks(name):
                    self.lacking[name] = reason
        self.codec.requires_grad_(not stage.trainable)
        for name in stage.trainable:
            parts[name].requires_grad_(True)
        for name in stage.frozen:
            parts[name].requires_grad_(False)
        if not any(p.requires_grad for p in self.codec.parameters()):
            raise ValueError(
                f"stage {stage.name!r} trains nothing: trainable {stage.trainable} "
                f"without frozen {stage.frozen} leaves no weight; name fewer in frozen"
            )
        self.codec.checkpoint_activations = stage.checkpoint_activations
        if stage.unroll == "unit" and not self.codec.can_unroll:
            raise ValueError(
                f"stage {stage.name!r}: unroll is 'unit', but {type(self).__name__} "
                "trains on whole clips only: set unroll to clip, or leave it out"
            )
        self.automatic_optimization = stage.unroll == "clip"
        self.steps_per_batch = self._units() if stage.unroll == "unit" else 1

    def _units(self) -> int:
        """Return how many units the stage's clips are coded in."""
        like = self.codec.like
        clip, seed = like.new_zeros(1, self.stage.frames, 3, 1, 1), like.new_zeros(1)
        # Some frames may only be referred to.
        coded = self.draw(clip, seed.long(), training=True).clip.shape[1]
        return -(-coded // self.codec.frames_per_unit)

    def setup(self, stage: str) -> None:
        """Check that every rank has what the losses need, before it trains.

        Raises:
            UnavailableMetricError: Some rank has not; on all ranks alike, so that none
                waits for one that has ended.
        """
        if stage == "fit":
            for reason in gather_reasons(self.lacking).values():
                raise UnavailableMetricError(reason)

    def _term_weights(self, stage: Stage) -> dict[str, float]:
        """Return the weight of each term that a stage logs."""
        own = ("rate", "distortion", *self.factors, *self.codec.loss_terms)
        assert TERMS.keys().isdisjoint(self.codec.loss_terms), "a name means one term"
        unknown = sorted(set(stage.weights) - {*own, *TERMS})
        if unknown:
            raise ValueError(
                f"stage {stage.name!r} weighs loss terms {unknown} that do not exist: "
                f"there are {sorted({*own, *TERMS})}"
            )
        weights = {name: stage.weights.get(name, 1.0) for name in own}
        weights |= {name: weight for name, weight in stage.weights.items() if weight}
        for name, factor in self.factors.items():
            weights[name] *= bool(factor)
        if not any(weights.values()):
            raise ValueError(
                f"stage {stage.name!r} has no loss: it gives each of {list(weights)} "
                "the weight 0"
            )
        return weights

    def _weighed_rows(self) -> dict[str, str]:
        """Return the rows of the table that count, by the name of their term."""
        rows = {name: name for name in TERMS} | {"distortion": self.distortion}
        return {n: rows[n] for n, w in self.term_weights.items() if w and n in rows}

    @property
    def run_step(self) -> int:
        """Optimizer steps since the run began, over all stages."""
        return self.finished_steps + self.trainer.global_step

    def weight_groups(self) -> list[dict[str, Any]]:
        """Return the weights that train, with what differs from AdamW's settings."""
        return self.split_weights([])

    def split_weights(
        self, apart: Iterable[Tensor], **settings: float
    ) -> list[dict[str, Any]]:
        """Return the weights that train, those ``apart`` with settings of their own."""
        apart = set(apart)
        trained = [p for p in self.codec.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p not in apart]}
        ]
        if own := [p for p in trained if p in apart]:
            groups.append({"params": own, **settings})
        return groups

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW over what trains, with the stage's learning rate per step."""
        stage = self.stage
        groups = self.weight_groups()
        optimizer = adamw(groups, lr=stage.lr, weight_decay=self.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: stage.lr_at(step) / stage.lr
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    # The step.

    def _draw(self, clip: Tensor, seeds: Tensor, training: bool) -> Draw:
        return self.draw(clip, seeds, training).to(clip.device)

    def frame_terms(self, draw: Draw, out: CodecOutput) -> dict[str, Tensor]:
        """Return the terms that each frame has its own value of, (B, T)."""
        terms = {"rate": bits_to_bpp(out.bits, draw.clip)}
        for name, row in self._weighed_rows().items():
            d = self.losses(row, draw.clip, out.x_hat) * draw.frame_weights
            terms[name] = draw.lmbda[:, None] * d
        return terms

    def terms(self, draw: Draw, out: CodecOutput) -> dict[str, Tensor]:
        """Return the named loss terms, each a scalar, before their weights.

        What has no weight is not computed, and 0.
        """
        terms = {name: out.bits.new_zeros(()) for name in self.term_weights}
        self._frame_terms = {}
        balance = self.stage.balance if self.training else 0.0
        for name, values in self.frame_terms(draw, out).items():
            factor = self.factors.get(name, 1.0)
            if balance:
                values = values / draw.lmbda[:, None] ** balance
            terms[name] = factor * values.mean()
            self._frame_terms[name] = factor * values.detach()
        return {**terms, **out.terms}

    def loss(self, terms: dict[str, Tensor]) -> Tensor:
        """Add up the terms with the stage's weights."""
        assert terms.keys() == self.term_weights.keys(), "loss_terms must name all"
        weighed = [weight * terms[name] for name, weight in self.term_weights.items()]
        return torch.stack(weighed).sum()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let what layers draw from the global generator follow from the samples.

        So that dropout, say, is the same after a resume.
        """
        torch.manual_seed(batch["index"].tolist()[0])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Code a batch and return the loss; where units are apart, also step."""
        if self.stage.unroll == "unit":
            return self._step_after_each_unit(batch)
        draw = self._draw(batch["clip"], batch["index"], training=True)
        out = self.codec(draw.clip, draw.rate, **draw.conditions)
        last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        return self._weigh(draw, out, last and self._logs_within(1))

    def _step_after_each_unit(self, batch: Batch) -> Tensor:
        """Code a batch unit after unit, and step the optimizer after each.

        Source: the first stage of DCVC-UF's schedule (microsoft/DCVC, training.md).
        """
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        parts = zip(
            batch["clip"].chunk(self.micro_batches),
            batch["index"].chunk(self.micro_batches),
            strict=True,
        )
        draws = [self._draw(clip, seeds, training=True) for clip, seeds in parts]
        walks = [
            self.codec.forward_units(d.clip, d.rate, **d.conditions) for d in draws
        ]
        # A stage may end amid a clip, and then is over.
        left = self.trainer.max_steps - self.trainer.global_step
        count = min(self.steps_per_batch, left)
        logs, start = self._logs_within(count), 0
        for unit in range(count):
            optimizer.zero_grad()
            for part, (draw, walk) in enumerate(zip(draws, walks, strict=True), 1):
                out = next(walk)
                own = draw.between(start, start + out.x_hat.shape[1])
                last = unit + 1 == count and part == len(draws)
                loss = self._weigh(own, out, last and logs)
                self.manual_backward(loss / len(draws))
            start += out.x_hat.shape[1]
            optimizer.step()
            scheduler.step()
        return loss.detach()

    def _logs_within(self, steps: int) -> bool:
        """Return whether one of the next steps is to be logged."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        done = self.trainer.global_step
        return bool((done + steps) // every > done // every)

    def _weigh(self, draw: Draw, out: CodecOutput, logs: bool) -> Tensor:
        """Return the loss, and note its figures; log them too where it is time to."""
        terms = self.terms(draw, out)
        loss = self.loss(terms)
        self._frames_done += draw.clip.shape[0] * draw.clip.shape[1]
        self._note(draw, out, {"loss": loss, **terms})
        if logs:
            self._log_interval(draw.clip.shape[0])
        return loss

    @torch.no_grad()
    def _note(self, draw: Draw, out: CodecOutput, terms: dict[str, Tensor]) -> None:
        """Add a batch's figures to those of the steps since the last logged one."""
        for name, term in terms.items():
            self._figures.add(name, term)
        rates = self._rate_parts(draw)
        own = {name: terms[name] for name in self.term_weights}
        loss = loss_of_frames(self._frame_terms, own, self.term_weights)
        for point, chosen in rates.items():
            self._figures.add(f"{point}/loss", loss.expand_as(chosen), chosen)
        if self.decodes:
            frames = {
                "bpp": bits_to_bpp(out.bits, draw.clip),
                "psnr": psnr(out.x_hat.clamp(0.0, 1.0), draw.clip),
            }
            for name, values in frames.items():
                self._figures.add(name, values)
                for group, chosen in (draw.groups | rates).items():
                    self._figures.add(f"{group}/{name}", values, chosen)
        for name, part in out.parts.items():
            self._figures.add(f"{name}/bpp", bits_to_bpp(part, draw.clip))

    def _rate_parts(self, draw: Draw) -> dict[str, Tensor]:
        """Return which frames were drawn nearest to each rate point, bool (B, T)."""
        points, device = self.rate_points(), draw.rate.device
        if self._rates.device != device or len(self._rates) != len(points):
            # Once: to copy numbers to a GPU in each step would wait for it.
            self._rates = torch.tensor([*points.values()], device=device)
        lmbdas = self.lmbda(self._rates), self.lmbda(draw.rate)
        return nearest_points([*points], *lmbdas, draw.clip.shape[1])

    def _log_interval(self, batch_size: int) -> None:
        """Log the means of the steps since the last logged one, over all ranks."""
        reduce = partial(self.trainer.strategy.reduce, reduce_op="sum")
        means = self._figures.take(reduce)
        logged = {f"train/{name}": mean for name, mean in means.items()}
        logged["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        logged["train/frames_per_second"] = self._throughput()
        self.log_dict(logged, logger=False, batch_size=batch_size)
        # Lightning itself would repeat old figures of groups that the interval lacks,
        # and write after the step's checkpoint: a kill in between would lose them.
        for logger in self.trainer.loggers:
            logger.log_metrics(logged, self.trainer.global_step)

    def _throughput(self) -> float:
        now = time.perf_counter()
        frames, seconds = self._frames_done, now - self._clock
        self._clock, self._frames_done = now, 0
        return frames * self.trainer.world_size / max(seconds, 1e-9)

    def on_train_start(self) -> None:
        """Start the throughput's clock, and the first interval."""
        self._figures.clear()
        self._clock, self._frames_done = time.perf_counter(), 0

    # Validation and test.

    def rate_points(self) -> dict[str, float]:
        """Return the rates that validation tests, by log key."""
        knob = self.codec.rate_knob
        return {f"{knob.name}{point:g}": point for point in knob.points}

    @property
    def decodes(self) -> bool:
        """Whether this stage decodes frames: PSNR and bits of others mean nothing."""
        return True

    @uncast
    def validation_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int
    ) -> list[ValidationResult]:
        """Code a clip at every rate point, in float32, as files are coded."""
        results: list[ValidationResult] = []
        if not batch["name"]:
            # This rank has no clip, but takes part in what the ranks do together.
            return results
        draw = self._draw(batch["clip"], batch["index"], training=False)
        for point, rate in self.rate_points().items():
            draw.rate = torch.full_like(draw.rate, rate)
            draw.lmbda = self.lmbda(draw.rate)
            out = self.codec(draw.clip, draw.rate, **draw.conditions)
            loss = self.loss(self.terms(draw, out))
            self._loss_sum[0] += float(loss) * draw.clip.shape[0]
            self._loss_sum[1] += draw.clip.shape[0]
            coded = draw.clip, out.x_hat, out.bits, self.decodes
            results.append(ValidationResult(batch["name"][0], point, rate, *coded))
        return results

    test_step = validation_step  # type: ignore[assignment]

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's losses."""
        self._loss_sum = [0.0, 0.0]

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss over clips and rate points, the same on every rank."""
        sums = torch.tensor(self._loss_sum, dtype=torch.float64, device=self.device)
        total, count = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        split = "test" if self.trainer.testing else "val"
        self.log(f"{split}/loss", total / max(count, 1.0))
        # Validation is no training time.
        self._clock, self._frames_done = time.perf_counter(), 0

    on_test_epoch_end = on_validation_epoch_end

    def training_settings(self) -> dict[str, Any]:
        """Return what the weights were trained for; see the base class.

        The stage's loss weights count too, where it has some.
        """
        settings = super().training_settings()
        return settings | (
            {"weights": self.stage.weights} if self.stage.weights else {}
        )
